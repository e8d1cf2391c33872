"""Images, captions and the datamodule that batches them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r2r.data.datamodule import ImageDataModule

__all__ = ["ImageDataModule"]


def __getattr__(name: str) -> object:
    """Import the datamodule on first use, so that images alone stay free of Lightning."""
    if name not in __all__:
        raise AttributeError(f"module 'r2r.data' has no attribute {name!r}")
    return getattr(import_module("r2r.data.datamodule"), name)
