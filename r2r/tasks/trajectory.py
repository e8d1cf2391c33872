"""The way of a translation through the noise: its steps, the inverted latents along them, and the start of SDEdit.

DDIM (arXiv:2010.02502) walks it in both directions; SDEdit (arXiv:2108.01073) begins at its noisy end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r2r.attention import AttentionBank
from r2r.diffusion import Schedule, active_timesteps, ddim_step, to_noise
from r2r.errors import InputError
from r2r.types import Latents


@dataclass(frozen=True)
class Step:
    """One timestep with the signal levels at its two ends."""

    timestep: int
    signal: float  # abar at the timestep
    signal_before: float  # abar one stride earlier (less noise)

    @property
    def is_identity(self) -> bool:
        """At t = 0 both ends are abar_0, and the step changes nothing."""
        return self.signal == self.signal_before


@dataclass
class Trajectory:
    """The inverted latents z_0 ... z_n and, if recorded, what the attention saw on the way to each timestep."""

    latents: list[Latents]
    attention: dict[int, AttentionBank]


def noised(latents: Latents, noise: Latents | None, step: Step) -> Latents:
    """SDEdit's start: the latents at the noise level of the first step."""
    if noise is None:
        raise InputError("start='noise' needs noise")
    return step.signal**0.5 * latents + (1 - step.signal) ** 0.5 * noise


def active_steps(schedule: Schedule, num_inference_steps: int, strength: float = 1.0) -> list[Step]:
    """The steps below a strength in ascending time order."""
    train = schedule.num_train_timesteps
    stride = train // num_inference_steps
    times = active_timesteps(train, num_inference_steps, strength)
    return [Step(time, schedule.signal(time), schedule.signal(time - stride)) for time in times]


def descending_steps(schedule: Schedule, num_inference_steps: int) -> list[Step]:
    """From noise to the picture, without the step at the end that changes nothing."""
    return [step for step in reversed(active_steps(schedule, num_inference_steps)) if not step.is_identity]


def guided_sampling(
    schedule: Schedule,
    steps: Sequence[Step],
    start: Latents,
    branches: int,
    predict: Callable[[Latents, Tensor], Latents],
    guide: Callable[[Sequence[Tensor]], Tensor],
) -> Latents:
    """DDIM with every image in as many rows as `branches`; `guide` makes one noise of theirs."""
    latents = start
    for step in steps:
        rows = torch.cat([latents] * branches)
        output = predict(rows, torch.tensor(step.timestep, device=latents.device))
        noises = to_noise(output, rows, step.signal, schedule.prediction).split(len(latents))
        latents = ddim_step(latents, guide(noises), step.signal, step.signal_before)
    return latents


def same_noise(shape: Sequence[int], seed: int) -> Latents:
    """Start noise, shape (b, c, h, w), that depends on the seed and not on the place in the batch."""
    return torch.randn(*shape[1:], generator=torch.Generator().manual_seed(seed)).expand(*shape)


def branch_rows(branches: Sequence[Sequence[bool]], count: int, device: torch.device) -> list[Tensor]:
    """For each thing a branch sees or does not see, which rows of `guided_sampling` see it."""
    return [torch.tensor(each, device=device).repeat_interleave(count) for each in zip(*branches, strict=True)]
