"""The studio: procedural clothing scenes, each rendered cheaply and as a photograph."""

from typing import TYPE_CHECKING, Any

__all__ = ["Scene", "StudioSettings", "render_scene", "sample_scene", "write_shards"]

if TYPE_CHECKING:
    from r2r.studio.rendering import render_scene
    from r2r.studio.scene import Scene, sample_scene
    from r2r.studio.shards import StudioSettings, write_shards

HOMES = {"Scene": "scene", "sample_scene": "scene", "render_scene": "rendering"}
HOMES |= {"StudioSettings": "shards", "write_shards": "shards"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
