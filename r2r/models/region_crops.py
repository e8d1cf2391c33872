"""Crops of what an image encoder is to look at closely: the face, the clothes, or the whole picture.

The crops of CAA in TruePose (arXiv:2502.03426), which embeds "face and clothes patterns"; how is not public. Here a
crop is the square around some regions of the parsing, the rest of it grey.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import roi_align

from r2r.parsing import REGIONS
from r2r.types import Images, Parsing

CROPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"face": ("face", "hair"), "clothes": ("upper", "lower", "full", "shoes", "accessories"), "picture": ()}
)
MARGIN = 1.1  # of the square, over the longer side of what it shows


def region_crop(
    images: Images, parsing: Parsing | None, crop: str, size: int
) -> tuple[Float[Tensor, "b 3 h2 w2"], Bool[Tensor, " b"]]:
    """A crop of each image, and which of them show any of it; "picture" is the whole one, as it is."""
    regions = CROPS[crop]
    if not regions or parsing is None:
        return images, torch.ones(len(images), dtype=torch.bool, device=images.device)
    mask = torch.isin(parsing, _numbers(regions, parsing.device))
    return _resampled(images * mask, _squares(mask), size), mask.flatten(1).any(1)


def _numbers(regions: Sequence[str], device: torch.device) -> Tensor:
    return torch.tensor([REGIONS.index(name) for name in regions], dtype=torch.uint8, device=device)


def _squares(mask: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b 4"]:
    """Left, top, right and bottom of the square around each mask, with a margin."""
    left, right = _span(mask[:, 0].any(1))
    top, bottom = _span(mask[:, 0].any(2))
    half = MARGIN * torch.maximum(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)


def _span(seen: Bool[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    place = torch.arange(seen.shape[1], device=seen.device)
    first = torch.where(seen, place, seen.shape[1]).amin(1)
    return first.float(), torch.where(seen, place + 1, 0).amax(1).float()


def _resampled(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    rows = torch.arange(len(images), device=images.device, dtype=boxes.dtype)[:, None]
    whole = torch.nn.functional.pad(images.float(), [1] * 4)  # outside of a picture is grey, not its last pixel
    return roi_align(whole, torch.cat([rows, boxes.float() + 1], dim=1), (size, size), sampling_ratio=2, aligned=True)
