"""The Schrödinger bridge of UNSB (arXiv:2305.15086, ICLR 2024): its times, its steps, and a walk along it.

Every step goes a share of the way to the guessed end and adds noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from r2r.errors import InputError

Guess = Callable[[Float[Tensor, "b c h w"], int], Float[Tensor, "b c h w"]]  # the end, from a place and its time index


@dataclass(frozen=True)
class Bridge:
    """`num_timesteps` places before the end, and the amount of noise `tau` in between."""

    num_timesteps: int = 5
    tau: float = 0.01

    def __post_init__(self) -> None:
        if self.num_timesteps < 1 or self.tau < 0:
            raise InputError(f"num_timesteps={self.num_timesteps} must be at least 1, tau={self.tau} at least 0")

    @property
    def times(self) -> Float[Tensor, " t"]:
        """0, then from 1/2 to 1 by harmonic steps: 0, 0.5, 0.74, 0.86, 0.94, 1 for five."""
        harmonic = torch.tensor([1.0 / (j + 1) for j in range(self.num_timesteps - 1)], dtype=torch.float64).cumsum(0)
        rising = torch.cat([torch.zeros(1, dtype=torch.float64), harmonic])
        last = rising[-1] if self.num_timesteps > 1 else 1.0
        return torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 + 0.5 * rising / last]).float()

    def coefficients(self, index: int) -> tuple[float, float]:
        """Of the step to place `index` >= 1: the share of the way to the end, and the deviation of the noise."""
        times = self.times.double()
        step = float(times[index] - times[index - 1])
        share = step / (1 - float(times[index - 1]))
        return share, (step * (1 - share) * self.tau) ** 0.5

    def step(
        self, x: Float[Tensor, "b c h w"], end: Float[Tensor, "b c h w"], index: int, noise: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """From place `index` - 1 to place `index`."""
        share, deviation = self.coefficients(index)
        return (1 - share) * x + share * end + deviation * noise

    def walk(
        self, start: Float[Tensor, "b c h w"], guess: Guess, index: int, generator: Generator
    ) -> Float[Tensor, "b c h w"]:
        """From the start to place `index`, by a guess of the end at each place on the way."""
        x = start
        for place in range(index):
            noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
            x = self.step(x, guess(x, place), place + 1, noise)
        return x
