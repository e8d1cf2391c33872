"""Training targets, timestep distributions and weights of the denoising loss (DDPM, arXiv:2006.11239)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from r2r.diffusion.schedule import Schedule, check_unit


@dataclass(frozen=True)
class NoiseLevels:
    """Distribution of training timesteps: uniform, or leaning to the low-noise part of the schedule.

    A share `lean` of the draws is uniform on the first `below` of the schedule, the rest uniform on all of it.
    Translation at strength s visits only t <= s * 1000, so a small model may spend its capacity there. The default,
    lean = 0, is the uniform distribution of DDPM. With `cubic` the draws lean to high noise instead,
    t = (1 - u^3) T with uniform u, as CFLD (arXiv:2402.18078) trains pose transfer.
    """

    lean: float = 0.0
    below: float = 0.6
    cubic: bool = False

    def __post_init__(self) -> None:
        check_unit("timesteps.lean", self.lean)
        check_unit("timesteps.below", self.below)

    def sample(self, count: int, num_train_timesteps: int, generator: Generator) -> Int[Tensor, " count"]:
        """Draw `count` timesteps on the generator's device."""
        uniform = torch.rand(2, count, generator=generator, device=generator.device)
        span = torch.where(uniform[0] < self.lean, self.below, 1.0) * num_train_timesteps
        share = 1 - uniform[1] ** 3 if self.cubic else uniform[1]
        return (share * span).long().clamp_max(num_train_timesteps - 1)


def training_target(
    schedule: Schedule,
    latents: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c h w"]:
    """The noise, or v = sqrt(abar) eps - sqrt(1 - abar) z (arXiv:2202.00512, appendix D)."""
    if schedule.prediction == "epsilon":
        return noise
    signal = schedule.alphas_cumprod.to(latents.device)[timesteps].to(latents.dtype)[:, None, None, None]
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def min_snr_weights(schedule: Schedule, timesteps: Int[Tensor, " b"], gamma: float) -> Float[Tensor, " b"]:
    """Min-SNR loss weights (arXiv:2303.09556): min(SNR, gamma) / SNR for eps, / (SNR + 1) for v."""
    snr = schedule.snr(timesteps)
    return snr.clamp(max=gamma) / (snr if schedule.prediction == "epsilon" else snr + 1)


def offset_noise(noise: Float[Tensor, "b c h w"], strength: float, generator: Generator) -> Float[Tensor, "b c h w"]:
    """Noise plus one number for each channel of each sample, so that mean brightness is learned too.

    From Nicholas Guttenberg, "Diffusion with Offset Noise" (2023), who suggests a strength of 0.1.
    """
    shift = torch.randn(noise.shape[:2], generator=generator, device=generator.device).to(noise)
    return noise + strength * shift[:, :, None, None]


def weighted_mse(
    output: Float[Tensor, "b c h w"],
    target: Float[Tensor, "b c h w"],
    weights: Float[Tensor, " b"] | None = None,
    places: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error in float32, each sample times its weight.

    `places` says how much each place counts in the mean of its sample, and must count somewhere.
    """
    squared = (output.float() - target.float()).square().mean(1, keepdim=True)
    counted = squared if places is None else squared * places / places.mean((1, 2, 3), keepdim=True)
    per_sample = counted.flatten(1).mean(1)
    return (per_sample if weights is None else weights * per_sample).mean()
