"""One deterministic DDIM step for both directions (arXiv:2010.02502, equation 12 with sigma = 0).

Sampling goes from abar_t to abar_{t-r}; inversion goes from abar_{t-r} to abar_t with the noise predicted at (x, t).
"""

from jaxtyping import Float
from torch import Tensor

from r2r.diffusion.schedule import Prediction


def ddim_step(
    latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], signal_from: float, signal_to: float
) -> Float[Tensor, "b c h w"]:
    """Move latents from signal level abar `signal_from` to `signal_to` along the predicted noise.

    x0 = (x - sqrt(1 - a) eps) / sqrt(a);  x' = sqrt(a') x0 + sqrt(1 - a') eps.
    """
    clean = (latents - (1 - signal_from) ** 0.5 * noise) / signal_from**0.5
    return signal_to**0.5 * clean + (1 - signal_to) ** 0.5 * noise


def to_noise(
    output: Float[Tensor, "b c h w"], latents: Float[Tensor, "b c h w"], signal: float, prediction: Prediction
) -> Float[Tensor, "b c h w"]:
    """The noise eps that a network output stands for; `signal` is abar of `latents`.

    For v = sqrt(a) eps - sqrt(1 - a) x0 (arXiv:2202.00512): eps = sqrt(a) v + sqrt(1 - a) x.
    """
    if prediction == "epsilon":
        return output
    return signal**0.5 * output + (1 - signal) ** 0.5 * latents
