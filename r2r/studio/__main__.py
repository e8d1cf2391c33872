"""`python -m r2r.studio num_scenes=... seed=... output=DIR`: render paired clothing scenes into shards."""

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from r2r.errors import InputError
from r2r.provenance import run_record, write_json
from r2r.studio.layouts import LAYOUTS, export_layout
from r2r.studio.shards import StudioSettings, write_shards

SHARDS = "shards"
EXPLAINED = {
    "output": "folder for the shards",
    "num_scenes": "scenes in all",
    "seed": "scene i depends on seed and i alone",
    "subject": "garment (alone), person (dressed, posed), or mixed",
    "views": "scenes of one person, 2 to 4",
    "resolution": "side of the pictures in pixels",
    "scenes_per_shard": "scenes in one tar file",
    "val_fraction": "share of the identities, the last ones, that go to val-*.tar",
    "spp": "samples per pixel of the photo",
    "layout": "shards, or besides them: " + ", ".join(LAYOUTS),
    "workers": "processes that render (default: all cores)",
}
"""What every override means, in the order of `--help`."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, by default this process's own; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h"} & set(arguments):
        print(usage())
        return 0
    try:
        settings, workers, layout = parse_overrides(arguments)
        paths = write_shards(settings, workers)
        if layout != SHARDS:
            export_layout(settings.output, layout, Path(settings.output) / layout)
        write_json(Path(settings.output) / "run.json", run_record(vars(settings), shards=len(paths), layout=layout))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command continues where it was", file=sys.stderr)
        return 130
    also = "" if layout == SHARDS else f", and as {layout} in {Path(settings.output) / layout}"
    print(f"{settings.num_scenes} scenes in {len(paths)} shards in {settings.output}{also}")
    return 0


def usage() -> str:
    """The text of `--help`."""
    defaults = {field.name: field.default for field in fields(StudioSettings)}
    defaults |= {"layout": SHARDS}
    lines = [f"  {key + '=' + str(defaults.get(key, '...')):<22} {text}" for key, text in EXPLAINED.items()]
    return "\n".join(["usage: python -m r2r.studio [key=value ...]", "", *lines])


def parse_overrides(arguments: list[str]) -> tuple[StudioSettings, int, str]:
    """Settings, worker count and layout from `key=value` words; raises InputError on an unknown key or a bad value."""
    types: dict[str, Any] = {field.name: field.type for field in fields(StudioSettings)}
    types |= {"workers": int, "layout": str}
    values: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator or key not in types:
            raise InputError(f"{argument!r} is not a setting; use key=value with one of {', '.join(EXPLAINED)}")
        values[key] = _parse(key, text, types[key])
    if values.get("output") == "":
        raise InputError("output= is empty; give output=DIR")
    workers = values.pop("workers", len(os.sched_getaffinity(0)))
    layout = values.pop("layout", SHARDS)
    if layout not in (SHARDS, *LAYOUTS):
        raise InputError(f"layout={layout} is none of {', '.join((SHARDS, *LAYOUTS))}")
    return StudioSettings(**values), workers, layout


def _parse(key: str, text: str, kind: type) -> object:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{key}={text} is not {'a whole number' if kind is int else 'a number'}") from None


if __name__ == "__main__":
    sys.exit(main())
