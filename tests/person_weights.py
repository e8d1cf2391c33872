"""Random models of the architectures that look at persons, small enough to save for a test."""

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import (
    AutoImageProcessor,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

from r2r.parsing import ATR_18


def write_detector(folder: Path, label: str = "person", places: int = 5) -> str:
    """RT-DETR that knows one thing and sees it in some places."""
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    sizes = {"encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "d_model": 16, "decoder_ffn_dim": 16}
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8, 16, 16],
        feat_strides=[8, 16, 32],
        encoder_attention_heads=2,
        decoder_in_channels=[16, 16, 16],
        decoder_layers=1,
        decoder_attention_heads=2,
        num_queries=places,
        num_denoising=0,
        id2label={0: label},
        **sizes,
    )
    RTDetrForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def teach_detector(folder: str, photos: list[Image], counts: list[int]) -> None:
    """Make its last layer see that many persons in these photos: a linear system for the scores of all places."""
    network: Any = RTDetrForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    head, features = network.model.decoder.class_embed[-1], []
    hook = head.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    with torch.no_grad():
        network(**processor(images=photos, return_tensors="pt"))
        hook.remove()
        wanted = torch.tensor(
            [[4.0 if place < count else -4.0 for place in range(features[0].shape[1])] for count in counts]
        )
        rows = torch.cat([features[0], torch.ones_like(features[0][..., :1])], dim=-1).flatten(0, 1).double()
        solution = torch.linalg.lstsq(rows, wanted.flatten()[:, None].double(), driver="gelsd").solution[:, 0]
        head.weight[0], head.bias[0] = solution[:-1].float(), solution[-1].float()
    network.save_pretrained(folder)


def write_pose(folder: Path, experts: int = 1) -> str:
    """ViTPose with its simple decoder; the "plus" models have several experts."""
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2,
        num_experts=experts,
        part_features=4,
        image_size=[64, 48],
        patch_size=[16, 16],
        out_features=["stage1"],
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, scale_factor=4, use_simple_decoder=True)
    VitPoseForPoseEstimation(config).save_pretrained(folder)
    VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(folder)
    return str(folder)


def write_parser(folder: Path, labels: int = len(ATR_18), names: tuple[str, ...] | None = None) -> str:
    """SegFormer; its labels have names only where they are given."""
    torch.manual_seed(0)
    config = SegformerConfig(
        id2label=dict(enumerate(names or [f"LABEL_{number}" for number in range(labels)])),
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)
