"""UNSB's networks: a generator, a discriminator and an energy, all told where on the bridge they are.

*Unpaired Image-to-Image Translation via Neural Schrödinger Bridge* (ICLR 2024, arXiv:2305.15086); `resnet_9blocks_cond`
and `basic_cond` of the released code.

Deviations
- The released generator ignores time: its blocks drop the result of the first convolution, with the time term before
  it. `released=True` computes that, bit for bit, and leaves out the layers that it never uses (7.2 of 14.7 million
  parameters at width 64). The default is repaired, as the paper describes it.
- Repaired as it stands, the block would ignore time all the same: the time term is a constant for each channel, and the
  instance norm behind the convolution removes it. Here it is added after that norm; `time_after_norm=False` is the
  literal repair.
- The scale of the latent code starts at one, as its layer's code says; the released initialisation then sets it to
  zero, where it stays with `released=True`.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from r2r.diffusion.bridge import Bridge
from r2r.models.gan.layers import (
    Downsample,
    InstanceNorm,
    decoder_layers,
    encoder_layers,
    initialize,
    tapped,
)
from r2r.types import Images

NUM_BLOCKS = 9


class BridgeGenerator(nn.Module):
    """The end of the bridge, guessed from a place on it, its time index and a latent code."""

    def __init__(
        self,
        width: int = 64,
        num_code_layers: int = 4,
        released: bool = False,
        time_after_norm: bool = True,
        num_timesteps: int = 5,
        tau: float = 0.01,
    ) -> None:
        """`width` is ngf; `num_code_layers` is n_mlp + 1; codes have 4 * width numbers. The rest is the bridge's."""
        super().__init__()
        self.width, self.num_code_layers = width, num_code_layers
        self.released, self.time_after_norm, self.bridge = released, time_after_norm, Bridge(num_timesteps, tau)
        self.code_size = size = 4 * width
        self.model = nn.Sequential(*encoder_layers(width))
        self.model_res = nn.ModuleList(BridgeBlock(size, released, time_after_norm) for _ in range(NUM_BLOCKS))
        self.model_upsample = nn.Sequential(*decoder_layers(width))
        code: list[nn.Module] = [PixelNorm()]
        for _ in range(num_code_layers):
            code += [nn.Linear(size, size), nn.LeakyReLU(0.2)]
        self.z_transform = nn.Sequential(*code)
        self.time_embed = None if released else time_network(width, size)
        initialize(self)
        if not released:
            for block in self.model_res:
                nn.init.ones_(block.adaptive.style_net.bias[:size])  # pyright: ignore

    def forward(
        self,
        images: Images,
        time: Int[Tensor, " b"],
        code: Float[Tensor, "b d"],
        layers: Sequence[int] = (),
        encode_only: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """The guess and the outputs of the numbered entries, as of `ResnetGenerator`; time counts from 0."""
        code = self.z_transform(code)
        moment = None if self.time_embed is None else self.time_embed(time_embedding(time, self.width))
        blocks = [partial(block, moment=moment, code=code) for block in self.model_res]
        entries = [*self.model, *blocks, *self.model_upsample]
        return tapped(entries, images, layers, encode_only)

    @property
    def settings(self) -> dict[str, Any]:
        """What another one of the same architecture is built with."""
        names = ("width", "num_code_layers", "released", "time_after_norm")
        return {name: getattr(self, name) for name in names} | vars(self.bridge)

    def guess(self, images: Images, index: int, generator: Generator) -> Images:
        """The end of the bridge from place `index`, with a fresh code for each image."""
        code = torch.randn(len(images), self.code_size, generator=generator, device=generator.device)
        time = torch.full((len(images),), index, device=images.device)
        return self(images, time, code.to(images))[0]

    def translate(self, images: Images, generator: Generator | None = None, num_evals: int | None = None) -> Images:
        """The guess after `num_evals` evaluations of the network, at most and by default as many as the bridge has."""
        generator = generator or Generator(images.device).manual_seed(0)
        last = (num_evals or self.bridge.num_timesteps) - 1
        guess = partial(self.guess, generator=generator)
        return guess(self.bridge.walk(images, guess, last, generator), last)

    def channels(self, layers: Sequence[int]) -> list[int]:
        """Channels of the outputs of encoder entries, for a patch sampler."""
        steps = {0: 3, 1: self.width, 4: 2 * self.width, 8: 4 * self.width}
        return [steps[max(start for start in steps if start <= layer)] for layer in layers]


class BridgeBlock(nn.Module):
    """A residual block that a latent code scales and shifts between its two convolutions, and time shifts."""

    def __init__(self, channels: int, released: bool, time_after_norm: bool) -> None:
        super().__init__()
        self.released, self.time_after_norm = released, time_after_norm
        first: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        self.conv_block = nn.Sequential(*([] if released else first))
        self.Dense_time = None if released else nn.Linear(channels, channels)
        self.norm, self.adaptive = InstanceNorm(), Adaptive(channels)
        last = [nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), InstanceNorm()]
        self.conv_fin = nn.Sequential(*last)

    def forward(
        self, x: Float[Tensor, "b c h w"], moment: Float[Tensor, "b c"] | None, code: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b c h w"]:
        """Refine; `moment` is the embedded time, of which the released block takes no notice."""
        return x + self.conv_fin(self.adaptive(self._first(x, moment), code))

    def _first(self, x: Tensor, moment: Tensor | None) -> Tensor:
        if self.Dense_time is None:
            return self.norm(x)
        pad, conv = self.conv_block
        shift = self.Dense_time(moment)[:, :, None, None]
        if self.time_after_norm:
            return self.norm(conv(pad(x))) + shift
        return self.norm(conv(pad(x) + shift))


class Adaptive(nn.Module):
    """gamma x + beta, both linear in the code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.style_net = nn.Linear(channels, 2 * channels)

    def forward(self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "b c"]) -> Float[Tensor, "b c h w"]:
        """Scale and shift."""
        gamma, beta = self.style_net(code)[:, :, None, None].chunk(2, dim=1)
        return gamma * x + beta


class PixelNorm(nn.Module):
    """z / sqrt(mean(z^2) + 1e-8)."""

    def forward(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Normalise."""
        return code * (code.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class BridgeDiscriminator(nn.Module):
    """Scores of image patches at a time; with `channels` 12 the energy of two pairs of images.

    Time is added behind every convolution; the instance norms of all blocks but the first remove it again, as released.
    """

    def __init__(self, width: int = 64, channels: int = 3) -> None:
        """`width` is ndf."""
        super().__init__()
        self.width = width
        self.t_embed = TimeNetwork(4 * width)
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        self.model_main = nn.ModuleList(
            PatchBlock(before, after, 4 * width, norm=number > 0, down=number < 3)
            for number, (before, after) in enumerate(pairwise(sizes))
        )
        self.final_conv = nn.Conv2d(8 * width, 1, 4, padding=1)
        initialize(self)

    def forward(self, images: Float[Tensor, "b _ h w"], time: Int[Tensor, " b"]) -> Float[Tensor, "b 1 h2 w2"]:
        """Score; an energy takes both pairs as channels."""
        moment = self.t_embed(time)
        for block in self.model_main:
            images = block(images, moment)
        return self.final_conv(images)


class PatchBlock(nn.Module):
    """Convolution, time term, norm, leaky ReLU, blurred halving."""

    def __init__(self, before: int, after: int, time_size: int, norm: bool, down: bool) -> None:
        super().__init__()
        self.conv1, self.dense = nn.Conv2d(before, after, 4, padding=1), nn.Linear(time_size, after)
        self.norm = InstanceNorm() if norm else nn.Identity()
        self.act, self.down = nn.LeakyReLU(0.2), Downsample(after) if down else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"], moment: Float[Tensor, "b d"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Run in that order."""
        return self.down(self.act(self.norm(self.conv1(x) + self.dense(moment)[:, :, None, None])))


class TimeNetwork(nn.Module):
    """A time index, embedded and through two layers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.main = size, time_network(size, size)

    def forward(self, time: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed."""
        return self.main(time_embedding(time, self.size))


def time_network(size: int, hidden: int) -> nn.Sequential:
    """Two linear layers, each before a leaky ReLU."""
    return nn.Sequential(nn.Linear(size, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2))


def time_embedding(time: Int[Tensor, " b"], size: int) -> Float[Tensor, "b {size}"]:
    """Sines, then cosines of the index at `size` / 2 frequencies from 1 to 1 / 10000."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000) / (half - 1)))
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
