"""CLIP and DINO backbones equal the published pipeline of a small model in a folder; what is missing is named."""

from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics.backbones import EIGHT_BIT
from r2r.metrics.vision_transformers import clip_image, dino, resize_rule

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth enough that resize filters agree."""
    coarse = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bilinear")


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(image_size=32, projection_dim=12, **SMALL)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_clip_equals_its_own_pipeline(clip_folder: Path, images: torch.Tensor) -> None:
    backbone = clip_image(str(clip_folder))
    network = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    stored = ((images + 1) * 127.5).round().to(torch.uint8)
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(images=list(stored), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(pixels).image_embeds
    assert torch.allclose(backbone(images), expected, atol=1e-5)
    assert (backbone.name, backbone.size, backbone.quantization) == (clip_folder.name, 12, EIGHT_BIT)
    assert backbone.resize == "shortest side 32 px, bicubic, antialiased; centre crop 32x32 px"


def test_stored_and_fresh_images_have_the_same_features(clip_folder: Path, images: torch.Tensor) -> None:
    backbone = clip_image(str(clip_folder))
    stored = ((images + 1) * 127.5).round() / 127.5 - 1
    assert torch.equal(backbone(images), backbone(stored))


def test_other_weights_are_another_backbone(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = clip_image(str(clip_folder))
    torch.manual_seed(1)
    config = CLIPVisionConfig(image_size=32, projection_dim=12, **SMALL)
    CLIPVisionModelWithProjection(config).save_pretrained(clip_folder)
    after = clip_image(str(clip_folder))
    assert before.name == after.name
    assert before.id != after.id


@pytest.mark.parametrize(
    ("network", "config"), [(ViTModel, ViTConfig), (Dinov2Model, Dinov2Config)], ids=["vit", "dinov2"]
)
def test_dino_is_the_class_token(network: type, config: type, tmp_path: Path, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    reference = network(config(image_size=32, **SMALL)).eval()
    reference.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    stored = ((images + 1) * 127.5).round().to(torch.uint8)
    pixels = ViTImageProcessor.from_pretrained(tmp_path)(images=list(stored), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = reference(pixels).last_hidden_state[:, 0]
    backbone = dino(str(tmp_path))
    assert torch.allclose(backbone(images), expected, atol=1e-5)
    assert backbone.size == 16
    assert backbone.resize == "32x32 px, bilinear, antialiased"


def test_network_without_class_token_is_refused(tmp_path: Path) -> None:
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no class token"):
        dino(str(tmp_path))


def test_missing_models_are_named(tmp_path: Path) -> None:
    for load in (clip_image, dino):
        with pytest.raises(MissingWeightsError, match="nobody/nothing"):
            load("nobody/nothing")
        with pytest.raises(MissingWeightsError, match=tmp_path.name):
            load(str(tmp_path))


def test_missing_processor_is_named(clip_folder: Path) -> None:
    (clip_folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingWeightsError, match="image processor"):
        clip_image(str(clip_folder))


def test_no_resize_is_said() -> None:
    assert resize_rule(CLIPImageProcessor(do_resize=False, do_center_crop=False)) == "none"
