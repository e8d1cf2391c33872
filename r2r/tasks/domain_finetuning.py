"""Domain knowledge injection, positive half: finetune a text-to-image U-Net on photos of the target domain.

FashionR2R (arXiv:2410.14429), stage one; the loss is DDPM's (arXiv:2006.11239) or v-prediction's (arXiv:2202.00512),
whichever the model was trained with.

Deviations
- The paper's learning rate, steps, batch size and trained sub-modules are not public; the defaults here follow
  diffusers' `train_text_to_image.py` (AdamW, 1e-5, U-Net only).
- Captions come with the data; the paper made them with BLIP, which here is a data step (`python -m r2r.caption`).
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Generator, Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from r2r.diffusion import NoiseLevels, composed_guidance
from r2r.errors import InputError
from r2r.models.exported_parts import base_settings
from r2r.models.lora import LoRA
from r2r.models.sharding import shard, whole
from r2r.models.single_file import SINGLE_FILE, save_single_file
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.denoising import denoising_loss, encode_captions, encode_images, keep_codes, noise_generator
from r2r.tasks.image_translation import RenderedToReal, TranslationSettings
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.tasks.trajectory import descending_steps, guided_sampling
from r2r.types import ImageBatch, Images, UnpairedBatch

PREVIEW = TranslationSettings(num_inference_steps=20, strength=0.6, guidance_scale=1.0, tac_ratio=0.0, start="noise")


class DomainFinetuning(LightningModule):
    """Trains the U-Net (and the text encoders, if asked), or a LoRA of them, on image-caption pairs."""

    def __init__(
        self,
        model: StableDiffusion,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        timesteps: NoiseLevels | None = None,
        min_snr_gamma: float | None = None,
        offset_noise: float = 0.0,
        background_weight: float = 1.0,
        train_text_encoder: bool = False,
        gradient_checkpointing: bool = False,
        cache_latents: bool | str = False,
        lora: LoRA | None = None,
        single_file: bool = False,
        prior_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials waiting for parameters and optimizer.

        `cache_latents` keeps the latents of every image and caption in memory, so that each is encoded once; a folder,
        those of images for later runs too. With a `lora` its layers alone train, and lie in checkpoints: those of the
        U-Net, and of the text encoders with `train_text_encoder`. Below 1, `background_weight` is what places outside
        of the garment mask count in the loss (`data.mask_member`); `offset_noise` is the strength of what
        `r2r.diffusion` calls so. With `single_file` the export holds the pipeline as one file too. `prior_weight` is
        that of the loss on pictures that shall stay drawable (`data=with_prior`; DreamBooth's prior preservation,
        arXiv:2208.12242), of which every place counts.

        Raises InputError for a `lora` that fits no layer, or beside `single_file`, and for strange weights.
        """
        super().__init__()
        if not 0 < background_weight <= 1 or min(offset_noise, prior_weight) < 0:
            given = f"background_weight={background_weight} offset_noise={offset_noise} prior_weight={prior_weight}"
            raise InputError(f"{given}: the first lies in (0, 1], the others are not negative")
        self.offset_noise, self.background_weight, self.prior_weight = offset_noise, background_weight, prior_weight
        self.model, self.optimizer, self.lr_scheduler = model, optimizer, lr_scheduler
        self.encode = model.cached_encode(cache_latents)
        self.known_captions = {} if cache_latents is not False and not train_text_encoder else None
        self.timesteps = timesteps or NoiseLevels()
        self.min_snr_gamma, self.train_text_encoder, self.seed = min_snr_gamma, train_text_encoder, seed
        if lora is not None and single_file:
            raise InputError("task.single_file is of a whole pipeline; a LoRA is one file as it is (kohya.safetensors)")
        self.lora, self.single_file = lora, single_file
        self.unet = model.unet if lora is None else None
        self.lora_layers = None if lora is None else lora.add(model.unet)
        encoders = model.text_encoders if train_text_encoder else []
        self.text_encoders = nn.ModuleList(encoders if lora is None else [lora.add(each) for each in encoders])
        for module in (self.unet, self.lora_layers, self.text_encoders):
            if module is not None:
                module.requires_grad_(True).train()
        self._freeze_unread()
        if gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()

    def _freeze_unread(self) -> None:
        """SDXL reads its first text encoder before the last layer: what follows learns nothing, which DDP refuses."""
        if not (trained := list(self.text_encoders.parameters())):
            return
        condition = self.model.encode_prompts([""])
        read = [each.sum() for each in (condition.prompt_embeds, condition.pooled_prompt_embeds) if each is not None]
        for parameter, gradient in zip(trained, torch.autograd.grad(read, trained, allow_unused=True), strict=True):
            parameter.requires_grad_(gradient is not None)

    def configure_model(self) -> None:
        """Share the U-Net out where the strategy is FSDP2 (`trainer=fsdp`). Raises InputError for a LoRA."""
        if self.device_mesh is None:
            return
        if self.unet is None:
            raise InputError("trainer=fsdp shares out a U-Net that trains; a LoRA fits beside it: trainer.strategy=ddp")
        shard(self.unet, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Bring the frozen networks along; they are not in the module tree."""
        self.model.to(self.device)

    def on_train_end(self) -> None:
        """Write what was encoded last, and put a U-Net that was shared out together."""
        keep_codes(self.encode)
        if self.device_mesh is not None:
            self.model.pipe.unet = whole(self.model.unet)

    def training_step(self, batch: ImageBatch | UnpairedBatch, batch_idx: int) -> Tensor:
        """The denoising loss of one batch, and of a prior's if there is one.

        Noise depends on seed, step and rank alone, so that resuming is exact.
        """
        generator = noise_generator(self, self.seed)
        if self.lora is not None and self.lora.dropout:
            torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator, which is not resumed
        images, prior = (batch, None) if "image" in batch else (batch["target"], batch["source"])
        loss = self._loss(images, generator, self.background_weight)
        self.log("train/loss", loss, batch_size=len(images["image"]))
        if prior is None or self.prior_weight == 0:
            return loss
        kept = self._loss(prior, generator)
        self.log("train/prior_loss", kept, batch_size=len(prior["image"]))
        return loss + self.prior_weight * kept

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The same loss on noise fixed by the batch index."""
        loss = self._loss(batch, Generator(self.device).manual_seed(batch_idx), self.background_weight)
        self.log("val/loss", loss, batch_size=len(batch["image"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over what trains, and a schedule stepped every step."""
        return stepwise(self.optimizer, self.lr_scheduler, (p for p in self.parameters() if p.requires_grad))

    @torch.no_grad()
    def preview(self, batch: ImageBatch) -> dict[str, Images]:
        """What the model makes of half-noised images (SDEdit, strength 0.6), beside the images themselves."""
        images = batch["image"].to(self.device)
        latents = self.model.encode(images)
        noise = torch.randn(latents.shape, generator=Generator().manual_seed(0)).to(latents)
        empty = self.model.encode_prompts([""])
        out = RenderedToReal(self.model).translate_latents(
            latents,
            empty,
            empty,
            noise=noise,
            settings=PREVIEW,
        )
        return {"image": images, "denoised": self.model.decode(out)}

    @torch.no_grad()
    def draw(self, batch: ImageBatch, seed: int = 0) -> Images:
        """Images of the batch's captions, in its size, from noise fixed by the seed: 20 DDIM steps, guidance 2."""
        condition = encode_captions(self.model, batch["caption"], False, self.known_captions)
        height, width = (side // self.model.vae_factor for side in batch["image"].shape[2:])
        shape = len(batch["caption"]), self.model.vae.config.latent_channels, height, width
        noise = torch.randn(shape, generator=Generator().manual_seed(seed)).to(self.device)
        told = TextConditioning.cat([self.model.encode_prompts([""]).repeat(len(noise)), condition])
        predict, guide = partial(self.model.predict, condition=told), partial(composed_guidance, scales=[2.0])
        steps = descending_steps(self.model.schedule, 20)
        return self.model.decode(guided_sampling(self.model.schedule, steps, noise, 2, predict, guide))

    def export(self, folder: Path) -> None:
        """Write the whole pipeline in diffusers format, or a LoRA; both load as a model."""
        if self.lora is not None:
            self.lora.save(self.model.pipe, folder, base_settings(self.model))
            return
        self.model.save_pretrained(folder)
        if self.single_file:
            save_single_file(self.model.pipe, folder / SINGLE_FILE)

    def _loss(self, batch: ImageBatch, generator: Generator, background_weight: float = 1.0) -> Tensor:
        condition = encode_captions(self.model, batch["caption"], self.train_text_encoder, self.known_captions)
        predict = partial(self.model.predict, condition=condition)
        latents = encode_images(self.encode, batch, "image")
        places = self._places(batch, latents) if background_weight < 1 else None
        how = (self.timesteps, self.min_snr_gamma, self.offset_noise, places)
        return denoising_loss(self.model, latents, predict, generator, *how)

    def _places(self, batch: ImageBatch, latents: Tensor) -> Tensor:
        """How much each latent pixel counts: 1 inside the garment, by its share of a pixel at the border."""
        if "garment_mask" not in batch:
            raise InputError(
                "task.background_weight needs masks: give data.mask_member, as garment_mask.png of the studio"
            )
        inside = adaptive_avg_pool2d(
            batch["garment_mask"].to(latents.device).float(), (latents.shape[2], latents.shape[3])
        )
        return self.background_weight + (1 - self.background_weight) * inside
