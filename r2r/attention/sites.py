"""Where attention layers lie in a U-Net, and rules that choose among them: static, no timestep, no counter."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Kind = Literal["self", "cross"]
Place = Literal["down", "mid", "up"]


@runtime_checkable
class UNet(Protocol):
    """What the core needs of a diffusers U-Net."""

    config: Any

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Processors by the dotted name of their layer."""
        ...

    def set_attn_processor(self, processor: Any) -> None:
        """Set one processor for each layer; empties the dict it is given."""


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """Where an attention layer lives in a U-Net. Static: no timestep, no counter."""

    name: str  # "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    kind: Kind
    place: Place
    stride: int  # latent pixels per token side: 1, 2, 4, 8

    def token_grid(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """Rows and columns of tokens for a latent of this size (the down-samplers round up)."""
        return -(-latent_height // self.stride), -(-latent_width // self.stride)


SiteFilter = Callable[[AttentionSite], bool]


@dataclass(frozen=True, slots=True)
class Sites:
    """Which attention layers a control acts on: one kind, in a range of strides (shallow = small stride)."""

    kind: Kind = "self"
    max_stride: int = 8
    min_stride: int = 1

    def __call__(self, site: AttentionSite) -> bool:
        return site.kind == self.kind and self.min_stride <= site.stride <= self.max_stride


@dataclass(frozen=True, slots=True)
class TokenThreshold:
    """The rule of FashionR2R's released code: self-attentions with `tokens >= image_height * image_width / threshold`.

    Equals `Sites(max_stride=sqrt(threshold / 64))` when every level divides both sides; else it may select less.
    """

    image_height: int
    image_width: int
    threshold: int
    vae_factor: int = 8

    def __call__(self, site: AttentionSite) -> bool:
        rows, columns = site.token_grid(self.image_height // self.vae_factor, self.image_width // self.vae_factor)
        return site.kind == "self" and rows * columns * self.threshold >= self.image_height * self.image_width


def attention_sites(unet: UNet) -> list[AttentionSite]:
    """The attention layers of a diffusers U-Net in the order in which they are called."""
    levels = len(unet.config.block_out_channels)
    sites = [_site(path.removesuffix(".processor"), levels) for path in unet.attn_processors]
    order: list[Place] = ["down", "mid", "up"]
    return sorted(sites, key=lambda site: order.index(site.place))  # stable; diffusers lists mid last


def _site(name: str, levels: int) -> AttentionSite:
    if (match := re.match(r"(down|mid|up)_block(?:s\.(\d+))?", name)) is None:
        raise ValueError(f"attention layer {name!r} is not in a down, mid or up block; r2r controls U-Nets")
    level = {"down": int(match[2] or 0), "mid": levels - 1, "up": levels - 1 - int(match[2] or 0)}[match[1]]
    kind: Kind = "self" if name.endswith("attn1") else "cross"
    return AttentionSite(name, kind, match[1], 2**level)  # pyright: ignore[reportArgumentType]
