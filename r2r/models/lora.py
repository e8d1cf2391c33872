"""LoRA (arXiv:2106.09685) on attention projections of U-Net and text encoders: layers by peft, files others read.

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
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from r2r.errors import InputError
from r2r.models.single_file import unet_name

SETTINGS = "lora.json"
DIFFUSERS, KOHYA = "pytorch_lora_weights.safetensors", "kohya.safetensors"
PARTS = ("unet", "text_encoder", "text_encoder_2")  # of a pipeline, that a LoRA may adapt


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """What is adapted, and how finely."""

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] | list[str] = ("to_q", "to_k", "to_v", "to_out.0")  # ends of the names of layers
    text_targets: tuple[str, ...] | list[str] = ("q_proj", "k_proj", "v_proj", "out_proj")  # those of text encoders

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            given = f"rank={self.rank} alpha={self.alpha} dropout={self.dropout}"
            raise InputError(f"lora: {given}: rank from 1, alpha above 0, dropout in [0, 1)")

    def add(self, network: UNet2DConditionModel | PreTrainedModel) -> nn.ModuleDict:
        """Put the layers into a network, which is frozen; returns what trains, in float32, under its layers' names.

        Raises InputError when no layer has such a name.
        """
        name = "targets" if isinstance(network, UNet2DConditionModel) else "text_targets"
        targets = list(getattr(self, name))
        if not any(each.endswith(tuple(f".{end}" for end in targets)) for each, _ in network.named_modules()):
            raise InputError(f"lora.{name}={targets}: no layer of {type(network).__name__} has such a name")
        network.requires_grad_(False)
        network.add_adapter(
            LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
                lora_dropout=self.dropout,
                init_lora_weights="gaussian",
                target_modules=targets,
            )
        )
        ends = ("lora_A", "lora_B", "lora_dropout")
        found = {name.replace(".", "-"): each for name, each in network.named_modules() if name.endswith(ends)}
        return nn.ModuleDict(found).float()

    def save(self, pipe: Any, folder: Path, base: Mapping[str, Any]) -> None:
        """Write what was added to a pipeline, in both forms, and how; `base` is what `base_settings` says of it."""
        folder.mkdir(parents=True, exist_ok=True)
        adapted = {name: getattr(pipe, name) for name in PARTS if hasattr(getattr(pipe, name, None), "peft_config")}
        states = {name: _state(network) for name, network in adapted.items()}
        about = {name: network.peft_config["default"].to_dict() for name, network in adapted.items()}  # alpha, for one
        told = {f"{name}_lora_layers": state for name, state in states.items()}
        told |= {f"{name}_lora_adapter_metadata": value for name, value in about.items()}
        type(pipe).save_lora_weights(folder, **told)
        layers = pipe.unet.config.layers_per_block if hasattr(pipe, "text_encoder_2") else None
        save_file(kohya_keys(states, self.alpha, layers), folder / KOHYA)
        content = {**base, **asdict(self), "targets": list(self.targets), "text_targets": list(self.text_targets)}
        (folder / SETTINGS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _state(network: nn.Module) -> dict[str, Tensor]:
    """The layers' weights on the CPU; of text encoders under the released names, which transformers 5.6 shortened."""
    state = {name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(network).items()}
    if isinstance(network, UNet2DConditionModel):
        return state
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()}


def kohya_keys(
    states: Mapping[str, Mapping[str, Tensor]], alpha: float, layers: int | None = None
) -> dict[str, Tensor]:
    """The names by which kohya's scripts, A1111 and ComfyUI know the layers of a pipeline, and alpha of each.

    Those of SDXL's U-Net are the released ones, which take the residual blocks of a level, `layers`, to tell.
    """
    first = "lora_te1" if "text_encoder_2" in states else "lora_te"
    prefixes = {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}
    found: dict[str, Tensor] = {}
    for part, state in states.items():
        for name, value in state.items():
            layer, _, end = name.rpartition(".lora_")
            if part == "unet" and layers is not None:  # SDXL has attention wherever it samples up
                layer = unet_name(f"{layer}.weight", layers, True).removesuffix(".weight")
            layer = f"{prefixes[part]}_{layer.replace('.', '_')}"
            found[f"{layer}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value
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
