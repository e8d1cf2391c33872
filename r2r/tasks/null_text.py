"""Null-text optimisation: unconditional embeddings under which guided sampling retraces an inversion.

*Null-text Inversion for Editing Real Images using Guided Diffusion Models* (arXiv:2211.09794), in the form that VCT
(arXiv:2307.14352) calls pivotal turning inversion; the numbers are those of VCT's released code.

Deviations
- Only work that can change the result is done: nothing at t = 0, an identity (its loss is constant, and the released
  code's embedding moves there by rounding noise alone); the move after the inner steps takes the prompt's noise from
  before them. A step with J inner steps costs J + 2 sample-evals; released: J + 3.
- The move uses the guidance scale that is given; released: always 7.5, whatever is given.
- The embedding that is optimised is float32, whatever the model computes in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from r2r.diffusion import classifier_free_guidance, ddim_step
from r2r.errors import InputError
from r2r.models.stable_diffusion import TextConditioning
from r2r.tasks.trajectory import Step
from r2r.types import Latents

PredictNoise = Callable[[Tensor, int, float, TextConditioning], Tensor]  # latents, timestep, its abar, condition
MAX_STEPS = 100  # the rate falls linearly to zero there


@dataclass(frozen=True)
class NullText:
    """What was found, in the order of sampling: noisiest first."""

    unconditional: list[TextConditioning]  # one for each step
    latents: list[Latents]  # n + 1: the way of guided sampling under them, from the noise to the picture
    losses: list[list[float]]  # for each step, before each update; none at t = 0


@dataclass(frozen=True, kw_only=True)
class NullTextOptimization:
    """How to optimise; each step starts from the embedding of the one before, with a new Adam."""

    num_inner_steps: int = 50  # at most; 0 leaves the empty prompt as it is
    learning_rate: float = 1e-2  # times 1 - i / 100 in step i
    tolerance: float = 1e-5  # a loss below this + i * 2e-5 ends step i, after its update

    def __post_init__(self) -> None:
        if self.num_inner_steps < 0 or self.learning_rate <= 0 or self.tolerance < 0:
            raise InputError(f"{self}: inner steps and tolerance must be at least 0, the rate above 0")

    @torch.no_grad()
    def optimize(
        self,
        predict_noise: PredictNoise,
        inversion: Sequence[Latents],
        steps: Sequence[Step],
        prompt: TextConditioning,
        empty: TextConditioning,
        guidance_scale: float,
    ) -> NullText:
        """Retrace the inversion of one image.

        Args:
            predict_noise: one U-Net call as noise; differentiable.
            inversion: n + 1 latents of shape (1, c, h, w), from the clean ones to the noisiest.
            steps: the n steps in ascending time order, at most 100.
            prompt: what the conditional half is told, one row.
            empty: where the unconditional embedding starts, one row.
            guidance_scale: of the sampling that is to retrace, above 1.

        Raises:
            InputError: more than 100 steps.
        """
        if len(steps) > MAX_STEPS:
            raise InputError(f"{len(steps)} steps: the rate of null-text optimisation is zero from step {MAX_STEPS} on")
        found, latents = NullText([], [inversion[-1]], []), inversion[-1]
        for index, step in enumerate(reversed(steps)):
            losses: list[float] = []
            if not step.is_identity:
                noise = predict_noise(latents, step.timestep, step.signal, prompt)
                move = partial(_move, predict_noise, latents, step, noise, guidance_scale)
                empty, losses = self._fit(move, inversion[-2 - index], empty, index)
                latents = move(empty)
            found.unconditional.append(in_dtype(empty, latents.dtype))
            found.latents.append(latents)
            found.losses.append(losses)
        return found

    @torch.enable_grad()
    def _fit(
        self, move: Callable[[TextConditioning], Latents], target: Latents, start: TextConditioning, index: int
    ) -> tuple[TextConditioning, list[float]]:
        """The embedding that brings `move` near the target, and the losses on the way."""
        embeds = start.prompt_embeds.detach().float().clone().requires_grad_()
        optimizer = torch.optim.Adam([embeds], lr=self.learning_rate * (1 - index / MAX_STEPS))
        condition, losses = replace(start, prompt_embeds=embeds), list[float]()
        for _ in range(self.num_inner_steps):
            loss = mse_loss(move(condition).float(), target.float())
            (embeds.grad,) = torch.autograd.grad(loss, embeds)
            optimizer.step()
            losses.append(loss.item())
            if losses[-1] < self.tolerance + index * 2e-5:
                break
        return replace(start, prompt_embeds=embeds.detach()), losses


def _move(
    predict_noise: PredictNoise,
    latents: Latents,
    step: Step,
    prompt_noise: Latents,
    guidance_scale: float,
    unconditional: TextConditioning,
) -> Latents:
    """One guided step towards the picture; the conditional half is known already."""
    noise = predict_noise(latents, step.timestep, step.signal, in_dtype(unconditional, latents.dtype))
    guided = classifier_free_guidance(noise, prompt_noise, guidance_scale)
    return ddim_step(latents, guided, step.signal, step.signal_before)


def in_dtype(condition: TextConditioning, dtype: torch.dtype) -> TextConditioning:
    """The condition as a U-Net of this dtype takes it; embeddings that are optimised are float32."""
    pooled = condition.pooled_prompt_embeds
    return TextConditioning(condition.prompt_embeds.to(dtype), None if pooled is None else pooled.to(dtype))
