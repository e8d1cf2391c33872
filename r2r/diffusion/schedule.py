"""Noise schedules and the timesteps a translation visits (FashionR2R, arXiv:2410.14429; DDIM, arXiv:2010.02502).

Deviations: `leading` spacing without offset, as in FashionR2R's released code (t = 980, 960, ..., 0 for 50 steps);
Stable Diffusion's own pipelines add an offset of 1. The step at t = 0 is an identity (both ends have abar_0), so n
nominal steps are n - 1 effective ones.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from r2r.errors import InputError

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Schedule:
    """Cumulative signal levels abar_t of a model and what its network predicts."""

    alphas_cumprod: Float[Tensor, " t"]  # abar_t, falling from about 1 to about 0
    prediction: Prediction = "epsilon"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        """The schedule of any diffusers scheduler config (betas, zero-SNR rescaling and prediction type included)."""
        scheduler = cast(Any, DDIMScheduler).from_config(config)
        prediction = scheduler.config.prediction_type
        if prediction not in ("epsilon", "v_prediction"):
            raise InputError(f"prediction_type {prediction!r} is not supported; use 'epsilon' or 'v_prediction'")
        return cls(scheduler.alphas_cumprod, prediction)

    @property
    def num_train_timesteps(self) -> int:
        """Length of the training schedule, 1000 for Stable Diffusion."""
        return len(self.alphas_cumprod)

    def signal(self, timestep: int) -> float:
        """Signal level abar at `timestep`; below the first step it stays abar_0 (`set_alpha_to_one=False`)."""
        return float(self.alphas_cumprod[max(timestep, 0)])

    def snr(self, timesteps: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Signal-to-noise ratio abar / (1 - abar)."""
        signal = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return signal / (1 - signal)

    def add_noise(
        self, latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """sqrt(abar_t) z + sqrt(1 - abar_t) n."""
        signal = self.alphas_cumprod.to(latents.device)[timesteps].to(latents.dtype)[:, None, None, None]
        return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def active_timesteps(num_train_timesteps: int, num_inference_steps: int, strength: float) -> list[int]:
    """The ascending timesteps of the last `int(T * strength)` steps, e.g. 0, 20, ..., 280 for T = 50, strength 0.3.

    Raises:
        InputError: for a strength outside [0, 1] or a step count outside [1, num_train_timesteps].
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise InputError(f"num_inference_steps={num_inference_steps} must lie in [1, {num_train_timesteps}]")
    check_unit("strength", strength)
    stride = num_train_timesteps // num_inference_steps
    return [k * stride for k in range(min(int(num_inference_steps * strength), num_inference_steps))]


def injected_steps(num_inference_steps: int, strength: float, ratio: float) -> int:
    """How many of the first (noisiest) steps inject: `int(T * strength * ratio)`, as released, not `int(n * ratio)`."""
    check_unit("tac_ratio", ratio)
    return int(num_inference_steps * strength * ratio)


def check_unit(name: str, value: float) -> None:
    """Raise unless `value` lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value} must lie in [0, 1]")
