"""SANTA's generator: an encoder, and a decoder that walks a path from the source domain (0) to the target domain (1).

*Unpaired Image-to-Image Translation with Shortest Path Regularization* (CVPR 2023). The place on the path enters as a
style, in adaptive instance norms (arXiv:1703.06868) of every decoder layer. `adain_resnet_9blocks` of the released
code; 11.4 million parameters at width 64.

Deviations
- The place on the path is one number for each image, so that batches may be of any size.
- The two domain styles start at a standard deviation of 0.01, as measured on the released code.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from r2r.models.gan.layers import InstanceNorm, ResnetBlock, Upsample, encoder_layers, initialize
from r2r.types import Images

ENCODER_BLOCKS, DECODER_BLOCKS = 4, 5


class AdaIN(nn.Module):
    """(1 + gamma) IN(x) + beta, both linear in the style."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.norm, self.fc = InstanceNorm(), nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        """Normalise and restyle."""
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * self.norm(x) + beta


class StyledBlock(nn.Module):
    """A residual block whose two norms are adaptive."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), AdaIN(channels, style_dim)]
            layers += [] if last else [nn.ReLU()]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        """Refine."""
        return x + styled(self.conv_block, x, style)[0]


class PathGenerator(nn.Module):
    """`encode` images, `decode` latents at places on the path, `translate` to its end."""

    def __init__(self, width: int = 64, style_dim: int = 8) -> None:
        """`width` is the number of channels at full size (ngf)."""
        super().__init__()
        self.width, self.style_dim = width, style_dim
        blocks = [ResnetBlock(4 * width) for _ in range(ENCODER_BLOCKS)]
        self.encoder = nn.Sequential(*encoder_layers(width), *blocks)
        layers: list[nn.Module] = [StyledBlock(4 * width, style_dim) for _ in range(DECODER_BLOCKS)]
        for channels in (4 * width, 2 * width):
            layers += [Upsample(), nn.Conv2d(channels, channels // 2, 3, padding=1)]
            layers += [AdaIN(channels // 2, style_dim), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())
        self.domain_embedding = nn.Embedding(2, style_dim)
        initialize(self)
        nn.init.normal_(self.domain_embedding.weight, std=0.01)

    def encode(self, images: Images) -> Float[Tensor, "b c zh zw"]:
        """Latents at a quarter of the size."""
        return self.encoder(images)

    def decode(
        self, latents: Float[Tensor, "b c zh zw"], place: Float[Tensor, " b"], layers: Sequence[int] = ()
    ) -> tuple[Images, list[Tensor]]:
        """Images at `place` in [0, 1] of each, and the outputs of the numbered decoder entries."""
        start, end = self.domain_embedding.weight
        return styled(self.decoder, latents, start + place[:, None] * (end - start), layers)

    @property
    def settings(self) -> dict[str, int]:
        """What another one of the same architecture is built with."""
        return {"width": self.width, "style_dim": self.style_dim}

    def translate(self, images: Images, generator: Generator | None = None) -> Images:
        """To the end of the path, the target domain; nothing in it is random."""
        return self.decode(self.encode(images), torch.ones(len(images), device=images.device))[0]


def styled(
    layers: nn.Sequential, x: Tensor, style: Float[Tensor, "b s"], taps: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Run layers, those that take one with the style; the output, and what came out of the entries in `taps`."""
    found: list[Tensor] = []
    for index, layer in enumerate(layers):
        x = layer(x, style) if isinstance(layer, AdaIN | StyledBlock) else layer(x)
        if index in taps:
            found.append(x)
    return x, found
