"""The card of an export, in the hub's format: what it is, how it was made, what it scored, how to load it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from r2r.provenance import versions

PICTURE = "samples.png"
LOADING = {  # by a file that the export holds: how diffusers takes it up
    "model_index.json": ("text-to-image", 'pipe = DiffusionPipeline.from_pretrained("{name}")'),
    "pytorch_lora_weights.safetensors": (
        "lora",
        'pipe = DiffusionPipeline.from_pretrained("{base}")\npipe.load_lora_weights("{name}")',
    ),
    "unet.safetensors": ("image-to-image", None),  # parts of r2r's own denoisers
    "config.json": ("image-to-image", None),  # generators of the baselines
    "*.safetensors": (
        "textual_inversion",
        'pipe = DiffusionPipeline.from_pretrained("{base}")\npipe.load_textual_inversion("{name}/{file}")',
    ),
}


def model_card(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, float], made: Mapping[str, Any]) -> str:
    """Text of the card of what lies in `folder`.

    Args:
        folder: the export; with `samples.png` in it, the card shows it.
        config: of the training, resolved; folders in it are named by their last part alone.
        metrics: the last ones that were logged.
        made: what else is known of the training, by name.
    """
    kind, code = _loading(folder)
    base = _name(str(config.get("model", {}).get("pretrained") or "random weights"))
    told = {"name": f"{config['name']}-export", "base": base, "file": next(iter(_weights(folder)), "")}
    data = ModelCardData(
        library_name="diffusers" if code else "r2r",
        base_model=base if "/" in base else None,
        license="other",
        license_name="that of the base model and of the training data",
        tags=["r2r", kind],
    )
    shown = f"\n![last validation pictures]({PICTURE})\n" if (folder / PICTURE).is_file() else ""
    loading = code.format(**told) if code else "# see the README of r2r: python -m r2r.translate model=FOLDER"
    rows = {**_settings(config, base), **made, **{name: f"{value:.4g}" for name, value in metrics.items()}}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return str(
        ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {config['name']}\n\nTrained with r2r, by `experiment={config['name']}`.\n"
            f"{shown}\n| | |\n|---|---|\n{table}\n\nScores are of this run's own validation data.\n\n"
            f"```python\nfrom diffusers import DiffusionPipeline\n\n{loading}\n```\n\nMade with {packages}.\n"
        )
    )


def _loading(folder: Path) -> tuple[str, str | None]:
    return next((told for pattern, told in LOADING.items() if any(folder.glob(pattern))), ("r2r", None))


def _weights(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def _settings(config: Mapping[str, Any], base: str) -> dict[str, Any]:
    data, trainer, task = (config.get(name, {}) for name in ("data", "trainer", "task"))
    optimizer = task.get("optimizer") or {}
    found = {
        "base model": base,
        "data": _name(str(data.get("root", ""))),
        "resolution": data.get("resolution"),
        "batch size": data.get("batch_size"),
        "accumulated batches": trainer.get("accumulate_grad_batches"),
        "optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        "learning rate": optimizer.get("lr"),
        "precision": trainer.get("precision"),
        "seed": config.get("seed"),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _name(place: str) -> str:
    """A hub id or an alias as it is; of a folder or address its last part, for others have not the rest."""
    return place if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", place) else place.rstrip("/").rpartition("/")[2]
