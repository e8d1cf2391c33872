"""A small neutral feature network: what garment, what texture, never which domain; the offline backbone of KID.

Demystifying MMD GANs (arXiv:1801.01401) scores sets of images by features of a classifier. This one learns on rendered
and photo images alike, under equal labels, by `experiment=tiny_features`.

Deviations
- Features are means and deviations of the activations of the first three stages, each brought to zero mean and unit
  variance over the training images of both domains: early stages keep the local appearance (grain, contrast,
  sharpness) that a classifier of content learns to forget, and the kernel then weighs all of them alike.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r2r.errors import MissingWeightsError
from r2r.metrics import Backbone
from r2r.metrics.weights import accelerator
from r2r.types import Images

CATEGORIES = (
    "t-shirt", "shirt", "sweater", "hoodie", "tank top", "coat", "trousers", "skirt", "dress", "shorts",
)  # fmt: skip
TEXTURES = ("plain", "stripes", "plaid", "dots", "print", "lettering", "knit")
SHIPPED = Path(__file__).parents[1] / "assets" / "features"


class FeatureNet(nn.Module):
    """Four convolutional stages (strides 2 to 16); a linear head for the category and one for the texture."""

    def __init__(
        self,
        categories: Sequence[str] = CATEGORIES,
        textures: Sequence[str] = TEXTURES,
        channels: Sequence[int] = (24, 48, 96, 128),
        resolution: int = 128,
    ) -> None:
        """`resolution` is the side, in pixels, of the images it is trained on and meant for."""
        super().__init__()
        self.categories, self.textures = tuple(categories), tuple(textures)
        self.channels, self.resolution = tuple(channels), resolution
        self.stages = nn.ModuleList([_convolution(3, channels[0], 2, kernel=5)])
        for before, width in pairwise(channels):
            self.stages.append(nn.Sequential(_convolution(before, width, 2), _convolution(width, width, 1)))
        self.normalise = nn.BatchNorm1d(2 * sum(channels[:3]), affine=False)
        self.category_head = nn.Linear(sum(channels[1:]), len(categories))
        self.texture_head = nn.Linear(sum(channels[1:]), len(textures))

    def features(self, images: Images) -> Float[Tensor, "b d"]:
        """Standardised statistics of the first three stages (d = 336), of images in [-1, 1]."""
        return self._describe(self.activations(images))

    def forward(self, images: Images) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b t"]]:
        """Logits of the categories and of the textures, from the means of the last three stages."""
        activations = self.activations(images)
        if self.training:
            self._describe([stage.detach() for stage in activations])  # keeps the running statistics
        pooled = torch.cat([_mean(stage) for stage in activations[1:]], dim=1)
        return self.category_head(pooled), self.texture_head(pooled)

    def activations(self, images: Images) -> list[Tensor]:
        """What the four stages make of images in [-1, 1], each (b, c, h, w)."""
        activations: list[Tensor] = []
        for stage in self.stages:
            activations.append(stage(activations[-1] if activations else images))
        return activations

    def _describe(self, activations: list[Tensor]) -> Tensor:
        shallow = activations[:3]
        return self.normalise(torch.cat([f(stage) for stage in shallow for f in (_mean, _deviation)], dim=1))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` (float16)."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        config = {name: getattr(self, name) for name in ("categories", "textures", "channels", "resolution")}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = {
            name: value.half() if value.is_floating_point() else value for name, value in self.state_dict().items()
        }
        save_file(state, Path(folder) / "model.safetensors")

    @classmethod
    def from_pretrained(cls, pretrained: str | Path = "tiny") -> "FeatureNet":
        """The shipped network ("tiny") or one saved in a folder; float32, in evaluation mode, frozen.

        Raises:
            MissingWeightsError: the folder does not hold such a network.
        """
        folder = SHIPPED if pretrained == "tiny" else Path(pretrained)
        if not (folder / "model.safetensors").is_file():
            raise MissingWeightsError(f"no feature network in {folder}; give an export of experiment=tiny_features")
        network = cls(**json.loads((folder / "config.json").read_text()))
        network.load_state_dict(load_file(folder / "model.safetensors"))
        return network.eval().requires_grad_(False)


def backbone(pretrained: str | Path = "tiny") -> Backbone:
    """The network as a backbone of KID, named "r2r-features"; images are not resized.

    Raises MissingWeightsError as `FeatureNet.from_pretrained` does.
    """
    network = FeatureNet.from_pretrained(pretrained)
    return Backbone("r2r-features", network.features, size=2 * sum(network.channels[:3])).to(accelerator())


def _convolution(before: int, width: int, stride: int, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _mean(activation: Tensor) -> Tensor:
    return activation.mean((2, 3))


def _deviation(activation: Tensor) -> Tensor:
    return activation.std((2, 3))
