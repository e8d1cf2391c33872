"""One number per image against a reference image, whole or inside a mask, with the protocol that makes it comparable.

Every score takes images in [-1, 1]. Deviations of masked scores from the published whole-image ones are stated in
`ImageScore.regions`: each protocol of a region carries that text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from r2r.metrics.fidelity import (
    DETAIL_SETTINGS,
    DETAIL_SIDE,
    MS_SSIM_SETTINGS,
    MS_SSIM_SIDE,
    SSIM_SETTINGS,
    SSIM_SIDE,
    detail_ssim,
    ms_ssim,
    psnr,
    ssim,
)
from r2r.metrics.protocol import Pixels, Protocol, check_pair, check_side, protocol
from r2r.metrics.regions import AVERAGED, Mask, boxed, boxes, check_mask
from r2r.types import Images

Scores = Float[Tensor, " b"]
Measure = Callable[[Images, Images, Mask | None], Scores]
WHOLE = "whole image"
_BATCH = 8  # images at a time: feature maps of large images fill memory


@dataclass(frozen=True)
class ImageScore:
    """A named score of images against references of their shape; `measure(images, target, mask)` gives one for each.

    `measure` takes [-1, 1] and a mask (True = counted) or None for the whole image, returns float32 on the CPU, and
    raises InputError for other types or ranges, unequal shapes, images below `min_side`, and empty masks.
    """

    name: str
    better: Literal["lower", "higher"]
    measure: Measure
    settings: Protocol  # all that defines the value except region, reference, size and n
    regions: str  # how a mask is applied
    digits: int = 3
    min_side: int = 1

    def check(self, size: tuple[int, int]) -> None:
        """Raise InputError, before any work, unless images of `size` (height, width) can be scored."""
        check_side(size, self.min_side, self.name)

    def protocol(self, reference: str, region: str, size: str, n: int) -> Protocol:
        """Protocol of the mean over `n` images of `size` "HxW" inside `region` against `reference`."""
        rule: Protocol = {} if region == WHOLE else {"inside the region": self.regions}
        place = {"reference": reference, "region": region, "range": "[-1, 1]", "size": size, "n": n}
        return protocol(self.name, **place, **rule, **self.settings)


def checked(measure: Measure, name: str, min_side: int = 1, device: str = "cpu") -> Measure:
    """`measure` behind the checks that `ImageScore` promises; it gets clamped float32 on `device`."""

    @torch.no_grad()
    def scores(images: Pixels, target: Pixels, mask: Mask | None = None) -> Scores:
        check_pair(images, target)
        check_side((images.shape[2], images.shape[3]), min_side, name)
        if mask is not None:
            check_mask(mask, images)
        batches = [slice(first, first + _BATCH) for first in range(0, len(images), _BATCH)]
        return torch.cat([part(images[rows], target[rows], None if mask is None else mask[rows]) for rows in batches])

    def part(images: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        images, target = (side.to(device, torch.float32).clamp(-1, 1) for side in (images, target))
        return measure(images, target, None if mask is None else mask.to(device)).float().cpu()

    return scores


def in_boxes(measure: Callable[[Images, Images], Scores], min_side: int = 1) -> Measure:
    """A score without a map, inside a mask: box by box (`regions.boxes`); whole images in one batch."""

    def scores(images: Images, target: Images, mask: Mask | None) -> Scores:
        if mask is None:
            return measure(images, target)
        return torch.cat([measure(*pair) for pair in boxes(images, target, mask, min_side)])

    return scores


def SSIM() -> ImageScore:
    """Structural similarity (Wang et al. 2004); 1 for identical images."""
    return ImageScore("SSIM", "higher", checked(ssim, "SSIM", SSIM_SIDE), SSIM_SETTINGS, AVERAGED, min_side=SSIM_SIDE)


def DetailSSIM() -> ImageScore:
    """Structural similarity of fine texture alone, after a high pass; 1 for identical detail."""
    measure = checked(detail_ssim, "Detail SSIM", DETAIL_SIDE)
    return ImageScore("Detail SSIM", "higher", measure, DETAIL_SETTINGS, AVERAGED, min_side=DETAIL_SIDE)


def PSNR() -> ImageScore:
    """Peak signal-to-noise ratio in dB, over all channels and pixels; inf for identical images."""
    settings: Protocol = {"peak": "2 (range of [-1, 1])"}
    return ImageScore("PSNR [dB]", "higher", checked(psnr, "PSNR"), settings, AVERAGED, digits=2)


def MSSSIM() -> ImageScore:
    """Multi-scale structural similarity (Wang et al. 2003), five scales; 1 for identical images."""
    measure = checked(in_boxes(ms_ssim, MS_SSIM_SIDE), "MS-SSIM", MS_SSIM_SIDE)
    return ImageScore("MS-SSIM", "higher", measure, MS_SSIM_SETTINGS, boxed(MS_SSIM_SIDE), min_side=MS_SSIM_SIDE)
