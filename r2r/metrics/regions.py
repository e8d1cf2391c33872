"""Fidelity inside a region (garment, face, background), image by image.

SSIM is the full-image map averaged over the mask: the window of a pixel near the border still sees 5 pixels beyond it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from r2r.errors import InputError
from r2r.metrics.fidelity import SSIM_SETTINGS, UNIT, Target, unit_range
from r2r.metrics.protocol import Protocol, protocol
from r2r.types import Images

Mask = Bool[Tensor, "b 1 _ _"]  # of the images' size: checked with a message


def masked_ssim(images: Images, target: Target, mask: Mask) -> Float[Tensor, " b"]:
    """SSIM of each image inside `mask` (True = counted); equals `fidelity.ssim` for a full mask."""
    images, target = unit_range(images, target)
    _check_mask(mask, images)
    _, similarity = structural_similarity_index_measure(
        images, target, data_range=UNIT, reduction="none", return_full_image=True
    )
    return _masked_mean(similarity, mask)


def masked_psnr(images: Images, target: Target, mask: Mask) -> Float[Tensor, " b"]:
    """PSNR of each image in dB over the pixels inside `mask`; inf for identical pixels."""
    images, target = unit_range(images, target)
    _check_mask(mask, images)
    return -10 * torch.log10(_masked_mean((images - target).square(), mask))


def masked_ssim_protocol(region: str, n: int, size: str) -> Protocol:
    """Protocol of `masked_ssim` over `n` images of `size` "HxW", with the name of the region."""
    return protocol("SSIM", region=region, range="[-1, 1]", resize="none", size=size, n=n, **SSIM_SETTINGS)


def _masked_mean(values: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    weight = mask.expand_as(values).to(values.dtype)
    return (values * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def _check_mask(mask: Tensor, images: Tensor) -> None:
    if mask.shape[-2:] != images.shape[-2:]:
        raise InputError(f"mask of size {tuple(mask.shape[-2:])} for images of {tuple(images.shape[-2:])}; resize it")
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"empty mask for images {empty}: nothing to measure; leave these images out")
