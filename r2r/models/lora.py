"""LoRA (arXiv:2106.09685) on the attention projections of a U-Net: layers by peft, files that other programs read.

    W x + alpha / rank B A x,   B = 0 at the start

An export is a folder that loads as a model: `lora.json` names base model and settings. Beside it lie
`pytorch_lora_weights.safetensors` (diffusers: `pipe.load_lora_weights(FOLDER)`) and `kohya.safetensors` for ComfyUI and
A1111.

Deviations
- A of each pair begins Gaussian with a deviation of 1 / rank, as in diffusers' training scripts; the paper's is a
  Gaussian too, kohya's uniform.
- diffusers' converter to kohya's keys sets every alpha to the rank; here it is the one that was trained with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from r2r.errors import InputError

SETTINGS = "lora.json"
DIFFUSERS, KOHYA = "pytorch_lora_weights.safetensors", "kohya.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """What is adapted, and how finely."""

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] | list[str] = ("to_q", "to_k", "to_v", "to_out.0")  # ends of the names of layers

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            given = f"rank={self.rank} alpha={self.alpha} dropout={self.dropout}"
            raise InputError(f"lora: {given}: rank from 1, alpha above 0, dropout in [0, 1)")

    def add(self, unet: UNet2DConditionModel) -> nn.Module:
        """Put the layers into a U-Net, which is frozen; returns what trains, in float32, under the names of its layers.

        Raises InputError when no layer has such a name.
        """
        targets = list(self.targets)
        if not any(name.endswith(tuple(f".{each}" for each in targets)) for name, _ in unet.named_modules()):
            raise InputError(f"lora.targets={targets}: no layer of the U-Net has such a name")
        unet.requires_grad_(False)
        unet.add_adapter(
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
                lora_dropout=self.dropout,
                init_lora_weights="gaussian",
                target_modules=targets,
            )
        )
        ends = ("lora_A", "lora_B", "lora_dropout")
        found = {name.replace(".", "-"): each for name, each in unet.named_modules() if name.endswith(ends)}
        return nn.ModuleDict(found).float()

    def save(self, unet: UNet2DConditionModel, folder: Path, base: Mapping[str, Any]) -> None:
        """Write the weights in both forms, and how they were made; `base` is what `base_settings` says of the model."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().cpu() for name, value in get_peft_model_state_dict(unet).items()}
        about = unet.peft_config["default"].to_dict()  # alpha, for one
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, unet_lora_adapter_metadata=about)
        save_file(kohya_keys(state, self.alpha), folder / KOHYA)
        content = {**base, **asdict(self), "targets": list(self.targets)}
        (folder / SETTINGS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def kohya_keys(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The names by which kohya's scripts, A1111 and ComfyUI know the layers of a U-Net, and alpha of each."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, end = name.rpartition(".lora_")
        layer = f"lora_unet_{layer.replace('.', '_')}"
        found[f"{layer}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value.contiguous()
        found[f"{layer}.alpha"] = torch.tensor(float(alpha))
    return found


def read_lora(folder: str | Path) -> dict[str, Any] | None:
    """What an export says of itself; None for a folder that is none."""
    path = Path(folder) / SETTINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def fuse_lora(pipe: Any, folder: str | Path) -> None:
    """Add an export's weights to those of a pipeline, for good. Raises InputError for one of another architecture."""
    try:
        pipe.load_lora_weights(str(folder), weight_name=DIFFUSERS)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder} does not fit its base model: {str(error).splitlines()[0][:200]}") from error
    pipe.fuse_lora()
    pipe.unload_lora_weights()
