"""Tensor aliases and batch types shared by every room.

Shape legend: b batch, c channels, h height, w width, z latent channels (zh, zw their size), n tokens, d features.
"""

from typing import NotRequired, TypedDict

from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]  # RGB in [-1, 1]
Latents = Float[Tensor, "b z zh zw"]  # scaled latents of the VAE
GarmentMask = Bool[Tensor, "b 1 h w"]  # True = garment


class ImageBatch(TypedDict):
    """One domain: images with captions."""

    image: Images
    caption: list[str]
    key: list[str]
    garment_mask: NotRequired[GarmentMask]


class PairedBatch(TypedDict):
    """A rendered scene and its photo twin."""

    rendered: Images
    photo: Images
    garment_mask: GarmentMask
    caption: list[str]
    category: list[str]
    texture: list[str]
    key: list[str]
