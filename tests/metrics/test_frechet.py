"""FID equals torch-fidelity, torchmetrics and clean-fid; it is zero for equal sets and the law of shifted Gaussians."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from r2r.errors import InputError
from r2r.metrics.frechet import clean_fid_fid, frechet, torch_fidelity_fid, torchmetrics_fid

BACKENDS = [frechet, torch_fidelity_fid, torchmetrics_fid, clean_fid_fid]


def gaussians(n: int, shift: float = 0.0, seed: int = 0, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def backend(request: pytest.FixtureRequest) -> object:
    if request.param is clean_fid_fid:
        pytest.importorskip("cleanfid.fid")
    return request.param


def test_all_backends_agree(backend: object) -> None:
    assert callable(backend)
    outputs, target = gaussians(40, 0.3, seed=1) * 1.5, gaussians(30, seed=2)
    statistics = [fid_features_to_statistics(features) for features in (outputs, target)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert backend(outputs, target) == pytest.approx(expected, rel=1e-6)


def test_equal_sets_are_zero_and_shifted_ones_are_the_squared_shift(backend: object) -> None:
    assert callable(backend)
    features = gaussians(50, seed=1)
    assert backend(features, features) == pytest.approx(0.0, abs=1e-6)
    assert backend(features + 2.0, features) == pytest.approx(6 * 4.0, rel=1e-6)


def test_scaled_gaussians_follow_the_closed_form() -> None:
    features = gaussians(50, seed=1) - gaussians(50, seed=1).mean(0)
    assert frechet(features * 3, features) == pytest.approx(4 * features.var(0).sum().item(), rel=1e-9)


def test_fewer_images_than_features() -> None:
    outputs, target = gaussians(5, 0.5, seed=1, d=20), gaussians(7, seed=2, d=20)
    value = frechet(outputs, target)
    assert value == pytest.approx(torchmetrics_fid(outputs, target), rel=1e-5)
    assert value == pytest.approx(torch_fidelity_fid(outputs, target), rel=1e-5)
    assert frechet(outputs, outputs) == pytest.approx(0.0, abs=1e-9)


def test_two_images_are_two_points() -> None:
    outputs, target = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert frechet(outputs, target) == pytest.approx(1.0)


def test_bad_sets_are_refused(backend: object) -> None:
    assert callable(backend)
    for outputs, message in (
        (gaussians(1), "two images"),
        (gaussians(5, d=3), "3 and 6"),
        (gaussians(5) * math.nan, "nan"),
    ):
        with pytest.raises(InputError, match=message):
            backend(outputs, gaussians(5))


def test_global_generators_untouched(backend: object) -> None:
    assert callable(backend)
    before = torch.get_rng_state(), np.random.get_state()[1]
    backend(gaussians(9), gaussians(8, seed=3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
