"""Named image-feature backbones: the name is part of every score that rests on them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import squeezenet1_1

from r2r.errors import MissingWeightsError
from r2r.metrics.protocol import check_images
from r2r.types import Images

Extractor = Callable[[Images], Float[Tensor, "b d"]]


@dataclass(frozen=True)
class Backbone:
    """A feature extractor on images in [-1, 1], with the name and the resize rule that go into the protocol."""

    name: str
    features: Extractor
    resize: str = "none"

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = 64) -> Float[Tensor, "b d"]:
        """Features of all images, float32 on the CPU."""
        check_images(images, f"images for {self.name}")
        return torch.cat([self.features(chunk).float().cpu() for chunk in images.split(batch_size)])


class SqueezeNetFeatures(nn.Module):
    """Globally pooled convolutional features (512) of SqueezeNet 1.1 (arXiv 1602.07360) at 224 px."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = squeezenet1_1(weights=None).features
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "b 512"]:
        """Features of images in [-1, 1]."""
        resized = F.interpolate(images, size=(224, 224), mode="bilinear", antialias=True, align_corners=False)
        return self.features(((resized + 1) / 2 - self.mean) / self.std).mean((2, 3))


def squeezenet(weights: Path, name: str = "squeezenet-caffe") -> Backbone:
    """SqueezeNet 1.1 from a safetensors file with the keys of torchvision's `squeezenet1_1().features`.

    Raises MissingWeightsError when the file is not there or holds something else.
    """
    if not weights.is_file():
        raise MissingWeightsError(f"no weights at {weights}; give a safetensors file of squeezenet1_1 features")
    network = SqueezeNetFeatures().eval().requires_grad_(False)
    try:
        network.features.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise MissingWeightsError(f"{weights} does not hold squeezenet1_1 features: {error}") from error
    return Backbone(name, network, resize="bilinear, antialiased, to 224 px")
