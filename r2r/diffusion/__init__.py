"""Schedules, the DDIM step, guidance and losses: the mathematics of diffusion, without networks."""

from r2r.diffusion.ddim import ddim_step, to_noise
from r2r.diffusion.guidance import classifier_free_guidance, composed_guidance
from r2r.diffusion.losses import NoiseLevels, min_snr_weights, offset_noise, training_target, weighted_mse
from r2r.diffusion.schedule import Schedule, active_timesteps, injected_steps

__all__ = [
    "NoiseLevels",
    "Schedule",
    "active_timesteps",
    "classifier_free_guidance",
    "composed_guidance",
    "ddim_step",
    "injected_steps",
    "min_snr_weights",
    "offset_noise",
    "to_noise",
    "training_target",
    "weighted_mse",
]
