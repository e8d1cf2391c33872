"""The way of a translation through the noise: its steps, the inverted latents along them, and the start of SDEdit.

DDIM (arXiv:2010.02502) walks it in both directions; SDEdit (arXiv:2108.01073) begins at its noisy end.
"""

from dataclasses import dataclass

from r2r.attention import AttentionBank
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
