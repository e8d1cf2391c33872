"""Random pipelines in the layout of the real ones, small enough for every test."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_<>*,."
LEVELS: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}


def tokenizer() -> CLIPTokenizer:
    """A character-level CLIP tokenizer."""
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({token: index for index, token in enumerate(tokens)}, [], model_max_length=16)


def text_encoder(width: int, projection: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A two-layer CLIP text encoder."""
    size = len(tokenizer())
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=width,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def autoencoder() -> AutoencoderKL:
    """Factor 2, four latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
    ).eval()


def random_pipeline(
    xl: bool = False, prediction_type: str = "epsilon", seed: int = 0
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Stable Diffusion 1.x, or XL with `xl`."""
    torch.manual_seed(seed)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    if not xl:
        unet = UNet2DConditionModel(sample_size=16, cross_attention_dim=24, **LEVELS).eval()
        return StableDiffusionPipeline(
            autoencoder(), text_encoder(24), tokenizer(), unet, scheduler, None, None, requires_safety_checker=False
        )
    unet = UNet2DConditionModel(
        sample_size=16,
        cross_attention_dim=24 + 32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
        **LEVELS,
    ).eval()
    encoders = text_encoder(24), text_encoder(32, projection=True)
    return StableDiffusionXLPipeline(autoencoder(), *encoders, tokenizer(), tokenizer(), unet, scheduler)
