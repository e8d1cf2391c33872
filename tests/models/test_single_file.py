"""One file in the layout of the released checkpoints: diffusers' own reader gets every weight back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

from r2r.models import PRETRAINED
from r2r.models.single_file import UNET, VAE, save_single_file, unet_name, vae_name
from tests.pipelines import random_pipeline


def read_back(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder / "pipe")
    save_single_file(pipe, folder / "one.safetensors")
    return type(pipe).from_single_file(str(folder / "one.safetensors"), config=str(folder / "pipe"))


def of_second_generation() -> Any:
    """Stable Diffusion 2.x: the text encoder is OpenCLIP's."""
    pipe = random_pipeline()
    config = pipe.text_encoder.config
    config.hidden_act = "gelu"
    pipe.register_modules(text_encoder=CLIPTextModel(config).eval())
    return pipe


@pytest.mark.parametrize("kind", ["sd1", "sd2", "xl", "tiny"])
def test_diffusers_reads_every_weight_back(kind: str, tmp_path: Path) -> None:
    if kind == "tiny":
        pipe = StableDiffusionPipeline.from_pretrained(PRETRAINED["tiny"])
    else:
        pipe = of_second_generation() if kind == "sd2" else random_pipeline(kind == "xl")
    again = read_back(pipe, tmp_path)
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        starts = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118
        open_clip = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in file.keys()  # noqa: SIM118
    assert starts == {"model", "first_stage_model", "conditioner" if kind == "xl" else "cond_stage_model"}
    assert open_clip == (kind == "sd2")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if getattr(pipe, part, None) is not None:
            expected, found = getattr(pipe, part).state_dict(), getattr(again, part).state_dict()
            assert expected.keys() == found.keys()
            for name, value in expected.items():
                assert torch.equal(value, found[name].to(value.dtype)), name


def test_names_of_the_first_release() -> None:
    """Names and how many there are, as in v1-5-pruned-emaonly: 686 of the U-Net, 248 of the VAE."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        levels: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        levels |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = AutoencoderKL(**levels)
    attending = {name.partition(".attentions.")[0] for name in unet.state_dict() if ".attentions." in name}
    names = {UNET + unet_name(name, 2, name.partition(".upsamplers.")[0] in attending) for name in unet.state_dict()}
    assert len(names) == 686
    known = (
        "time_embed.2.bias",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "input_blocks.3.0.op.weight",
        "input_blocks.4.0.skip_connection.weight",
        "middle_block.1.proj_in.weight",
        "output_blocks.2.1.conv.weight",
        "output_blocks.5.2.conv.weight",
        "output_blocks.11.1.transformer_blocks.0.norm3.weight",
        "out.2.weight",
    )
    assert {UNET + name for name in known} <= names
    names = {VAE + vae_name(name, 4) for name in vae.state_dict()}
    assert len(names) == 248
    known = (
        "encoder.down.0.downsample.conv.weight",
        "encoder.mid.attn_1.q.weight",
        "decoder.up.3.upsample.conv.bias",
        "decoder.up.0.block.0.nin_shortcut.weight",
        "decoder.norm_out.weight",
        "quant_conv.weight",
    )
    assert {VAE + name for name in known} <= names
