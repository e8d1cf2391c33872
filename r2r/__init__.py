"""r2r: from clothing imagery to what fashion and graphics teams need, with diffusion models."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r2r.tasks.image_translation import RenderedToReal

__all__ = ["RenderedToReal", "__version__"]
__version__ = "0.1.0"

_LAZY = {"RenderedToReal": "r2r.tasks.image_translation"}


def __getattr__(name: str) -> object:
    """Import public classes on first use, so that `import r2r` and `--help` stay free of torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'r2r' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
