"""KID as the mean over random subsets: the estimators of torch-fidelity, torchmetrics and clean-fid on given features.

Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401, section 4). All three average the unbiased squared MMD
(kernel (x·y / d + 1)^3) of pairs of subsets of one size; they differ in how subsets are drawn and in precision.

Deviations
- Every draw comes from an own generator: the libraries' use of global ones (torchmetrics, clean-fid) is replayed with
  the same seed, so the values are theirs and no other randomness is disturbed.
- torchmetrics' subsets are computed in batches and in float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from r2r.errors import InputError
from r2r.metrics.realism import Features, Grams, check_features, polynomial_kernel
from r2r.metrics.statistics import Estimate, generator

Subsets = Int[Tensor, "r m"]  # indices of images, one subset in each row
Values = Float[Tensor, " r"]

_BATCH_ELEMENTS = 2**24  # of the kernel matrices held at once: 128 MB each in float64


def subset_kid(outputs: Features, target: Features, rows: Subsets, columns: Subsets) -> Values:
    """Unbiased squared MMD of `outputs[rows[i]]` and `target[columns[i]]` for every i, on the features' device.

    Where the subsets overlap a lot, the kernel matrix of the whole sets is the cheaper way to the same numbers.
    """
    check_features(outputs, target)
    if max(len(outputs), len(target)) ** 2 <= rows.numel() * rows.shape[1]:
        counts = [_membership(len(held), index) for held, index in ((outputs, rows), (target, columns))]
        return Grams.of(outputs, target).mmd(*counts)
    step = max(1, _BATCH_ELEMENTS // rows.shape[1] ** 2)
    rows, columns = rows.to(outputs.device), columns.to(target.device)
    pairs = zip(rows.split(step), columns.split(step), strict=True)
    return torch.cat([_mmd(outputs[left], target[right]) for left, right in pairs])


def torch_fidelity_kid(outputs: Features, target: Features, size: int, count: int, seed: int) -> Estimate:
    """torch-fidelity's KID, by its own function."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    check_features(outputs, target)
    options = {"kid_subset_size": size, "kid_subsets": count, "rng_seed": seed, "verbose": False}
    found = kid_features_to_metric(outputs.cpu(), target.cpu(), **options)
    return _spread(found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], outputs)


def torchmetrics_kid(outputs: Features, target: Features, size: int, count: int, seed: int) -> Estimate:
    """KernelInceptionDistance of torchmetrics, the target as real images, as after `torch.manual_seed(seed)`."""
    draws, sets = generator(seed), (target, outputs)
    drawn = [[torch.randperm(len(held), generator=draws)[:size] for held in sets] for _ in range(count)]
    columns, rows = (torch.stack(indices) for indices in zip(*drawn, strict=True))
    return _of_values(subset_kid(outputs, target, rows, columns), outputs)


def clean_fid_kid(outputs: Features, target: Features, size: int, count: int, seed: int) -> Estimate:
    """clean-fid's KID, by its own function (one subset at a time, to know their spread)."""
    check_features(outputs, target)
    sets = target.cpu().numpy(), outputs.cpu().numpy()
    with _numpy_seed(seed):
        values = [clean_fid().kernel_distance(*sets, num_subsets=1, max_subset_size=size) for _ in range(count)]
    return _of_values(torch.tensor(values, dtype=torch.float64), outputs)


def clean_fid() -> Any:
    """The module `cleanfid.fid`. Raises InputError when clean-fid is not installed."""
    try:
        return import_module("cleanfid.fid")
    except ImportError as error:
        raise InputError(
            f'backend="clean-fid" is not installed ({error}); pip install "r2r[clean-fid]", or choose another backend'
        ) from error


def _membership(n: int, subsets: Subsets) -> Float[Tensor, "r n"]:
    """1 where an image belongs to the subset of the row, else 0."""
    return torch.zeros(len(subsets), n, dtype=torch.float64).scatter_(1, subsets.cpu(), 1.0)


def _mmd(left: Float[Tensor, "r m d"], right: Float[Tensor, "r m d"]) -> Values:
    """Unbiased squared MMD of each pair of sets (Gretton et al. 2012, lemma 6)."""
    size = left.shape[1]
    within = [_off_diagonal_sum(polynomial_kernel(side, side)) for side in (left, right)]
    return (within[0] + within[1]) / (size * (size - 1)) - 2 * polynomial_kernel(left, right).mean((1, 2))


def _off_diagonal_sum(kernels: Float[Tensor, "r m m"]) -> Values:
    return kernels.sum((1, 2)) - kernels.diagonal(dim1=1, dim2=2).sum(1)


def _of_values(values: Values, outputs: Features) -> Estimate:
    return _spread(values.mean().item(), values.std(correction=0).item(), outputs)


def _spread(mean: float, std: float, outputs: Features) -> Estimate:
    """The mean with the range that holds 95 % of normally distributed subset values."""
    return Estimate(mean, mean - 1.96 * std, mean + 1.96 * std, len(outputs))


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """NumPy's global generator seeded, and put back as it was."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
