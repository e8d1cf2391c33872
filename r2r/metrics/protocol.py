"""What makes two scores comparable: the protocol stored beside each, and the checks on what goes in."""

from importlib.metadata import version

import torch
from jaxtyping import Float
from torch import Tensor

from r2r.errors import InputError

Protocol = dict[str, str | int | float]

# Resampling filters overshoot the range a little; anything above is another range.
_TOLERANCE = 1e-3


def protocol(metric: str, **settings: str | int | float) -> Protocol:
    """Protocol of one score; two scores may share a column only when these are equal."""
    return {"metric": metric, **settings, "torch": version("torch"), "torchmetrics": version("torchmetrics")}


def check_images(images: Float[Tensor, "_ 3 _ _"], name: str) -> None:
    """Raise InputError unless `images` is non-empty, finite and within [-1, 1]."""
    if images.numel() == 0:
        raise InputError(f"{name}: no images, shape {tuple(images.shape)}; check the folder or list they come from")
    if not torch.isfinite(images).all():
        raise InputError(f"{name}: contains nan or inf; check how the images were made")
    low, high = images.min().item(), images.max().item()
    if low < -1 - _TOLERANCE or high > 1 + _TOLERANCE:
        raise InputError(f"{name}: values in [{low:.3g}, {high:.3g}]; scale images to [-1, 1]")


def check_pair(images: Float[Tensor, "_ 3 _ _"], target: Float[Tensor, "_ 3 _ _"]) -> None:
    """Raise InputError unless both batches are proper images of one shape."""
    check_images(images, "images")
    check_images(target, "target")
    if images.shape != target.shape:
        raise InputError(f"shapes differ: {tuple(images.shape)} and {tuple(target.shape)}; resize one to the other")
