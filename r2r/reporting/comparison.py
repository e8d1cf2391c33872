"""Translations of one set of paired scenes, scored against their sources, their photo twins and the photo domain.

Every score is per image first; only KID belongs to a set. The i-th image of every method and the i-th photo show the
same scene, so KID leaves same-scene pairs out and differences between methods are taken scene by scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from r2r.errors import InputError
from r2r.metrics import (
    Backbone,
    Estimate,
    Protocol,
    bootstrap_mean,
    kid,
    kid_difference,
    kid_protocol,
    masked_ssim,
    masked_ssim_protocol,
    paired_difference,
    psnr,
    psnr_protocol,
    ssim,
    ssim_protocol,
)
from r2r.reporting.tables import Cell, Column, Table, three_figures
from r2r.types import Images, PairedBatch

TEXTURE, PSNR_TWIN, SSIM_TWIN = "SSIM to source in garment", "PSNR to photo twin [dB]", "SSIM to photo twin"
_DIGITS = {TEXTURE: 3, PSNR_TWIN: 2, SSIM_TWIN: 3}


@dataclass(frozen=True)
class Outputs:
    """What one method made of all scenes, with its cost per image where there is one."""

    name: str
    images: Images
    evals: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class _Scored:
    outputs: Outputs
    per_image: dict[str, list[float]]
    features: list[Float[Tensor, "b d"]]  # one set per backbone


class Comparison:
    """Scores of several methods on the same scenes; the rendered source is a method too."""

    def __init__(
        self, scenes: PairedBatch, methods: Sequence[Outputs], backbones: Sequence[Backbone], seed: int = 0
    ) -> None:
        """Score everything once. `scenes` holds the whole set; methods follow its order.

        Raises InputError for fewer than two scenes or a method with another number of images.
        """
        self.scenes, self.backbones, self.seed = scenes, list(backbones), seed
        self.photo_features = [backbone(scenes["photo"]) for backbone in backbones]
        self.methods = {method.name: self._score(method) for method in methods}

    def kid(self, name: str, backbone: int = 0) -> Estimate:
        """KID of a method to the photos of the scenes, same-scene pairs left out."""
        features = self.methods[name].features[backbone]
        return kid(features, self.photo_features[backbone], paired=True, seed=self.seed)

    def kid_of_other_scenes(self, photos: Images, backbone: int = 0) -> Estimate:
        """KID of photos of other scenes to the photos of these: what a perfect translation could reach."""
        return kid(self.backbones[backbone](photos), self.photo_features[backbone], seed=self.seed)

    def kid_change(self, after: str, before: str, backbone: int = 0) -> Estimate:
        """KID of `after` minus KID of `before`, resampled together; negative = closer to photos."""
        new, old = (self.methods[name].features[backbone] for name in (after, before))
        return kid_difference(new, old, self.photo_features[backbone], paired=True, seed=self.seed)

    def change(self, score: str, after: str, before: str) -> Estimate:
        """Mean per-scene difference of a per-image score."""
        new, old = (self.methods[name].per_image[score] for name in (after, before))
        return paired_difference(new, old, seed=self.seed)

    def table(self, title: str, notes: Sequence[str] = (), floor: tuple[str, Images] | None = None) -> Table:
        """One row per method; `floor` adds a named row with the KID of other photos."""
        columns = [Column("Images"), *(self._kid_column(index) for index in range(len(self.backbones)))]
        columns += [Column(score, digits, "higher") for score, digits in _DIGITS.items()]
        columns += [Column("U-Net evals per image", 1, "lower"), Column("Seconds per image", 2, "lower")]
        rows = [self._row(name) for name in self.methods]
        if floor is not None:
            kids: list[Cell] = [self.kid_of_other_scenes(floor[1], index) for index in range(len(self.backbones))]
            rows.append([floor[0], *kids, *[None] * (len(columns) - 1 - len(kids))])
        return Table(title, columns, rows, list(notes))

    def per_image_rows(self) -> list[dict[str, str | float]]:
        """One row per scene and method, for CSV."""
        return [
            {"key": key, "method": name, **{score: values[index] for score, values in scored.per_image.items()}}
            for index, key in enumerate(self.scenes["key"])
            for name, scored in self.methods.items()
        ]

    def protocols(self) -> dict[str, Protocol]:
        """The protocol of every column."""
        n, size = len(self.scenes["key"]), "x".join(map(str, self.scenes["photo"].shape[-2:]))
        kids = {
            _kid_title(backbone): kid_protocol(backbone.name, n, n, paired=True, resize=backbone.resize)
            for backbone in self.backbones
        }
        fidelity = {PSNR_TWIN: psnr_protocol(n, size), SSIM_TWIN: ssim_protocol(n, size)}
        return kids | {TEXTURE: masked_ssim_protocol("garment mask of the scene", n, size)} | fidelity

    def _score(self, method: Outputs) -> _Scored:
        scenes, images = self.scenes, method.images
        if len(images) != len(scenes["key"]):
            raise InputError(f"{method.name}: {len(images)} images for {len(scenes['key'])} scenes; give one for each")
        scores = {
            TEXTURE: masked_ssim(images, scenes["rendered"], scenes["garment_mask"]),
            PSNR_TWIN: psnr(images, scenes["photo"]),
            SSIM_TWIN: ssim(images, scenes["photo"]),
        }
        per_image = {score: values.tolist() for score, values in scores.items()}
        return _Scored(method, per_image, [backbone(images) for backbone in self.backbones])

    def _kid_column(self, index: int) -> Column:
        digits = three_figures(self.kid(name, index).value for name in self.methods)
        return Column(_kid_title(self.backbones[index]), digits, "lower")

    def _row(self, name: str) -> list[Cell]:
        scored = self.methods[name]
        kids: list[Cell] = [self.kid(name, index) for index in range(len(self.backbones))]
        means: list[Cell] = [bootstrap_mean(scored.per_image[score], seed=self.seed) for score in _DIGITS]
        return [name, *kids, *means, scored.outputs.evals, scored.outputs.seconds]


def _kid_title(backbone: Backbone) -> str:
    return f"KID to photos ({backbone.name})"
