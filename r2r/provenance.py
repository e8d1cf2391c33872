"""What a run was made with: versions for the record, and a way to write it that never leaves half a file."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("r2r", "torch", "lightning", "diffusers", "transformers", "hydra-core", "torchmetrics", "webdataset")


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write JSON through a temporary file in the same folder, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(partial, path)
