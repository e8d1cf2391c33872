"""Backbones: chunking changes nothing, weights load from a file, misuse is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1

from r2r.errors import InputError, MissingWeightsError
from r2r.metrics.backbones import Backbone, squeezenet


def test_chunks_equal_the_whole() -> None:
    torch.manual_seed(0)
    backbone = Backbone("means", lambda images: images.mean((2, 3)))
    images = torch.rand(5, 3, 8, 8)
    assert torch.equal(backbone(images, batch_size=2), images.mean((2, 3)))


def test_squeezenet_from_a_file_equals_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = squeezenet1_1(weights=None).features.eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    images = torch.rand(2, 3, 224, 224) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((images + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        expected = reference(normalised).mean((2, 3))
    backbone = squeezenet(tmp_path / "weights.safetensors")
    assert backbone.name == "squeezenet-caffe"
    assert torch.allclose(backbone(images), expected, atol=1e-5)


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"none\.safetensors"):
        squeezenet(tmp_path / "none.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(MissingWeightsError, match="does not hold"):
        squeezenet(tmp_path / "other.safetensors")


def test_images_of_another_range_are_refused() -> None:
    with pytest.raises(InputError, match="images for means"):
        Backbone("means", lambda images: images.mean((2, 3)))(torch.full((1, 3, 8, 8), 200.0))
