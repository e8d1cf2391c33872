"""Small or random networks on disk, in the formats in which the published ones come."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import alexnet, squeezenet1_1, vgg
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel
from transformers.utils import logging

VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 10}


def layers(architecture: str) -> nn.Module:
    """Random `.features` of a torchvision classifier, spread so that deep layers still tell images apart."""
    torch.manual_seed(0)
    if architecture == "vgg16":
        features = vgg.make_layers(vgg.cfgs["D"])
    else:
        features = {"alexnet": alexnet, "squeezenet1_1": squeezenet1_1}[architecture](weights=None).features
    for weight in features.parameters():
        if weight.ndim == 4:
            nn.init.kaiming_normal_(weight)
    return features.eval().requires_grad_(False)


def feature_file(folder: Path, architecture: str) -> Path:
    """A safetensors file of `layers(architecture)`."""
    file = folder / f"random-{architecture}.safetensors"
    if not file.is_file():
        save_file(layers(architecture).state_dict(), file)
    return file


def clip_folder(folder: Path) -> str:
    """A CLIP of two layers, text tower included, as on the hub."""
    torch.manual_seed(1)
    config = CLIPConfig(vision_config=VISION | {"projection_dim": 8}, text_config=TEXT, projection_dim=8)
    return _saved(CLIPModel(config), folder / "tiny-clip")


def vit_folder(folder: Path) -> str:
    """A DINO-like ViT of two layers, without pooler."""
    torch.manual_seed(2)
    return _saved(ViTModel(ViTConfig(**VISION), add_pooling_layer=False), folder / "tiny-dino")


def _saved(network: nn.Module, folder: Path) -> str:
    logging.disable_progress_bar()
    for weight in network.parameters():
        if weight.ndim >= 2:
            nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    return str(folder)
