"""Named image-feature backbones: the name is part of every score that rests on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import torch
import torchvision
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights, list_models, squeezenet1_1

from r2r.errors import InputError
from r2r.metrics.pretrained import fitting, from_torch_hub, load_exactly, read_state
from r2r.metrics.protocol import check_images
from r2r.metrics.weights import accelerator, weights_id
from r2r.types import Images

Extractor = Callable[[Images], Float[Tensor, "b d"]]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EIGHT_BIT = "clamped to [-1, 1], rounded to 8 bit"
# Their constructors warn unless told; torchvision's own weights expect inputs scaled as in TensorFlow.
_TENSORFLOW = {"init_weights": False, "transform_input": True}
_OPTIONS: dict[str, dict[str, bool]] = {"googlenet": _TENSORFLOW, "inception_v3": _TENSORFLOW}


@dataclass(frozen=True)
class Backbone:
    """A feature extractor on images in [-1, 1], with the name and the rules that go into the protocol.

    `size` is the number of features where it is known. `features` is a network, one of its methods, or a function.
    """

    name: str
    features: Extractor
    resize: str = "none"
    quantization: str = "none"
    size: int | None = None
    device: str = "cpu"

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = 64) -> Float[Tensor, "b d"]:
        """Features of all images, float32 on the CPU."""
        check_images(images, f"images for {self.name}")
        chunks = images.split(batch_size)
        return torch.cat([self.features(chunk.to(self.device)).float().cpu() for chunk in chunks])

    def to(self, device: str) -> "Backbone":
        """The same backbone, its network moved to `device`."""
        if self._network is not None:
            self._network.to(device)
        return replace(self, device=device)

    @property
    def id(self) -> str:
        """What equal features need: name, weights, resize rule and quantization."""
        return "|".join((self.name, self.weights, self.resize, self.quantization))

    @cached_property
    def weights(self) -> str:
        """Hash of all parameters and buffers, "" for a function without a network."""
        return "" if self._network is None else weights_id(self._network.state_dict())

    @property
    def _network(self) -> nn.Module | None:
        owner = getattr(self.features, "__self__", self.features)
        return owner if isinstance(owner, nn.Module) else None


class Normalised(nn.Module):
    """A network on images in [-1, 1]: resized to a square, normalised, its maps averaged over their pixels."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        side: int = 224,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
    ) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def resize(self) -> str:
        """The resize rule, in words."""
        return f"bilinear, antialiased, to {self.side} px"

    def forward(self, images: Images) -> Float[Tensor, "b d"]:
        """Features of images in [-1, 1]."""
        square = (self.side, self.side)
        resized = F.interpolate(images, size=square, mode="bilinear", antialias=True, align_corners=False)
        features = self.network(((resized + 1) / 2 - self.mean) / self.std)
        return features.mean((2, 3)) if features.ndim == 4 else features


class _Inception(nn.Module):
    """torch-fidelity's network behind images in [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Float[Tensor, "b 2048"]:
        return self.network(eight_bit(images))[0]


def inception(weights: str | Path | None = None) -> Backbone:
    """Inception v3 as published for FID (2048 pooled features), torch-fidelity's network, resize and 8-bit input.

    `weights` is torch-fidelity's file; without it the cache of torch hub, which fetches it when it can.
    Raises MissingWeightsError when there is none or it holds something else.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    what = "torch-fidelity's Inception v3"
    if weights is None:
        path, loading = None, from_torch_hub(URL_INCEPTION_V3, what)
    else:
        read_state(weights, what)  # torch-fidelity unpickles the file without asking: refuse code in it first
        path, loading = str(Path(weights).expanduser()), fitting(weights, what)
    with loading, torch.random.fork_rng(devices=[]):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path, verbose=False)
    resize = "bilinear as in TensorFlow 1, not antialiased, to 299 px"
    return Backbone("inception-v3-compat", _Inception(network), resize, EIGHT_BIT, 2048).to(accelerator())


def squeezenet(weights: str | Path, name: str = "squeezenet-caffe") -> Backbone:
    """SqueezeNet 1.1 (arXiv 1602.07360), 512 pooled features, from a file with the keys of its `features`.

    Raises MissingWeightsError when the file is not there or holds something else.
    """
    with torch.random.fork_rng(devices=[]):
        network = squeezenet1_1(weights=None).features
    load_exactly(network, weights, "squeezenet1_1 features")
    return _frozen(name, Normalised(network), 512)


def torchvision_backbone(arch: str, weights: str | Path | None = None) -> Backbone:
    """Any classifier of torchvision: the features that enter its last linear layer (SqueezeNet: its pooled maps).

    `weights` is a .safetensors or .pth state dict of the classifier; without it torchvision's default ones, from the
    cache of torch hub. Images are resized to the square that these were evaluated on: the whole image, no crop.

    Raises:
        InputError: `arch` is no classifier of torchvision.
        MissingWeightsError: there are no weights, or of another network.
    """
    _check_arch(arch)
    published = get_model_weights(arch)["DEFAULT"]
    with torch.random.fork_rng(devices=[]):
        if weights is None:
            with from_torch_hub(published.url, f"{arch} ({published.name})"):
                classifier = get_model(arch, weights=published, progress=False)
        else:
            classifier = get_model(arch, weights=None, **_OPTIONS.get(arch, {}))
            load_exactly(classifier, weights, arch)
    network, size = _without_head(classifier)
    rule = published.transforms()
    name = f"{arch}-{published.name if weights is None else Path(weights).stem}"
    return _frozen(name, Normalised(network, rule.crop_size[0], rule.mean, rule.std), size)


def eight_bit(images: Images) -> UInt8[Tensor, "b 3 h w"]:
    """Images in [-1, 1] as they would be stored: clamped and rounded to 0..255."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _frozen(name: str, network: Normalised, size: int) -> Backbone:
    return Backbone(name, network.eval().requires_grad_(False), network.resize, size=size).to(accelerator())


def _without_head(classifier: nn.Module) -> tuple[nn.Module, int]:
    """The network up to its last linear layer, and the number of features there."""
    linear = [(name, module) for name, module in classifier.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        return classifier.get_submodule("features"), 512  # SqueezeNet classifies by a convolution
    name, head = linear[-1]
    parent, _, child = name.rpartition(".")
    setattr(classifier.get_submodule(parent), child, nn.Identity())
    return classifier, head.in_features


def _check_arch(arch: str) -> None:
    known = list_models(module=torchvision.models)
    if arch not in known:
        close = ", ".join(get_close_matches(arch, known, cutoff=0.4)) or "resnet50, vgg16, convnext_tiny"
        raise InputError(f"arch={arch!r} is no classifier of torchvision; try {close}")
