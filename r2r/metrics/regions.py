"""How a score is taken inside a region (garment, face, background), image by image.

Scores with a map of values average it over the mask (`AVERAGED`). Scores of whole pictures see a box (`boxed`).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from r2r.errors import InputError
from r2r.types import Images

Mask = Bool[Tensor, "b 1 _ _"]  # True = counted; of the images' size: checked with a message
Pair = tuple[Float[Tensor, "1 3 bh bw"], Float[Tensor, "1 3 bh bw"]]

AVERAGED = "full-image map averaged over the mask"


def boxed(min_side: int = 1) -> str:
    """What `boxes` does, in words."""
    least = f", at least {min_side} px wide and high" if min_side > 1 else ""
    return f"mid-grey outside the mask in both images, cropped to the mask's bounding box{least}"


def masked_mean(values: Float[Tensor, "b c h w"], mask: Mask) -> Float[Tensor, " b"]:
    """Mean of each image's values, over all channels, inside its mask."""
    weight = mask.expand_as(values).to(values.dtype)
    return (values * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def boxes(images: Images, target: Images, mask: Mask, min_side: int = 1) -> Iterator[Pair]:
    """Each image and its target, mid-grey (0) outside the mask, cropped to the bounding box of the mask.

    A box smaller than `min_side` grows to it within the image. A full mask gives back the whole images.
    """
    for image, reference, inside in zip(images, target, mask, strict=True):
        rows, columns = (_span(inside[0].any(axis), min_side) for axis in (1, 0))
        crop = [(side * inside)[:, rows, columns].unsqueeze(0) for side in (image, reference)]
        yield crop[0], crop[1]


def check_mask(mask: Mask, images: Float[Tensor, "_ _ _ _"]) -> None:
    """Raise InputError unless each image has a mask of its size that holds at least one pixel."""
    if mask.shape[-2:] != images.shape[-2:] or len(mask) != len(images):
        raise InputError(
            f"{len(mask)} masks of size {tuple(mask.shape[-2:])} for {len(images)} images of "
            f"{tuple(images.shape[-2:])}; resize them, one for each image"
        )
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"empty mask for images {empty}: nothing to measure; leave these images out")


def _span(occupied: Bool[Tensor, " n"], least: int) -> slice:
    """First to last True, grown evenly to `least` without leaving the axis."""
    first, last = (int(index) for index in torch.nonzero(occupied).flatten()[[0, -1]])
    length = max(least, last + 1 - first)
    start = max(0, min(first - (length - (last + 1 - first)) // 2, len(occupied) - length))
    return slice(start, start + length)
