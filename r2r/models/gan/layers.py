"""Parts that the unpaired image translators share: CUT's norm, anti-aliased resampling, residual block, initialisation.

*Contrastive Learning for Unpaired Image-to-Image Translation* (arXiv:2007.15651), with the resampling of *Making
Convolutional Networks Shift-Invariant Again* (arXiv:1904.11486). Module names follow the released code, so that its
checkpoints fit (`r2r.models.gan.checkpoints`).

Deviations
- `Upsample` is bilinear interpolation by two, which the released depthwise transposed convolution equals.
- Instance norm makes the gradient it receives contiguous: see `InstanceNorm`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BINOMIAL = {3: (1, 2, 1), 4: (1, 3, 3, 1), 5: (1, 4, 6, 4, 1)}


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


class InstanceNorm(nn.Module):
    """(x - mean) / sqrt(var + 1e-5) for each image and channel, biased variance, no parameters.

    The backward pass of PyTorch's instance norm is wrong on CPUs for a batch of one whose gradient is channels-last, as
    sampling of patches makes it (PyTorch 2.13); a contiguous gradient is differentiated rightly everywhere.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise."""
        return _ContiguousGradient.apply(F.instance_norm(x))  # pyright: ignore[reportReturnType]


class Downsample(nn.Module):
    """Blur with a binomial filter, then every second pixel; edges are reflected."""

    filt: Tensor

    def __init__(self, channels: int, size: int = 3) -> None:
        super().__init__()
        row = torch.tensor(BINOMIAL[size], dtype=torch.float32)
        kernel = torch.outer(row, row) / row.sum() ** 2
        self.register_buffer("filt", kernel.repeat(channels, 1, 1, 1), persistent=False)
        before, after = (size - 1) // 2, size // 2
        self.padding = (before, after, before, after)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Sides are halved, rounded up."""
        padded = F.pad(x, self.padding, mode="reflect")
        return F.conv2d(padded, self.filt.to(x.dtype), stride=2, groups=x.shape[1])


class Upsample(nn.Module):
    """Twice the size, by the filter [1, 3, 3, 1]."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Sides are doubled."""
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResnetBlock(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))), both convolutions 3 x 3 on reflected edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm()]
            layers += [] if last else [nn.ReLU()]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine."""
        return x + self.conv_block(x)


def encoder_layers(width: int) -> list[nn.Module]:
    """Entries 0 to 11 of CUT's generator: 7 x 7 stem and two halvings, from 3 to 4 * width channels."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), InstanceNorm(), nn.ReLU()]
    for channels in (width, 2 * width):
        layers += [nn.Conv2d(channels, 2 * channels, 3, padding=1), InstanceNorm(), nn.ReLU()]
        layers += [Downsample(2 * channels)]
    return layers


def decoder_layers(width: int) -> list[nn.Module]:
    """The last entries of CUT's generator: two doublings and a 7 x 7 convolution to an image in (-1, 1)."""
    layers: list[nn.Module] = []
    for channels in (4 * width, 2 * width):
        layers += [Upsample(), nn.Conv2d(channels, channels // 2, 3, padding=1), InstanceNorm(), nn.ReLU()]
    return [*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]


def tapped(
    layers: Iterable[Callable[[Tensor], Tensor]], x: Tensor, taps: Sequence[int], stop: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Run layers in order; the output, and what came out of the entries in `taps`, where `stop` ends after the last."""
    found: list[Tensor] = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in taps:
            found.append(x)
        if stop and len(found) == len(taps):
            break
    return x, found


def initialize(network: nn.Module) -> nn.Module:
    """Xavier normal with gain 0.02 for convolutions and linear layers, biases zero, as CUT's code does; in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(module.weight, gain=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
