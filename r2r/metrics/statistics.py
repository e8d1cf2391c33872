"""Bootstrap intervals over images, drawn from an own generator so that training randomness is never disturbed.

Percentile intervals are too narrow for a few dozen images. They are widened by the *expanded percentile* rule of
Hesterberg, "What Teachers Should Know About the Bootstrap" (arXiv 1411.5279, section 5.3): the quantile levels become
Phi(-+ sqrt(n / (n - 1)) * t), with t the Student quantile of n - 1 degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from r2r.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A score with its interval: `value` in [`low`, `high`] at `level`, from `n` images."""

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def sign(self) -> int:
        """1 or -1 when the whole interval lies on that side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def bootstrap_mean(
    values: Sequence[float], *, level: float = 0.95, num_resamples: int = 4000, seed: int = 0
) -> Estimate:
    """Mean of per-image scores with its bootstrap interval over images (degenerate for a single image)."""
    scores = torch.tensor(values, dtype=torch.float64)
    _check_scores(scores)
    random, count = generator(seed), len(scores)
    draws = (torch.randint(count, (count,), generator=random) for _ in range(num_resamples))  # one by one: memory
    resampled = torch.stack([scores[draw].mean() for draw in draws])
    low, high = interval(resampled, count, level)
    return Estimate(scores.mean().item(), low, high, len(scores), level)


def paired_difference(
    after: Sequence[float], before: Sequence[float], *, level: float = 0.95, num_resamples: int = 4000, seed: int = 0
) -> Estimate:
    """Mean of `after - before` image by image, with its bootstrap interval; both lists follow the same images."""
    if len(after) != len(before):
        raise InputError(f"paired scores of {len(after)} and {len(before)} images; give the same images to both")
    differences = [a - b for a, b in zip(after, before, strict=True)]
    return bootstrap_mean(differences, level=level, num_resamples=num_resamples, seed=seed)


def resample_counts(n: int, num_resamples: int, seed: int) -> Float[Tensor, "r n"]:
    """How often each of `n` images occurs in each bootstrap resample; float64, rows sum to `n`."""
    index = torch.randint(n, (num_resamples, n), generator=generator(seed))
    return torch.zeros(num_resamples, n, dtype=torch.float64).scatter_add_(1, index, torch.ones_like(index).double())


def interval(resampled: Float[Tensor, " r"], n: int, level: float) -> tuple[float, float]:
    """Expanded-percentile interval of resampled statistics over `n` images; undefined (nan) resamples are left out."""
    if n < 2:
        return resampled[0].item(), resampled[0].item()
    widened = math.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    levels = torch.tensor([stats.norm.cdf(-widened), stats.norm.cdf(widened)], dtype=torch.float64)
    low, high = torch.nanquantile(resampled.cpu(), levels, interpolation="nearest").tolist()
    return low, high


def generator(seed: int) -> torch.Generator:
    """A fresh CPU generator: the global one stays untouched."""
    return torch.Generator().manual_seed(seed)


def _check_scores(scores: Tensor) -> None:
    if scores.numel() == 0:
        raise InputError("no scores to average: 0 images; check the list of images")
    if scores.isnan().any():
        raise InputError(f"{int(scores.isnan().sum())} of {len(scores)} scores are nan; check their images")
