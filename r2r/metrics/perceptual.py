"""Perceptual distances of an image to its reference from deep features: LPIPS and DISTS.

- Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924): LPIPS 0.1,
  by the authors' package.
- Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity" (arXiv 2004.07728): DISTS.

Deviations
- LPIPS inside a mask averages the sum of the layers' maps, each upsampled to the image, over the mask. Upsampling
  weighs the borders differently, so a full mask comes close to the whole-image score and does not equal it.
- DISTS at the size of the images; the authors' script first scales a short side above 256 px down to 256.
- The weights that each paper learned rest on the ImageNet weights of torchvision. Over other weights (`weights=FILE`)
  the score is another quantity and says so in its name.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import dists
from torchvision.models import get_model_weights, vgg

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics.pretrained import from_torch_hub, read_state
from r2r.metrics.protocol import Protocol
from r2r.metrics.regions import Mask, boxed, masked_mean
from r2r.metrics.scores import ImageScore, Scores, checked, in_boxes
from r2r.metrics.weights import State, accelerator, weights_id
from r2r.types import Images

ARCHITECTURES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
LPIPS_SIDES = {"alex": 31, "vgg": 16, "squeeze": 17}  # below, a layer has no pixel left
DISTS_SIDE = 32  # half of it leaves the last stage a single pixel, which has no structure
# VGG16's layers of each stage, without the max pooling between: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 end them.
_STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))
_CHANNELS = (3, 64, 128, 256, 512, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def LPIPS(net: str = "alex", weights: str | Path | None = None) -> ImageScore:
    """Learned perceptual distance (arXiv 1801.03924, equation 1), linear weights 0.1; 0 when identical.

    `net` is alex, vgg or squeeze. Its weights come from torchvision's cache, or from `weights`: a file of its
    `.features` (safetensors or pth).

    Raises:
        InputError: there is no such net.
        MissingWeightsError: its weights are not at hand.
    """
    if net not in ARCHITECTURES:
        raise InputError(f"net={net!r}: LPIPS knows {', '.join(ARCHITECTURES)}")
    network = _lpips(net)
    # The package splits the layers into slices: slice1.0.weight is 0.weight of torchvision.
    _fill(network.net, ARCHITECTURES[net], weights, lambda name: name.split(".", 1)[1])
    network = network.requires_grad_(False).to(accelerator())
    maps = copy.copy(network)  # shares the weights
    maps.spatial = True

    def measure(images: Images, target: Images, mask: Mask | None) -> Scores:
        if mask is None:
            return network(images, target).flatten()
        return masked_mean(maps(images, target), mask)

    name = f"LPIPS ({net})" if weights is None else f"LPIPS ({net}, backbone {Path(weights).stem})"
    side = LPIPS_SIDES[net]
    settings: Protocol = {
        "backend": f"lpips {version('lpips')}",
        "version": "0.1",
        "backbone": f"{ARCHITECTURES[net]} {weights_id(network.net.state_dict())}",
        "resize": "none",
    }
    regions = "sum of the layers' maps, upsampled (bilinear) to the image, averaged over the mask"
    return ImageScore(name, "lower", checked(measure, name, side, accelerator()), settings, regions, min_side=side)


def DISTS(weights: str | Path | None = None) -> ImageScore:
    """Deep image structure and texture similarity (arXiv 2004.07728), as a distance: 0 when identical.

    VGG16 comes from torchvision's cache, or from `weights`: a file of its `.features` (safetensors or pth).

    Raises: MissingWeightsError when VGG16 is not at hand.
    """
    with torch.random.fork_rng(devices=[]):  # layers start out random
        network = StructureTexture()
    _fill(network.layers, "vgg16", weights)
    network = network.eval().requires_grad_(False).to(accelerator())
    name = "DISTS" if weights is None else f"DISTS (backbone {Path(weights).stem})"
    settings: Protocol = {
        "backend": f"r2r, weights of torchmetrics {version('torchmetrics')}",
        "backbone": f"vgg16 {weights_id(network.layers.state_dict())}",
        "resize": "none",
    }
    measure = checked(in_boxes(network, DISTS_SIDE), name, DISTS_SIDE, accelerator())
    return ImageScore(name, "lower", measure, settings, boxed(DISTS_SIDE), min_side=DISTS_SIDE)


class StructureTexture(nn.Module):
    """DISTS: how well means (texture) and correlations (structure) of VGG16's feature maps and the pixels agree."""

    mean: Tensor
    std: Tensor
    filter: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = vgg.make_layers(vgg.cfgs["D"])
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        window = torch.hann_window(5, periodic=False)[1:-1]
        self.register_buffer("filter", torch.outer(window, window)[None, None] / window.sum() ** 2)
        learned = torch.load(Path(dists.__file__).parent / "dists_models" / "weights.pt", weights_only=True)
        total = learned["alpha"].sum() + learned["beta"].sum()
        for name, weight in learned.items():
            self.register_buffer(name, weight.detach().flatten() / total)

    def forward(self, images: Images, target: Images) -> Float[Tensor, " b"]:
        """Distance of each image in [-1, 1] to its target."""
        similarity = torch.zeros(len(images), device=images.device)
        weights = zip(self.alpha.split(_CHANNELS), self.beta.split(_CHANNELS), strict=True)
        for x, y, (alpha, beta) in zip(self.features(images), self.features(target), weights, strict=True):
            texture, structure = _agreement(x, y)
            similarity = similarity + texture @ alpha + structure @ beta
        return (1 - similarity).clamp(min=0)  # rounding

    def features(self, images: Images) -> Iterator[Float[Tensor, "b c h w"]]:
        """The pixels in [0, 1], then the end of each stage; between stages, l2 pooling by a Hann window."""
        pixels = (images + 1) / 2
        yield pixels
        values = (pixels - self.mean) / self.std
        for start, stop in _STAGES:
            values = self.layers[start:stop](values if start == 0 else self._pool(values))
            yield values

    def _pool(self, values: Tensor) -> Tensor:
        channels = values.shape[1]
        window = self.filter.expand(channels, 1, 3, 3)
        return (F.conv2d(values**2, window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _agreement(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
    """Texture and structure terms of each channel, (b, c): SSIM's luminance and covariance terms over the whole map."""
    x_mean, y_mean = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
    x, y = x - x_mean, y - y_mean
    texture = (2 * x_mean * y_mean + 1e-6) / (x_mean**2 + y_mean**2 + 1e-6)
    structure = (2 * (x * y).mean((2, 3)) + 1e-6) / ((x**2).mean((2, 3)) + (y**2).mean((2, 3)) + 1e-6)
    return texture.flatten(1), structure


def _lpips(net: str) -> Any:
    """The package's network, its backbone still random."""
    import lpips

    # It draws a whole random classifier, and torchvision deprecates the arguments it passes on.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def _fill(network: nn.Module, architecture: str, weights: str | Path | None, plain: Callable[[str], str] = str) -> None:
    """Load the ImageNet weights of a torchvision classifier, or those in a file; `plain` gives torchvision's names.

    Raises: MissingWeightsError unless every tensor of `network` is there in the right shape.
    """
    state = _features(architecture, weights)
    needed = {name: plain(name) for name in network.state_dict()}
    source = "the weights" if weights is None else str(weights)
    if lacking := sorted(name for name in needed.values() if name not in state):
        raise MissingWeightsError(
            f"{source} of {architecture}: {len(lacking)} tensors are missing, such as {lacking[0]!r}"
        )
    try:
        network.load_state_dict({name: state[other] for name, other in needed.items()})
    except RuntimeError as error:
        raise MissingWeightsError(
            f"{source} do not fit {architecture}: {str(error).splitlines()[-1].strip()}"
        ) from error


def _features(architecture: str, weights: str | Path | None) -> State:
    """State of `.features` of a torchvision classifier: from a file of it or of the classifier, or from the cache."""
    if weights is not None:
        state = read_state(weights, f"torchvision's {architecture} or its features")
    else:
        published = get_model_weights(architecture)["IMAGENET1K_V1"]  # the ones both papers rest on
        with from_torch_hub(published.url, f"{architecture} (ImageNet, torchvision)"):
            state = dict(
                published.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
            )
    whole = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    return whole or state
