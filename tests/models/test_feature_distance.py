"""The distance in the embedded feature network: zero for equal images, grows with change, whole and masked."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from r2r.errors import MissingWeightsError
from r2r.models.feature_distance import FeatureDistance
from r2r.models.feature_net import FeatureNet


def test_grows_with_the_difference_and_is_zero_for_none() -> None:
    score = FeatureDistance()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    values = [score.measure((images + scale * noise).clamp(-1, 1), images, None) for scale in (0.0, 0.1, 0.4)]
    assert values[0].tolist() == [0.0, 0.0]
    assert (values[0] < values[1]).all() and (values[1] < values[2]).all()
    assert score.better == "lower" and "r2r-features" in score.name


def test_is_the_mean_of_squared_differences_of_directions() -> None:
    images, target = (torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    network, expected, x, y = FeatureNet.from_pretrained("tiny"), 0.0, images, target
    for stage in network.stages[:3]:
        x, y = stage(x), stage(y)
        cosine = F.cosine_similarity(x, y, dim=1)
        lengths = [(side.norm(dim=1) > 1e-12).float() for side in (x, y)]
        expected += (lengths[0] + lengths[1] - 2 * cosine).mean().item()
    assert FeatureDistance().measure(images, target, None).item() == pytest.approx(expected, rel=1e-4)


def test_a_mask_counts_what_lies_inside() -> None:
    images = torch.zeros(1, 3, 64, 64)
    changed, mask = images.clone(), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    changed[..., :16, :16] = 0.9
    mask[..., 40:, 40:] = True
    score = FeatureDistance()
    assert score.measure(changed, images, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert score.measure(changed, images, ~mask).item() > 0.01


def test_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="no feature network"):
        FeatureDistance(tmp_path)
