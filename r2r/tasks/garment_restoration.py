"""Garment restoration: learn to draw the garment that a person wears, flat before white.

IGR, *Improving Diffusion Model for Garment Restoration from Person Image* (arXiv:2412.11513): two garment extractors,
garment fusion blocks, and a coarse-to-fine training. The network is `r2r.models.garment_denoiser`, sampling
`r2r.tasks.garment_restorer`; loss and conditioning are here.

Deviations
- Steps, rates, batch size, resolution and what is trained are not public; the defaults are r2r's: AdamW at 1e-5, U-Net,
  reference net and image prompt, each condition left out in 5 % of the rows and both in 5 % more (IP-Adapter's shares).
- Coarse-to-fine is read as its one public description has it: a second stage on curated pairs, from the first one's
  weights (`task.initial`), the curation being `r2r.data.curation`. The paper's own filter is not public.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Generator, Tensor

from r2r.diffusion import NoiseLevels
from r2r.errors import InputError
from r2r.models.garment_denoiser import GarmentDenoiser
from r2r.models.image_encoder import ImageEncoder
from r2r.models.latent_cache import cached
from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.denoising import denoising_loss, encode_captions, encode_images, keep_codes, noise_generator
from r2r.tasks.garment_restorer import PROMPT, GarmentRestorer, RestorationSettings, garment_prompts
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.types import GarmentMask, Images, RestorationBatch


class GarmentRestoration(LightningModule):
    """Trains denoiser, reference net and image prompt on pairs of a person and a flat garment.

    Args:
        model: what denoiser and reference net begin as.
        encoder, image_prompt, use_reference, min_stride: as of `GarmentDenoiser`.
        train_reference: False keeps the reference net as it begins.
        mask_reference: reference keys are those of the garment; False: of the whole picture.
        dropout, reference_dropout, image_dropout: shares of rows that see neither condition, no reference, or no
            image tokens.
        prompt: of every row; {garment} becomes "upper garment", "lower garment" or "dress", by the slot.
        sampling: of previews.
        cache_latents: keep the latents of every image in memory, so that each is encoded once; a folder, for
            later runs too.
        initial: export of a first stage to begin with, or "tiny", the shipped one.

    Raises InputError for shares that do not fit, an encoder and a U-Net that do not, or another `initial`.
    """

    def __init__(
        self,
        model: StableDiffusion,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        encoder: ImageEncoder | None = None,
        image_prompt: dict[str, Any] | None = None,
        use_reference: bool = True,
        min_stride: int = 1,
        train_reference: bool = True,
        mask_reference: bool = True,
        dropout: float = 0.05,
        reference_dropout: float = 0.05,
        image_dropout: float = 0.05,
        prompt: str = PROMPT,
        sampling: RestorationSettings | None = None,
        timesteps: NoiseLevels | None = None,
        min_snr_gamma: float | None = None,
        gradient_checkpointing: bool = False,
        cache_latents: bool | str = False,
        initial: str | None = None,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials waiting for parameters and optimizer."""
        super().__init__()
        shares = (dropout, reference_dropout, image_dropout)
        if min(shares) < 0 or sum(shares) > 1:
            names = f"dropout={dropout} reference_dropout={reference_dropout} image_dropout={image_dropout}"
            raise InputError(f"{names}: shares of rows must not be negative, nor be above 1 together")
        self.denoiser = GarmentDenoiser(
            model, encoder, image_prompt, use_reference=use_reference, min_stride=min_stride
        )
        if initial is not None:
            self.denoiser.load(initial)
        self.denoiser.requires_grad_(True).train()
        if self.denoiser.reference is not None:
            self.denoiser.reference.requires_grad_(train_reference)
        self.model, self.optimizer, self.lr_scheduler, self.seed = model, optimizer, lr_scheduler, seed
        self.encode = model.cached_encode(cache_latents)
        self.read: Callable[[Images], Tensor] | None = None  # not the encoder itself, which is no module of this one
        if encoder is not None:
            self.read = cached(encoder.__call__, cache_latents, encoder)
        self.mask_reference, self.shares = mask_reference, torch.tensor(shares).cumsum(0)
        self.prompt, self.sampling, self.timesteps = (
            prompt,
            sampling or RestorationSettings(),
            timesteps or NoiseLevels(),
        )
        self.min_snr_gamma = min_snr_gamma
        if gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
            if self.denoiser.reference is not None and train_reference:
                self.denoiser.reference.unet.enable_gradient_checkpointing()

    def on_fit_start(self) -> None:
        """Bring the frozen networks along; they are not in the module tree."""
        self.denoiser.to_device(self.device)

    def on_train_end(self) -> None:
        """Write what was encoded last."""
        keep_codes(self.encode, self.read)

    def training_step(self, batch: RestorationBatch, batch_idx: int) -> Tensor:
        """The denoising loss of the flat garments; chance depends on seed, step and rank alone."""
        generator = noise_generator(self, self.seed)
        loss = self._loss(batch, generator, *self._dropped(len(batch["flat"]), generator))
        self.log("train/loss", loss, batch_size=len(batch["flat"]))
        return loss

    def validation_step(self, batch: RestorationBatch, batch_idx: int) -> None:
        """The same loss on noise fixed by the batch index, all conditions seen."""
        loss = self._loss(batch, Generator(self.device).manual_seed(batch_idx))
        self.log("val/loss", loss, batch_size=len(batch["flat"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over what trains, and a schedule stepped every step."""
        return stepwise(self.optimizer, self.lr_scheduler, (p for p in self.parameters() if p.requires_grad))

    @torch.no_grad()
    def preview(self, batch: RestorationBatch) -> dict[str, Images]:
        """Persons, restored garments, and the true ones."""
        persons = batch["person"].to(self.device)
        masks = self._mask(batch)
        restorer = GarmentRestorer(self.denoiser, self.prompt)
        restored = restorer(persons, batch["slot"], masks, settings=self.sampling)
        return {"person": persons, "restored": restored, "flat": batch["flat"]}

    def export(self, folder: Path) -> None:
        """Write what differs from the base model; see `GarmentDenoiser.save`."""
        self.denoiser.save(folder, mask_reference=self.mask_reference, prompt=self.prompt)

    def _loss(
        self,
        batch: RestorationBatch,
        generator: Generator,
        looking: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        latents = encode_images(self.encode, batch, "flat")
        condition = encode_captions(self.model, garment_prompts(self.prompt, batch["slot"]), train=False)
        encoded = encode_images(self.read, batch, "person") if self.read is not None else None
        own = encode_images(self.encode, batch, "person")
        seen = self.denoiser.look(batch["person"], condition, self._mask(batch), own, encoded)
        predict = partial(self.denoiser.predict, condition=condition, appearance=seen, looking=looking, told=told)
        return denoising_loss(self.model, latents, predict, generator, self.timesteps, self.min_snr_gamma)

    def _mask(self, batch: RestorationBatch) -> GarmentMask | None:
        return batch["garment_mask"].to(self.device) if self.mask_reference else None

    def _dropped(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Which rows see the reference, and which the image tokens."""
        chance = torch.rand(count, generator=generator, device=generator.device)
        neither, no_reference, no_tokens = self.shares.tolist()
        looking = chance >= no_reference
        told = (chance >= neither) & (chance < no_reference) | (chance >= no_tokens)
        return looking, told
