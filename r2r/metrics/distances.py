"""One number per set of images, from their features: KID, FID and CLIP-FID, each with the backend that computes it.

- Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401): KID. FashionR2R (NeurIPS 2024) reports it with
  torch-fidelity: `KID(inception(), backend="torch-fidelity")`.
- Heusel et al. (arXiv 1706.08500, equation 6): FID. Kynkäänniemi et al. (arXiv 2203.06026): CLIP-FID.

Deviations
- The default backend "r2r" computes KID exactly on the full sets, with a bootstrap interval (`realism`), and FID from
  singular values (`frechet`). The others are the libraries' estimators on the same features, any backbone's.
- The interval of a subset KID tells how much subsets differ, not how sure the mean is. FID has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, TypeVar

from r2r.errors import InputError
from r2r.metrics.backbones import Backbone
from r2r.metrics.frechet import clean_fid_fid, frechet, torch_fidelity_fid, torchmetrics_fid
from r2r.metrics.protocol import Protocol, protocol
from r2r.metrics.realism import Features, kid, kid_difference
from r2r.metrics.scores import WHOLE
from r2r.metrics.statistics import Estimate
from r2r.metrics.subsets import clean_fid, clean_fid_kid, torch_fidelity_kid, torchmetrics_kid
from r2r.metrics.vision_transformers import clip_image

Function = TypeVar("Function", bound=Callable[..., Any])
Distance = Callable[[Features, Features, bool], Estimate]
Change = Callable[[Features, Features, Features, bool], Estimate]

_SUBSET_KIDS = {
    "torch-fidelity": torch_fidelity_kid,
    "torchmetrics": torchmetrics_kid,
    "clean-fid": clean_fid_kid,
}
_FIDS = {
    "r2r": frechet,
    "torch-fidelity": torch_fidelity_fid,
    "torchmetrics": torchmetrics_fid,
    "clean-fid": clean_fid_fid,
}
_FEW = 100  # images in a subset; below, a KID says little


@dataclass(frozen=True)
class SetScore:
    """A named distance between two sets of images; `estimate(outputs, target, paired)` takes features of `backbone`.

    `paired` says that the i-th images of both sets show the same scene. `change` is the paired counterpart for the
    difference between two methods, where the backend has one.
    """

    name: str
    backbone: Backbone
    estimate: Distance
    settings: Protocol  # all that defines the value except backbone, region and numbers of images
    pairs: str  # what happens to images of the same scene, for the protocol
    change: Change | None = None
    digits: int = 3
    better: Literal["lower"] = "lower"

    @property
    def title(self) -> str:
        """Name and backbone: what a column is called."""
        return f"{self.name} ({self.backbone.name})"

    def check(self, n_outputs: int, n_target: int) -> None:
        """Raise InputError, before any work, unless sets of these numbers of images can be scored."""
        smallest, subset = min(n_outputs, n_target), int(self.settings.get("subset_size", 0))
        sizes = f"{n_outputs} and {n_target} images"
        if smallest < 2:
            raise InputError(f"{self.title} needs two images in each set, got {sizes}; give more images")
        if subset > smallest:
            raise InputError(
                f"{self.title}: subsets of {subset} from sets of {sizes}; set metrics.kid.subset_size={smallest} or "
                "less (it becomes part of the protocol), or metrics.kid.backend=r2r, which needs no subsets"
            )

    def caution(self, n_outputs: int, n_target: int) -> str | None:
        """What to keep in mind when reading the value of sets of these sizes; None when there is nothing."""
        smallest, subset, size = min(n_outputs, n_target), self.settings.get("subset_size"), self.backbone.size
        if self.name.endswith("FID") and size is not None and smallest <= size:
            return f"rank-deficient: n = {smallest} <= d = {size}; biased, compare equal n only"
        if subset is not None and int(subset) < _FEW:
            return f"subsets of {subset} images: high variance"
        return None

    def difference(self, after: Features, before: Features, target: Features, paired: bool) -> Estimate | None:
        """Distance of `after` minus that of `before`, resampled together; None where the backend has no such test."""
        return None if self.change is None else self.change(after, before, target, paired)

    def protocol(self, n_outputs: int, n_target: int, paired: bool, region: str = WHOLE) -> Protocol:
        """Protocol of the value for sets of these sizes inside `region`."""
        caution = self.caution(n_outputs, n_target)
        backbone = self.backbone
        return protocol(
            self.name,
            **self.settings,
            backbone=backbone.name,
            weights=backbone.weights,
            resize=backbone.resize,
            quantization=backbone.quantization,
            range="[-1, 1]",
            region=region,
            num_outputs=n_outputs,
            num_target=n_target,
            **({"same-scene pairs": self.pairs} if paired else {}),
            **({"caution": caution} if caution else {}),
        )


def KID(
    backbone: Backbone, backend: str = "r2r", subset_size: int = 1000, num_subsets: int = 100, seed: int = 0
) -> SetScore:
    """Kernel distance by backend "r2r", "torch-fidelity", "torchmetrics" or "clean-fid".

    "r2r" is exact and uses no subsets; for the others, `subset_size` images must fit into both sets.

    Raises InputError for an unknown backend, one that is not installed, or subsets of fewer than two images.
    """
    if backend == "r2r":
        return _exact_kid(backbone, seed)
    estimator = _backend(backend, _SUBSET_KIDS)
    if subset_size < 2 or num_subsets < 1:
        raise InputError(f"KID: {num_subsets} subsets of {subset_size} images; give at least one of two")
    settings: Protocol = _versioned(backend) | {
        "kernel": "(x.y / d + 1)^3",
        "estimator": "mean over random subsets, unbiased within each",
        "interval": "95 % of subset values (mean +- 1.96 std)",
        "subset_size": subset_size,
        "num_subsets": num_subsets,
        "seed": seed,
    }

    def estimate(outputs: Features, target: Features, paired: bool) -> Estimate:
        outputs, target = (_placed(features, backbone) for features in (outputs, target))
        return estimator(outputs, target, subset_size, num_subsets, seed)

    return SetScore("KID", backbone, estimate, settings, pairs="counted")


def FID(backbone: Backbone, backend: str = "r2r", name: str = "FID") -> SetScore:
    """Fréchet distance of fitted Gaussians by backend "r2r", "torch-fidelity", "torchmetrics" or "clean-fid".

    With fewer images than features it is biased, and its protocol says so.

    Raises InputError for an unknown backend or one that is not installed.
    """
    distance = _backend(backend, _FIDS)
    settings: Protocol = _versioned(backend) | {
        "estimator": "Gaussians, covariance over n - 1",
        "interval": "none",
    }

    def estimate(outputs: Features, target: Features, paired: bool) -> Estimate:
        value = distance(_placed(outputs, backbone), _placed(target, backbone))
        return Estimate(value, value, value, len(outputs))

    return SetScore(name, backbone, estimate, settings, pairs="counted")


def CLIPFID(model: str = "openai/clip-vit-base-patch32", backend: str = "r2r") -> SetScore:
    """FID of CLIP's image embeddings, by hub id or folder; raises MissingWeightsError when the model is not there."""
    return FID(clip_image(model), backend, name="CLIP-FID")


def _exact_kid(backbone: Backbone, seed: int) -> SetScore:
    settings: Protocol = _versioned("r2r") | {
        "kernel": "(x.y / d + 1)^3",
        "estimator": "full-set U-statistic",
        "interval": "95 % expanded-percentile bootstrap over images (paired: scenes), 2000 resamples",
        "seed": seed,
    }
    placed = partial(_placed, backbone=backbone)

    def estimate(outputs: Features, target: Features, paired: bool) -> Estimate:
        return kid(placed(outputs), placed(target), paired=paired, seed=seed)

    def change(after: Features, before: Features, target: Features, paired: bool) -> Estimate:
        return kid_difference(placed(after), placed(before), placed(target), paired=paired, seed=seed)

    return SetScore("KID", backbone, estimate, settings, pairs="left out", change=change)


def _placed(features: Features, backbone: Backbone) -> Features:
    """Features beside the network when that has a GPU with float64, else on the CPU."""
    return features.to(backbone.device if backbone.device.startswith("cuda") else "cpu")


def _versioned(backend: str) -> Protocol:
    return {"backend": backend, "version": version(backend)}


def _backend(backend: str, known: Mapping[str, Function]) -> Function:
    if backend not in known:
        raise InputError(f"backend={backend!r} is none of {', '.join(sorted({'r2r', *known}))}")
    if backend == "clean-fid":
        clean_fid()
    return known[backend]
