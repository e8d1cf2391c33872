"""Bootstrap intervals cover what they claim, are reproducible and leave the global generator alone."""

import math

import pytest
import torch

from r2r.errors import InputError
from r2r.metrics.statistics import Estimate, bootstrap_mean, paired_difference, resample_counts


def test_interval_of_a_mean_covers_the_truth() -> None:
    draws = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)) + 3
    estimates = [bootstrap_mean(draw.tolist(), num_resamples=500, seed=i) for i, draw in enumerate(draws)]
    covered = sum(e.low <= 3 <= e.high for e in estimates) / len(estimates)
    assert 0.91 <= covered <= 0.98


def test_mean_value_and_order() -> None:
    estimate = bootstrap_mean([1.0, 2.0, 3.0, 6.0])
    assert estimate.value == pytest.approx(3.0)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.n == 4


def test_paired_difference_sees_what_separate_intervals_do_not() -> None:
    before = [0.1 * i for i in range(20)]
    after = [score + 0.01 + 0.001 * (i % 3) for i, score in enumerate(before)]
    assert paired_difference(after, before).sign == 1
    assert bootstrap_mean(after).low < bootstrap_mean(before).high


def test_single_image_has_a_degenerate_interval() -> None:
    assert bootstrap_mean([0.4]) == Estimate(0.4, 0.4, 0.4, 1)


def test_infinite_scores_stay_infinite() -> None:
    assert math.isinf(bootstrap_mean([math.inf, math.inf]).low)


@pytest.mark.parametrize("scores", [[], [0.1, math.nan]])
def test_bad_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(InputError):
        bootstrap_mean(scores)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="2 and 1"):
        paired_difference([0.1, 0.2], [0.1])


def test_resamples_have_the_size_of_the_set_and_repeat_per_seed() -> None:
    counts = resample_counts(7, 50, seed=3)
    assert torch.equal(counts.sum(1), torch.full((50,), 7.0, dtype=torch.float64))
    assert torch.equal(counts, resample_counts(7, 50, seed=3))
    assert not torch.equal(counts, resample_counts(7, 50, seed=4))


def test_global_generator_is_untouched() -> None:
    state = torch.get_rng_state()
    bootstrap_mean([0.1, 0.2, 0.3])
    assert torch.equal(state, torch.get_rng_state())
