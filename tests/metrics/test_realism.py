"""KID equals torchmetrics' polynomial MMD, is unbiased, and its bootstrap interval holds on Gaussians."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from r2r.errors import InputError
from r2r.metrics.realism import kid, kid_difference, polynomial_kernel
from r2r.metrics.statistics import interval, resample_counts


def gaussians(n: int, shift: float = 0.0, seed: int = 0, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_equals_torchmetrics() -> None:
    source, target = gaussians(40, seed=1, d=16), gaussians(40, 0.3, seed=2, d=16)
    assert kid(source, target).value == pytest.approx(poly_mmd(target.double(), source.double()).item(), rel=1e-9)


def test_unequal_sizes_follow_the_definition() -> None:
    source, target = gaussians(3, seed=1), gaussians(5, seed=2)
    within = [
        sum(polynomial_kernel(x, x)[i, j] for i in range(len(x)) for j in range(len(x)) if i != j)
        / (len(x) * (len(x) - 1))
        for x in (source, target)
    ]
    expected = within[0] + within[1] - 2 * polynomial_kernel(source, target).mean()
    assert kid(source, target).value == pytest.approx(float(expected), rel=1e-9)


def test_paired_leaves_same_scene_pairs_out() -> None:
    source, target = gaussians(6, seed=1), gaussians(6, 1.0, seed=2)
    cross = polynomial_kernel(source, target)
    off_diagonal = (cross.sum() - cross.trace()) / 30
    unpaired_as_paired = kid(source, target).value + 2 * float(cross.mean() - off_diagonal)
    assert kid(source, target, paired=True).value == pytest.approx(unpaired_as_paired, rel=1e-9)


def test_same_set_paired_is_zero() -> None:
    features = gaussians(20)
    assert kid(features, features, paired=True).value == pytest.approx(0.0, abs=1e-9)


def test_shared_content_biases_only_the_unpaired_estimate() -> None:
    values = {True: [], False: []}
    for seed in range(300):
        content = gaussians(10, seed=seed)
        source, target = (
            content + 0.2 * gaussians(10, seed=1000 + seed),
            content + 0.2 * gaussians(10, seed=2000 + seed),
        )
        for paired, kept in values.items():
            kept.append(kid(source, target, paired=paired, num_resamples=1).value)
    means = {paired: torch.tensor(kept).mean().item() for paired, kept in values.items()}
    assert abs(means[True]) < 0.02
    assert means[False] < -0.2


def test_equal_distributions_are_near_zero_and_shifted_ones_are_not() -> None:
    same = kid(gaussians(200, seed=1), gaussians(200, seed=2))
    shifted = kid(gaussians(200, 1.0, seed=1), gaussians(200, seed=2))
    assert same.low < 0 < same.high
    assert abs(same.value) < 0.2
    assert shifted.low > 1


@pytest.mark.parametrize("paired", [False, True])
def test_interval_covers_the_truth(paired: bool) -> None:
    reference = gaussians(8000, 0.5, seed=7), gaussians(8000, seed=8)
    truth = kid(*reference, num_resamples=1).value
    covered = 0
    for seed in range(100):
        estimate = kid(
            gaussians(24, 0.5, seed=seed), gaussians(24, seed=500 + seed), paired=paired, num_resamples=300, seed=seed
        )
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 88


def test_resampling_with_duplicates_does_not_inflate() -> None:
    features = gaussians(12, seed=1), gaussians(12, seed=2)
    estimates = [kid(*features, num_resamples=4000), kid(*features, paired=True, num_resamples=4000)]
    for estimate in estimates:
        assert estimate.low < estimate.value < estimate.high


def test_difference_is_tighter_than_the_intervals_it_compares() -> None:
    source, target = gaussians(16, 1.0, seed=1), gaussians(16, seed=2)
    difference = kid_difference(source - 0.4, source, target, paired=True)
    before, after = kid(source, target, paired=True), kid(source - 0.4, target, paired=True)
    assert difference.value == pytest.approx(after.value - before.value)
    assert difference.sign == -1
    assert difference.high - difference.low < (before.high - before.low) + (after.high - after.low)


def test_reproducible_and_global_generator_untouched() -> None:
    state = torch.get_rng_state()
    assert kid(gaussians(9), gaussians(8, seed=3)) == kid(gaussians(9), gaussians(8, seed=3))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("source", "target", "paired", "message"),
    [
        (gaussians(1), gaussians(5), False, "two images"),
        (gaussians(5), gaussians(5, d=3), False, "4 and 3"),
        (gaussians(5), gaussians(4), True, "5 and 4"),
        (gaussians(5) * torch.nan, gaussians(5), False, "nan"),
    ],
)
def test_bad_sets_are_refused(source: Tensor, target: Tensor, paired: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kid(source, target, paired=paired)


def test_runs_are_averaged_and_scenes_resampled_in_all_of_them_together() -> None:
    """The mean over runs, and its interval, written out run by run and resample by resample in NumPy."""
    runs, target = torch.stack([gaussians(12, 0.2 * seed, seed) for seed in range(3)]), gaussians(12, 0.5, 9)
    found = kid(runs, target, paired=True, num_resamples=50, seed=4)
    assert found.value == pytest.approx(np.mean([kid(run, target, paired=True).value for run in runs]), rel=1e-9)
    assert found.n == 12
    counts = resample_counts(12, 50, 4).numpy()
    values = [np.mean([weighted_mmd(run.numpy(), target.numpy(), held) for run in runs]) for held in counts]
    assert (found.low, found.high) == pytest.approx(interval(torch.tensor(values), 12, 0.95), rel=1e-9)


def test_change_between_runs_is_the_mean_change() -> None:
    after, before = (torch.stack([gaussians(10, shift, seed) for seed in range(2)]) for shift in (0.1, 0.9))
    target = gaussians(10, seed=7)
    changes = [kid_difference(a, b, target, paired=True).value for a, b in zip(after, before, strict=True)]
    assert kid_difference(after, before, target, paired=True).value == pytest.approx(np.mean(changes), rel=1e-9)
    single = np.mean([kid_difference(each, before[0], target).value for each in after])  # one run serves as well
    assert kid_difference(after, before[0], target).value == pytest.approx(single, rel=1e-9)


def weighted_mmd(source: np.ndarray, target: np.ndarray, counts: np.ndarray) -> float:
    """Squared MMD of the scenes drawn `counts` times, without pairs of one scene."""
    drawn = np.repeat(np.arange(len(counts)), counts.astype(int))
    pairs = [(i, j) for i in drawn for j in drawn if i != j]

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        left, right = left.astype(float), right.astype(float)
        return float(np.mean([(left[i] @ right[j] / left.shape[1] + 1) ** 3 for i, j in pairs]))

    return mean(source, source) + mean(target, target) - 2 * mean(source, target)
