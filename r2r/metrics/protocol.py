"""What makes two scores comparable: the protocol stored beside each, and the checks on what goes in."""

from importlib.metadata import version

import torch
from jaxtyping import Shaped
from torch import Tensor

from r2r.errors import InputError

Protocol = dict[str, str | int | float]
Pixels = Shaped[Tensor, "_ 3 _ _"]  # of any type and range: checked with a message

# Resampling filters overshoot the range a little; anything above is another range.
_TOLERANCE = 1e-3


def protocol(metric: str, **settings: str | int | float) -> Protocol:
    """Protocol of one score; two scores may share a column only when these are equal."""
    return {"metric": metric, **settings, "torch": version("torch"), "torchmetrics": version("torchmetrics")}


def check_images(images: Pixels, name: str) -> None:
    """Raise InputError unless `images` is non-empty, of a float type, finite and within [-1, 1]."""
    if images.numel() == 0:
        raise InputError(f"{name}: no images, shape {tuple(images.shape)}; check the folder or list they come from")
    if not images.is_floating_point():
        raise InputError(f"{name}: {images.dtype} values; scale images to float in [-1, 1]")
    if not torch.isfinite(images).all():
        raise InputError(f"{name}: contains nan or inf; check how the images were made")
    low, high = images.min().item(), images.max().item()
    if low < -1 - _TOLERANCE or high > 1 + _TOLERANCE:
        raise InputError(f"{name}: values in [{low:.3g}, {high:.3g}]; scale images to [-1, 1]")


def check_pair(images: Pixels, target: Pixels) -> None:
    """Raise InputError unless both batches are proper images of one shape."""
    check_images(images, "images")
    check_images(target, "target")
    if images.shape != target.shape:
        raise InputError(f"shapes differ: {tuple(images.shape)} and {tuple(target.shape)}; resize one to the other")


def check_side(size: tuple[int, int], minimum: int, name: str) -> None:
    """Raise InputError unless both sides of `size` (height, width) reach `minimum`."""
    if min(size) < minimum:
        raise InputError(
            f"{name} needs images of at least {minimum} px on each side, got {size[0]}x{size[1]} (height x width); "
            "give larger images or leave this metric out (~metrics.<its key>)"
        )
