"""The feature network: shapes, persistence, size, and what it separates."""

from pathlib import Path

import pytest
import torch

from r2r.errors import MissingWeightsError
from r2r.models.feature_net import SHIPPED, FeatureNet, backbone


def test_shapes() -> None:
    network = FeatureNet().eval()
    images = torch.rand(3, 3, 128, 128) * 2 - 1
    category, texture = network(images)
    assert network.features(images).shape == (3, 336)
    assert category.shape == (3, len(network.categories))
    assert texture.shape == (3, len(network.textures))


def test_saved_network_gives_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FeatureNet(channels=(8, 8, 16, 16)).eval()
    network.save_pretrained(tmp_path)
    loaded = FeatureNet.from_pretrained(tmp_path)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.allclose(loaded.features(images), network.features(images), atol=1e-2)
    assert loaded.categories == network.categories
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_backbone_is_the_shipped_network() -> None:
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    shipped = backbone()
    assert torch.allclose(shipped(images), FeatureNet.from_pretrained("tiny").features(images), atol=1e-5)
    assert (shipped.name, shipped.size, shipped.resize) == ("r2r-features", 336, "none")
    assert shipped.weights


def test_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="tiny_features"):
        FeatureNet.from_pretrained(tmp_path)


def test_shipped_network_is_small_and_sees_appearance() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 2_000_000
    network = FeatureNet.from_pretrained("tiny")
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 16, 16) * 2 - 1, size=(128, 128), mode="bicubic").clamp(
        -1, 1
    )
    noisy = images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    moved = (network.features(noisy) - network.features(images)).norm(dim=1)
    assert (moved > 0.01 * network.features(images).norm(dim=1)).all()
