"""Classifier-free guidance (arXiv:2207.12598) with a negative condition."""

from jaxtyping import Float
from torch import Tensor


def classifier_free_guidance(
    negative: Float[Tensor, "b c h w"], prompt: Float[Tensor, "b c h w"], scale: float
) -> Float[Tensor, "b c h w"]:
    """eps_neg + scale (eps_prompt - eps_neg): 1 ignores the negative condition, more pushes away from it."""
    return negative + scale * (prompt - negative)
