"""Kernel distance between two sets of images, with an interval that holds for small sets.

Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401): KID = squared maximum mean discrepancy of image features
under the polynomial kernel (x·y / d + 1)^3, estimated without bias (Gretton et al. 2012, lemma 6).

Deviations
- The exact statistic of the full sets, not a mean over random subsets: no subset size, no randomness in the value.
- `paired=True`, for sets whose i-th images show the same scene: pairs of one scene are left out of the cross term too
  (Gretton et al. 2012, equation 4). With them the shared content would make the sets look closer than they are.
- Intervals resample images (scenes when paired) with replacement. A naive bootstrap counts an image against its own
  copies, which inflates the within-set terms by about diag / n; pairs of equal index are therefore left out of every
  resample. On Gaussians (12 to 48 images, d = 4) the 95 % interval covered the truth in 89 to 98 % of trials; for two
  sets of one distribution the statistic is degenerate and it covered in nearly all.
- Several runs of one method (seeds) on the same scenes: features with a leading dimension. Their KID is the mean over
  the runs, with the scenes of all runs resampled together; as the statistic is linear in the kernel matrices, that is
  the statistic of their mean.
- Any named backbone: the values of different backbones are different quantities, never to be put in one column.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from r2r.errors import InputError
from r2r.metrics.statistics import Estimate, interval, resample_counts

Features = Float[Tensor, "... _ _"]  # (images, features), or (runs, images, features); checked with a message
Counts = Float[Tensor, "r _"]


@dataclass(frozen=True)
class Grams:
    """Kernel matrices within the source set, within the target set and across, float64 on the features' device."""

    source: Tensor
    target: Tensor
    cross: Tensor
    paired: bool

    @classmethod
    def of(cls, source: Features, target: Features, paired: bool = False) -> "Grams":
        """Of checked features; see `check_features` for the errors."""
        check_features(source, target, paired)
        within = _kernel(source, source), _kernel(target, target)
        return cls(*within, _kernel(source, target), paired)

    def mmd(self, source: Counts, target: Counts) -> Float[Tensor, " r"]:
        """Unbiased squared MMD of each resample, given how often it holds each image (0 or 1: of each subset)."""
        source, target = source.to(self.source), target.to(self.target)
        within = _mean_pairs(self.source, source, source, True) + _mean_pairs(self.target, target, target, True)
        return within - 2 * _mean_pairs(self.cross, source, target, self.paired)


def kid(
    source: Features,
    target: Features,
    *,
    paired: bool = False,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """KID of `source` to `target` with its bootstrap interval; may be slightly negative for equal sets.

    Raises InputError for fewer than two images, unequal feature sizes, or `paired` sets of unequal length.
    """
    grams = Grams.of(source, target, paired)
    counts = _counts(grams, num_resamples, seed)
    n, others = len(grams.source), len(grams.target)
    low, high = interval(grams.mmd(*counts), min(n, others), level)
    return Estimate(_point(grams), low, high, n, level)


def kid_difference(
    after: Features,
    before: Features,
    target: Features,
    *,
    paired: bool = False,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """KID of `after` minus KID of `before` to the same `target`, resampled together: negative = `after` is closer.

    `after` and `before` hold the same scenes in the same order.
    """
    n, others = after.shape[-2], target.shape[-2]
    if n != before.shape[-2]:
        raise InputError(f"sets differ in length: {n} and {before.shape[-2]}; give the same scenes to both")
    new, old = Grams.of(after, target, paired), Grams.of(before, target, paired)
    counts = _counts(new, num_resamples, seed)
    low, high = interval(new.mmd(*counts) - old.mmd(*counts), min(n, others), level)
    return Estimate(_point(new) - _point(old), low, high, n, level)


def polynomial_kernel(left: Float[Tensor, "... _ d"], right: Float[Tensor, "... _ d"]) -> Float[Tensor, "... _ _"]:
    """(x·y / d + 1)^3 for every pair, in float64; leading dimensions are batches."""
    return (left.double() @ right.double().mT / left.shape[-1] + 1) ** 3


def _kernel(left: Features, right: Features) -> Float[Tensor, "_ _"]:
    """The kernel matrix; of several runs, the mean of theirs."""
    kernel = polynomial_kernel(left, right)
    return kernel if kernel.ndim == 2 else kernel.flatten(0, -3).mean(0)


def _mean_pairs(gram: Tensor, left: Counts, right: Counts, disjoint: bool) -> Float[Tensor, " r"]:
    """Mean of `gram` over the pairs of each resample; `disjoint` leaves out pairs of equal index.

    nan when no pair is left (a resample of one image repeated).
    """
    total, pairs = ((left @ gram) * right).sum(1), left.sum(1) * right.sum(1)
    if disjoint:
        same = left * right
        total, pairs = total - same @ gram.diagonal(), pairs - same.sum(1)
    return total / pairs


def _point(grams: Grams) -> float:
    source, target = (torch.ones(1, len(gram), dtype=torch.float64) for gram in (grams.source, grams.target))
    return grams.mmd(source, target).item()


def _counts(grams: Grams, num_resamples: int, seed: int) -> tuple[Counts, Counts]:
    source = resample_counts(len(grams.source), num_resamples, seed)
    target = source if grams.paired else resample_counts(len(grams.target), num_resamples, seed + 1)
    return source, target


def check_features(source: Features, target: Features, paired: bool = False) -> None:
    """Raise InputError for fewer than two images, unequal feature sizes, nan, or `paired` sets of unequal length."""
    (n, size), (others, other_size) = source.shape[-2:], target.shape[-2:]
    if min(n, others) < 2:
        raise InputError(f"a distance of sets needs two images in each, got {n} and {others}; give more images")
    if size != other_size:
        raise InputError(f"feature sizes differ: {size} and {other_size}; use one backbone for both")
    if paired and n != others:
        raise InputError(f"paired sets of {n} and {others} images; give both images of each scene")
    if not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise InputError("features contain nan or inf; check the images and the backbone")
