"""Exports of denoisers that are put together from several networks: one file of weights for each, one of settings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from r2r.errors import InputError
from r2r.models.stable_diffusion import PRETRAINED, StableDiffusion


def save_parts(
    folder: Path, settings: str, content: Mapping[str, Any], parts: Mapping[str, nn.Module], dtype: torch.dtype
) -> None:
    """Write NAME.safetensors for each part, and `content` as the JSON file `settings`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        state = {key: value.detach().to(dtype).contiguous() for key, value in part.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    (folder / settings).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_parts(
    folder: Path, content: Mapping[str, Any], own: Mapping[str, Any], parts: Mapping[str, nn.Module]
) -> list[str]:
    """Take up the weights of an export that says `content` of itself; returns which parts it held.

    Raises InputError when `own`, what the receiver says of itself, differs.
    """
    for name, value in own.items():
        if content.get(name) != value:
            raise InputError(f"{folder} has {name}={content.get(name)}, here it is {value}; give the same settings")
    found = [name for name in parts if (folder / f"{name}.safetensors").is_file()]
    for name in found:
        parts[name].load_state_dict(load_file(folder / f"{name}.safetensors"))
    return found


def read_content(folder: Path, settings: str, experiment: str) -> dict[str, Any]:
    """What an export says of itself. Raises InputError for a folder that is none."""
    if not (folder / settings).is_file():
        raise InputError(f"{folder} is no export of {experiment}: it has no {settings}")
    return json.loads((folder / settings).read_text(encoding="utf-8"))


def base_settings(model: StableDiffusion) -> dict[str, Any]:
    """What an export says of the model it was built on: its alias, hub id or folder, and changes of its schedule."""
    path = str(model.pipe.name_or_path)
    name = next((alias for alias, name in PRETRAINED.items() if name == path), path)
    return {"base": name} | ({"schedule": model.schedule_changes} if model.schedule_changes else {})


def load_base(settings: Mapping[str, Any], dtype: str) -> StableDiffusion:
    """The model that an export was built on. Raises as `StableDiffusion.from_pretrained` does."""
    return StableDiffusion.from_pretrained(settings["base"], dtype=dtype, schedule=settings.get("schedule"))
