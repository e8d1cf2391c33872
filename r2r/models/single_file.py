"""A pipeline as one file, in the layout in which Stable Diffusion was first released (CompVis, Stability AI).

Names and shapes follow the released checkpoints, as ComfyUI and A1111 expect them; `from_single_file` of diffusers
reads it back, those programs were not tried. Only weights are kept, no scheduler: a reader must be told of v-prediction
and of a zero terminal SNR.

Deviations
- SD 2.x: of the text encoder's 24 blocks diffusers keeps the 23 that are used, so the last is missing here too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

SINGLE_FILE = "single_file.safetensors"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_PARTS = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
}
OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.": "attn.",
}


def save_single_file(pipe: Any, file: Path) -> None:
    """Write U-Net, VAE and text encoder(s) of a Stable Diffusion 1.x, 2.x or XL pipeline, as they are in memory."""
    state = {name: value.detach().cpu().contiguous() for name, value in _all(pipe)}
    save_file(state, file, metadata={"format": "pt"})


def _all(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    unet, layers = pipe.unet.state_dict(), pipe.unet.config.layers_per_block
    attending = {name.partition(".attentions.")[0] for name in unet if ".attentions." in name}
    for name, value in unet.items():
        yield UNET + unet_name(name, layers, name.partition(".upsamplers.")[0] in attending), value
    levels = len(pipe.vae.config.block_out_channels)
    for name, value in pipe.vae.state_dict().items():
        is_projection = ".attentions." in name and value.ndim == 2  # the release has convolutions of one pixel there
        yield VAE + vae_name(name, levels), value[..., None, None] if is_projection else value
    second = getattr(pipe, "text_encoder_2", None)
    if second is not None:
        yield from _clip(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        yield from _open_clip(second, "conditioner.embedders.1.model.")
    elif pipe.text_encoder.config.hidden_act == "gelu":  # OpenCLIP's; OpenAI's CLIP has a quick approximation
        yield from _open_clip(pipe.text_encoder, "cond_stage_model.model.")
    else:
        yield from _clip(pipe.text_encoder, "cond_stage_model.transformer.")


def unet_name(name: str, layers: int, attending: bool) -> str:
    """Released name of a weight of a diffusers U-Net.

    Args:
        name: in diffusers.
        layers: residual blocks on a level going down.
        attending: whether there is attention on the weight's level, if it is one of an upsampler.
    """
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, place, rest = found.groups()
        return f"middle_block.{2 * int(place) if kind == 'resnets' else 1}.{_inside(kind, rest)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if found is None:
        raise ValueError(f"no weight of a U-Net of Stable Diffusion: {name}")
    way, level, kind, place, rest = found.groups()
    resizes = kind in ("downsamplers", "upsamplers")
    number = int(level) * (layers + 1) + (layers if resizes else int(place))
    if way == "down":
        return f"input_blocks.{number + 1}.{int(kind == 'attentions')}.{_inside(kind, rest)}"
    slot = {"resnets": 0, "attentions": 1, "upsamplers": 2 if attending else 1}[kind]
    return f"output_blocks.{number}.{slot}.{_inside(kind, rest)}"


def vae_name(name: str, levels: int) -> str:
    """Released name of a weight of diffusers' `AutoencoderKL` with so many levels."""
    for ours, theirs in VAE_PARTS.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\g<1>{theirs}.", name)
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
    name = re.sub(r"\.resnets\.", ".block.", name)
    return re.sub(r"\.(down|up)samplers\.0\.", r".\1sample.", name)


def _inside(kind: str, rest: str) -> str:
    """Of a block's own weights: those of transformers have one name in both."""
    if kind == "resnets":
        layer, _, end = rest.partition(".")
        return f"{RESNET[layer]}.{end}"
    return rest.replace("conv.", "op.") if kind == "downsamplers" else rest


def _clip(encoder: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in encoder.state_dict().items():
        yield f"{prefix}text_model.{name.removeprefix('text_model.')}", value


def _open_clip(encoder: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """OpenCLIP keeps queries, keys and values in one matrix, and the projection transposed."""
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    for name, value in state.items():
        if name == "text_projection.weight":
            yield f"{prefix}text_projection", value.T
        elif found := re.fullmatch(r"(.*self_attn)\.q_proj\.(weight|bias)", name):
            layer, kind = found.groups()
            merged = torch.cat([state[f"{layer}.{part}_proj.{kind}"] for part in "qkv"])
            yield f"{prefix}{_renamed(layer + '.', OPEN_CLIP)}in_proj_{kind}", merged
        elif not re.search(r"\.[kv]_proj\.", name):
            yield prefix + _renamed(name, OPEN_CLIP), value


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name
