"""Rendered-to-real translation with texture-preserving attention control (TAC).

*FashionR2R: Texture-preserving Rendered-to-Real Image Translation with Diffusion Models* (arXiv:2410.14429), stage two,
realistic image generation: DDIM inversion of the rendered image, then sampling guided away from the negative
embedding of the rendered domain, while the shallow self-attentions take queries and keys from the rendered image.

Deviations
- Inversion runs in ascending time order. The released code iterates its timesteps in descending order, so its stored
  source latents do not fit their timesteps; `inversion_order="released"` reproduces that.
- Only work that can change the result is done: no guidance in the inversion (both prompts are equal there), no negative
  row for the source, no source row once injection has ended or in the first step after an inversion start (both rows
  are equal), no call for the step at t = 0 (an identity). At the defaults 54 U-Net sample-evals an image; released: 90.
- The source row sees `source_prompt` in the conditional half only. Nothing is injected into the negative half unless
  `inject="both"`, which feeds it the same queries and keys (as PnP does; the released code injects into one half).
- Strides choose the layers: stride <= 2 is the released rule `tokens >= H * W / 256` for sizes the VAE can divide.
- DDIM inversion takes the noise of the cleaner latents for that of the noisier ones it looks for, so with coarse steps
  the way back misses the picture. `inversion_iterations` above 1 repeats each step from its own result, a fixed-point
  iteration (AIDI, arXiv:2309.04907; ReNoise, arXiv:2403.14602) whose limit the sampling retraces exactly.
- v-prediction: in the inversion the model is told the timestep ahead, and its v becomes noise at that timestep's level.
  diffusers' `DDIMInverseScheduler` takes the level of the latents, which loses contrast at every coarse step.
- Images keep their own size (sides rounded to what the U-Net can divide); the released code resizes to 768 x 1024.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from r2r.attention import (
    AttentionBank,
    Inject,
    Record,
    RowMap,
    Rows,
    Sites,
    attention_control,
    restore,
    snapshot,
)
from r2r.data.images import fit_to_multiple, to_pil, to_tensor
from r2r.diffusion import classifier_free_guidance, ddim_step, injected_steps, to_noise
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.trajectory import Step, Trajectory, active_steps, noised
from r2r.tasks.translation_settings import TranslationSettings
from r2r.types import Latents

Progress = Callable[[int], None]  # called with the number of images finished
Finish = Callable[[Latents], list[Image.Image]]


class RenderedToReal:
    """Translate rendered clothing images into realistic ones.

    >>> pipe = RenderedToReal.from_pretrained("tiny")  # doctest: +SKIP
    >>> photos = pipe([render], strength=0.3, tac_ratio=0.9)  # doctest: +SKIP
    """

    def __init__(self, model: StableDiffusion, negative_prompt: str = "") -> None:
        """`negative_prompt` is what guidance moves away from: the token of a loaded negative embedding, or words."""
        self.model = model
        self.negative_prompt = negative_prompt

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        negative_embedding: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "float32",
    ) -> "RenderedToReal":
        """Load a model ("tiny", "sd15", "sd21", "sdxl", a hub id, or a folder) and a negative embedding for it.

        Raises:
            InputError: wrong folder, or an embedding made for another model.
            MissingWeightsError: weights neither cached nor reachable.
        """
        loaded = StableDiffusion.from_pretrained(model, dtype=dtype)
        token = "" if negative_embedding is None else loaded.load_negative_embedding(negative_embedding)
        return cls(loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), token)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoising network, e.g. to hook or to compile."""
        return self.model.unet

    @torch.no_grad()
    def __call__(
        self,
        images: Sequence[Image.Image] | Image.Image,
        *,
        prompt: str = "",
        negative_prompt: str | None = None,
        source_prompt: str = "",
        seed: int = 0,
        resolution: int | None = None,
        batch_size: int = 8,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[Image.Image]:
        """Translate PIL images of any sizes; each comes back in its own size.

        Args:
            images: rendered images; equal sizes next to each other are batched.
            prompt: what to move towards; empty in the paper's code.
            negative_prompt: what to move away from; by default the negative embedding that was loaded.
            source_prompt: what the inversion and the source row are told.
            seed: of the start noise, the same for every image; used by `start="noise"` only.
            resolution: short side to work at, in pixels; by default the image's own. Sides are rounded to multiples of
                `model.size_multiple`, and the result is resized back.
            batch_size: images at once.
            progress: called with the number of images each time a batch is done.
            **settings: fields of `TranslationSettings`.
        """
        options = TranslationSettings(**settings)
        conditions = self._conditions(prompt, negative_prompt, source_prompt)
        results: list[Image.Image] = []
        for latents, noise, finish in self._latent_batches(images, resolution, batch_size, seed):
            out = self.translate_latents(latents, *conditions, noise=noise, settings=options)
            results += finish(out)
            if progress is not None:
                progress(len(latents))
        return results

    @torch.no_grad()
    def sweep(
        self,
        images: Sequence[Image.Image] | Image.Image,
        *,
        strengths: Sequence[float],
        tac_ratios: Sequence[float],
        prompt: str = "",
        negative_prompt: str | None = None,
        source_prompt: str = "",
        seed: int = 0,
        resolution: int | None = None,
        max_rows: int = 64,
        progress: Progress | None = None,
        **settings: Any,
    ) -> dict[tuple[float, float], list[Image.Image]]:
        """Translate with every pair of strength and TAC ratio; work the cells have in common is done once.

        Returns the images of each cell by (strength, tac_ratio), equal to what a call with these two would give.
        `max_rows` bounds the rows of one U-Net call, and so the memory; the other arguments are those of a call.
        """
        from r2r.tasks.translation_sweep import SweepPlan, sweep_latents  # it builds on this module

        options = TranslationSettings(**settings)
        conditions = self._conditions(prompt, negative_prompt, source_prompt)
        plan = SweepPlan.of(strengths, tac_ratios, options, source_prompt == prompt)
        results: dict[tuple[float, float], list[Image.Image]] = {cell: [] for cell in plan.paths}
        for latents, noise, finish in self._latent_batches(images, resolution, plan.images_at_once(max_rows), seed):
            out = sweep_latents(self, plan, latents, *conditions, noise=noise, max_rows=max_rows)
            finished = {path: finish(latents) for path, latents in out.items()}
            for cell, path in plan.paths.items():
                results[cell] += finished[path]
            if progress is not None:
                progress(len(latents))
        return results

    def _conditions(self, prompt: str, negative_prompt: str | None, source_prompt: str) -> list[TextConditioning]:
        """What the prompt, the negative and the source rows are told; one object where the texts are equal."""
        negative = self.negative_prompt if negative_prompt is None else negative_prompt
        encoded = {text: self.model.encode_prompts([text]) for text in {prompt, negative, source_prompt}}
        return [encoded[text] for text in (prompt, negative, source_prompt)]

    def _latent_batches(
        self, images: Sequence[Image.Image] | Image.Image, resolution: int | None, batch_size: int, seed: int
    ) -> Iterator[tuple[Latents, Latents, Finish]]:
        """Batches of latents of equal size, start noise for them, and the way from latents back to finished images."""
        images = [images] if isinstance(images, Image.Image) else images
        fitted = [fit_to_multiple(image, self.model.size_multiple, resolution) for image in images]
        for batch in _batches(fitted, batch_size):
            pixels = torch.stack([to_tensor(image) for image, _ in batch]).to(self.model.device)
            latents = self.model.encode(pixels)
            noise = torch.randn(latents[0].shape, generator=torch.Generator().manual_seed(seed)).to(latents)
            yield latents, noise.expand_as(latents), partial(self._finish, [back for _, back in batch])

    def _finish(self, restore: list[Callable[[Image.Image], Image.Image]], latents: Latents) -> list[Image.Image]:
        """Decoded images, each in its own size."""
        return [back(to_pil(image)) for image, back in zip(self.model.decode(latents), restore, strict=True)]

    @torch.no_grad()
    def translate_latents(
        self,
        latents: Latents,
        prompt: TextConditioning,
        negative: TextConditioning,
        source: TextConditioning | None = None,
        *,
        noise: Latents | None = None,
        settings: TranslationSettings | None = None,
    ) -> Latents:
        """Translate scaled latents, shape (b, c, h, w); conditions have one row each.

        Args:
            latents: of the rendered images.
            prompt: what to move towards.
            negative: what to move away from.
            source: what the source row is told; the prompt if None.
            noise: the start noise of `start="noise"`, in the shape of the latents.
            settings: defaults if None.
        """
        settings = settings or TranslationSettings()
        source = source or prompt
        steps = self.steps(settings)
        if not steps:
            return latents
        num_injected = injected_steps(settings.num_inference_steps, settings.strength, settings.tac_ratio)
        record, inject = self._controls(settings, len(latents))
        with attention_control(self.unet, record, inject):
            if settings.start == "inversion" or num_injected:
                trajectory = self._invert(latents, source, settings, record)
            else:
                trajectory = Trajectory([latents], {})
            start = trajectory.latents[-1] if settings.start == "inversion" else noised(latents, noise, steps[-1])
            conditions = {"prompt": prompt, "negative": negative, "source": source}
            injected = range(settings.first_injection(source is prompt), num_injected)
            return self._sample(start, trajectory, conditions, settings, inject, injected)

    def steps(self, settings: TranslationSettings) -> list[Step]:
        """The active steps in ascending time order."""
        return active_steps(self.model.schedule, settings.num_inference_steps, settings.strength)

    @torch.no_grad()
    def invert(self, latents: Latents, condition: TextConditioning, settings: TranslationSettings) -> Trajectory:
        """DDIM inversion: n + 1 latents from the clean ones to the noisiest, attention recorded if asked for."""
        record, _ = self._controls(settings, len(latents))
        with attention_control(self.unet, record):
            return self._invert(latents, condition, settings, record)

    def _controls(self, settings: TranslationSettings, count: int) -> tuple[Record, Inject]:
        """The recorder of the inversion and TAC for the sampling, both off; one pair for a whole translation.

        Receivers take queries and keys of the source rows, which ride in the batch or lie in the recorder's bank.
        """
        where = Sites("self", settings.max_stride)
        rows = Rows((*settings.halves, "source"), count)
        bank = AttentionBank()
        record = Record(bank, where, enabled=False)
        if settings.source == "row":
            return record, Inject(where, rows.route(**dict.fromkeys(settings.receivers, "source")), enabled=False)
        pairs = tuple((rows[name], slice(0, count)) for name in settings.receivers)
        return record, Inject(where, RowMap(pairs), bank, enabled=False)

    def _invert(
        self, latents: Latents, condition: TextConditioning, settings: TranslationSettings, record: Record
    ) -> Trajectory:
        steps = self.steps(settings)
        condition = condition.repeat(len(latents))
        trajectory = Trajectory([latents], {})
        record.enabled = settings.source == "recorded"
        for step in steps if settings.inversion_order == "ascending" else reversed(steps):
            if not step.is_identity:
                cleaner = latents
                for _ in range(settings.inversion_iterations):
                    noise = self.predict_noise(latents, step.timestep, step.signal, condition)
                    latents = ddim_step(cleaner, noise, step.signal_before, step.signal)
                trajectory.attention[step.timestep] = snapshot(record.bank)
            trajectory.latents.append(latents)
        record.enabled = False
        return trajectory

    def _sample(
        self,
        latents: Latents,
        trajectory: Trajectory,
        conditions: dict[str, TextConditioning],
        settings: TranslationSettings,
        inject: Inject,
        injected: range,
    ) -> Latents:
        """Walk down the active steps; in those `injected` the source rides along or comes from the trajectory."""
        halves = settings.halves
        for index, step in enumerate(reversed(self.steps(settings))):
            if step.is_identity:
                break
            inject.enabled = index in injected
            if inject.enabled and inject.bank is not None:
                restore(inject.bank, trajectory.attention[step.timestep])
            riding = inject.enabled and inject.bank is None
            rows = Rows((*halves, "source") if riding else halves, len(latents))
            branches = {"source": trajectory.latents[-1 - index]} if riding else {}
            noise = self._guided_noise(latents, branches, rows, step, conditions, settings.guidance_scale)
            latents = ddim_step(latents, noise, step.signal, step.signal_before)
        return latents

    def _guided_noise(
        self,
        latents: Latents,
        branches: dict[str, Latents],
        rows: Rows,
        step: Step,
        conditions: dict[str, TextConditioning],
        guidance_scale: float,
    ) -> Latents:
        """One batched U-Net call over the named rows, and guidance between its halves."""
        batch = torch.cat([branches.get(name, latents) for name in rows.names])
        condition = TextConditioning.cat([conditions[name].repeat(rows.count) for name in rows.names])
        noise = self.predict_noise(batch, step.timestep, step.signal, condition)
        if "negative" not in rows.names:
            return noise[rows["prompt"]]
        return classifier_free_guidance(noise[rows["negative"]], noise[rows["prompt"]], guidance_scale)

    def predict_noise(self, latents: Tensor, timestep: int, signal: float, condition: TextConditioning) -> Tensor:
        """One U-Net call as noise, whatever the model predicts; `signal` is abar at the timestep, as the model is told.

        In an inversion the latents are one stride cleaner than that. What the model takes for noise in them is still
        a mixture at the timestep's own level: a v read at the latents' level would fade the picture at every step.
        """
        time = torch.tensor(timestep, device=latents.device)
        output = self.model.predict(latents, time, condition)
        return to_noise(output, latents, signal, self.model.schedule.prediction)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Neighbours of equal image size, at most `size` at once."""
    for _, group in groupby(items, key=lambda item: item[0].size):
        while batch := list(islice(group, size)):
            yield batch
