"""Fixtures shared by the suites: small random U-Nets and pipelines, nothing downloaded."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.pipelines import random_pipeline


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """SD-shaped, three levels, self- and cross-attention on the two outer ones and in the middle."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
    ).eval()


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SD 1.x pipeline in diffusers format: 32 px images, VAE factor 2, epsilon prediction."""
    folder = tmp_path_factory.mktemp("sd")
    random_pipeline(xl=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SDXL pipeline with its two text encoders, in diffusers format."""
    folder = tmp_path_factory.mktemp("sdxl")
    random_pipeline(xl=True).save_pretrained(folder)
    return folder
