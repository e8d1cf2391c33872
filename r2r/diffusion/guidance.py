"""Classifier-free guidance (arXiv:2207.12598) with a negative condition, or with several conditions."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor


def classifier_free_guidance(
    negative: Float[Tensor, "b c h w"], prompt: Float[Tensor, "b c h w"], scale: float
) -> Float[Tensor, "b c h w"]:
    """eps_neg + scale (eps_prompt - eps_neg): 1 ignores the negative condition, more pushes away from it."""
    return negative + scale * (prompt - negative)


def composed_guidance(noises: Sequence[Float[Tensor, "*shape"]], scales: Sequence[float]) -> Float[Tensor, "*shape"]:
    """e_0 + sum_i scale_i (e_i - e_(i-1)): each noise was told one condition more (arXiv:2211.09800, equation 3)."""
    changes = (after - before for before, after in pairwise(noises))
    return noises[0] + sum(scale * change for scale, change in zip(scales, changes, strict=True))
