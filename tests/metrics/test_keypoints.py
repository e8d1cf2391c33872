"""PCK and OKS: exact values by hand, what counts, and what does not."""

import numpy as np
import pytest

from r2r.metrics import oks, pck
from r2r.metrics.keypoints import DEVIATIONS


def person() -> np.ndarray:
    """Keypoints on a diagonal, in a box of 80 x 160."""
    steps = np.linspace(0, 1, 17)
    return np.stack([10 + 80 * steps, 20 + 160 * steps, np.full(17, 2.0)], axis=1)[None]


def test_the_same_pose_is_perfect_and_a_missing_keypoint_a_miss() -> None:
    target = person()
    assert pck(target, target) == oks(target, target) == 1.0
    found = target.copy()
    found[0, 3] = 0
    assert pck(found, target) == pytest.approx(16 / 17) and oks(found, target) == pytest.approx(16 / 17)
    assert pck(target, found) == oks(target, found) == 1.0  # what the target does not know does not count
    nobody = np.zeros_like(target)
    assert np.isnan(pck(target, nobody)) and np.isnan(oks(target, nobody))


def test_distances_count_by_the_box() -> None:
    target, found = person(), person()
    found[0, :4, 0] += 15.9  # a tenth of the longer side is 16
    found[0, 4:6, 0] += 16.1
    assert pck(found, target) == pytest.approx(15 / 17) and pck(found, target, alpha=0.05) == pytest.approx(11 / 17)
    away = np.array([15.9] * 4 + [16.1] * 2 + [0.0] * 11)
    expected = np.exp(-(away**2) / (2 * 80 * 160 * (2 * DEVIATIONS) ** 2)).mean()
    assert oks(found, target) == pytest.approx(expected)


def test_scale_and_place_do_not_matter() -> None:
    random = np.random.default_rng(0)
    target = person()
    found = target + np.concatenate([random.normal(0, 10, (1, 17, 2)), np.zeros((1, 17, 1))], axis=2)
    moved = [(each * [3, 3, 1] + [50, 70, 0]) for each in (found, target)]
    assert pck(*moved) == pck(found, target) and oks(*moved) == pytest.approx(oks(found, target))
