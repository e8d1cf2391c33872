"""Fréchet distance between Gaussians fitted to two sets of features: r2r's own and three libraries'.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (arXiv 1706.08500, equation 6):
|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982).

Deviations
- r2r's own takes no root of a matrix: with A and B the centred features over sqrt(n - 1), C1 = A'A and C2 = B'B, so
  the eigenvalues of C1 C2 are the squared singular values of A B', and the trace of the root is their sum. It is exact
  in float64 for sets of fewer images than features too, where the covariances are singular.
"""

import contextlib
import io
import warnings

import torch
from torch import Tensor, nn

from r2r.errors import InputError
from r2r.metrics.realism import Features, check_features
from r2r.metrics.subsets import clean_fid


def frechet(outputs: Features, target: Features) -> float:
    """The distance in float64, on the features' device."""
    check_features(outputs, target)
    outputs, target = outputs.double(), target.double()
    left, right = _deviations(outputs), _deviations(target)
    means = (outputs.mean(0) - target.mean(0)).square().sum()
    traces = left.square().sum() + right.square().sum()
    return (means + traces - 2 * torch.linalg.svdvals(left @ right.T).sum()).item()


def torch_fidelity_fid(outputs: Features, target: Features) -> float:
    """torch-fidelity's FID, by its own functions."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    check_features(outputs, target)
    statistics = [fid_features_to_statistics(features.cpu()) for features in (outputs, target)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def torchmetrics_fid(outputs: Features, target: Features) -> float:
    """FrechetInceptionDistance of torchmetrics, fed with features."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    check_features(outputs, target)
    metric = FrechetInceptionDistance(_Given(outputs.shape[1]), sync_on_compute=False)
    metric.update(target.cpu(), real=True)
    metric.update(outputs.cpu(), real=False)
    return metric.compute().item()


def clean_fid_fid(outputs: Features, target: Features) -> float:
    """clean-fid's FID, by its own function; SciPy's matrix root may fail for fewer images than features."""
    check_features(outputs, target)
    library, sets = clean_fid(), (target.cpu().numpy(), outputs.cpu().numpy())
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls SciPy by an old name
        try:
            return float(library.fid_from_feats(*sets))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"clean-fid cannot compute FID of {len(outputs)} and {len(target)} images with {outputs.shape[1]} "
                f"features ({error}); choose backend=r2r"
            ) from error


class _Given(nn.Module):
    """Features in, the same features out: stands where a metric expects a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _deviations(features: Features) -> Features:
    """Centred features over sqrt(n - 1); beyond d rows their triangular factor, which has the same A'A."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred
