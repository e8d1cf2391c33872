"""Images, captions and the datamodules that batch them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r2r.data.buckets import Buckets
    from r2r.data.curation import Curation
    from r2r.data.datamodule import ImageDataModule
    from r2r.data.unpaired import PriorDataModule, UnpairedDataModule

__all__ = ["Buckets", "Curation", "ImageDataModule", "PriorDataModule", "UnpairedDataModule"]
PLACES = {
    "Buckets": "buckets",
    "Curation": "curation",
    "ImageDataModule": "datamodule",
    "PriorDataModule": "unpaired",
    "UnpairedDataModule": "unpaired",
}


def __getattr__(name: str) -> object:
    """Import a datamodule on first use, so that images alone stay free of Lightning."""
    if name not in __all__:
        raise AttributeError(f"module 'r2r.data' has no attribute {name!r}")
    return getattr(import_module(f"r2r.data.{PLACES[name]}"), name)
