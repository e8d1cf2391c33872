"""CUT's generator and discriminator (arXiv:2007.15651), as in the released code's defaults.

`resnet_9blocks` with anti-aliasing, 11.4 million parameters at width 64, and the PatchGAN `basic`, 2.8 million.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Generator, Tensor, nn

from r2r.models.gan.layers import (
    Downsample,
    InstanceNorm,
    ResnetBlock,
    decoder_layers,
    encoder_layers,
    initialize,
    tapped,
)
from r2r.types import Images


class ResnetGenerator(nn.Module):
    """Encoder, residual blocks, decoder; sides of images should be multiples of four."""

    def __init__(self, width: int = 64, num_blocks: int = 9) -> None:
        """`width` is the number of channels at full size (ngf in the released code)."""
        super().__init__()
        self.width, self.num_blocks = width, num_blocks
        blocks = [ResnetBlock(4 * width) for _ in range(num_blocks)]
        self.model = nn.Sequential(*encoder_layers(width), *blocks, *decoder_layers(width))
        initialize(self)

    def forward(
        self, images: Images, layers: Sequence[int] = (), encode_only: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The translation, and the outputs of the numbered entries; `encode_only` ends at the last of these.

        Entry 0 is the padded image, 4 and 8 are raw convolutions, 12 to 20 the residual blocks.
        """
        return tapped(self.model, images, layers, encode_only)

    @property
    def settings(self) -> dict[str, int]:
        """What another one of the same architecture is built with."""
        return {"width": self.width, "num_blocks": self.num_blocks}

    def translate(self, images: Images, generator: Generator | None = None) -> Images:
        """The translation alone; nothing in it is random."""
        return self(images)[0]

    def channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the outputs of encoder entries, for a patch sampler."""
        steps = {0: 3, 1: self.width, 4: 2 * self.width, 8: 4 * self.width}
        return [steps[max(start for start in steps if start <= layer)] for layer in layers]


class PatchDiscriminator(nn.Module):
    """A map of scores, each of an image patch (70 x 70 pixels, blurred down instead of strided)."""

    def __init__(self, width: int = 64) -> None:
        """`width` is the number of channels of the first layer (ndf)."""
        super().__init__()
        self.width = width
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, padding=1), nn.LeakyReLU(0.2), Downsample(width)]
        for number, channels in enumerate((width, 2 * width, 4 * width)):
            layers += [nn.Conv2d(channels, 2 * channels, 4, padding=1), InstanceNorm(), nn.LeakyReLU(0.2)]
            layers += [Downsample(2 * channels)] if number < 2 else []
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        initialize(self)

    def forward(self, images: Images) -> Float[Tensor, "b 1 h2 w2"]:
        """Score; real is 1 and fake 0 for least squares."""
        return self.model(images)
