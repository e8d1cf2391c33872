"""Domain knowledge injection, negative half: learn an embedding of the rendered domain to be guided away from.

FashionR2R (arXiv:2410.14429), stage one, after the positive finetuning and on top of it; the method is textual
inversion (arXiv:2208.01618): everything is frozen but the embedding of a placeholder token.

Deviations
- Number of vectors, initial word, rate and steps of the paper are not public: 4 vectors, "render", AdamW at 2e-3 (the
  effective rate of diffusers' textual-inversion example) are r2r's choice.
- The prompt is the placeholder token alone, as it is at inference, not a template around it.
- Only the new rows are parameters; diffusers' script optimises the whole token table and restores it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from r2r.diffusion import NoiseLevels
from r2r.models.placeholder_tokens import add_placeholder
from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.denoising import denoising_loss, encode_captions, encode_images, keep_codes, noise_generator
from r2r.tasks.image_translation import RenderedToReal
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.types import ImageBatch, Images


class TextualInversion(LightningModule):
    """Trains the vectors of one placeholder token, one set for each text encoder."""

    def __init__(
        self,
        model: StableDiffusion,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        placeholder_token: str = "<rendered>",
        num_vectors: int = 4,
        initializer: str = "render",
        timesteps: NoiseLevels | None = None,
        cache_latents: bool | str = False,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials waiting for parameters and optimizer.

        `cache_latents` keeps the latents of every image in memory, so that each is encoded once; a folder, for later
        runs too.
        """
        super().__init__()
        self.model, self.optimizer, self.lr_scheduler = model, optimizer, lr_scheduler
        self.encode = model.cached_encode(cache_latents)
        self.token, self.seed = placeholder_token, seed
        self.timesteps = timesteps or NoiseLevels()
        self.vectors = nn.ParameterList(add_placeholder(model, placeholder_token, num_vectors, initializer))

    def on_fit_start(self) -> None:
        """Bring the frozen networks along; they are not in the module tree."""
        self.model.to(self.device)

    def on_train_end(self) -> None:
        """Write what was encoded last."""
        keep_codes(self.encode)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The denoising loss under the placeholder prompt; the data's captions are not used."""
        loss = self._loss(batch, noise_generator(self, self.seed))
        self.log("train/loss", loss, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The same loss on noise fixed by the batch index."""
        loss = self._loss(batch, Generator(self.device).manual_seed(batch_idx))
        self.log("val/loss", loss, batch_size=len(batch["image"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over the vectors, and a schedule stepped every step."""
        return stepwise(self.optimizer, self.lr_scheduler, self.vectors)

    @torch.no_grad()
    def preview(self, batch: ImageBatch) -> dict[str, Images]:
        """The rendered images and their translation away from what has been learned so far."""
        images = batch["image"].to(self.device)
        conditions = [self.model.encode_prompts([text]) for text in ("", self.token)]
        out = RenderedToReal(self.model).translate_latents(self.model.encode(images), *conditions)
        return {"image": images, "translated": self.model.decode(out)}

    def export(self, folder: Path) -> None:
        """Write `<token>.safetensors`: `{token: (v, d)}` as diffusers and A1111 read it; `clip_l`, `clip_g` (XL)."""
        values = [vectors.detach().cpu().contiguous() for vectors in self.vectors]
        names = [self.token] if len(values) == 1 else ["clip_l", "clip_g"]
        save_file(dict(zip(names, values, strict=True)), folder / f"{self.token.strip('<>')}.safetensors")

    def _loss(self, batch: ImageBatch, generator: Generator) -> Tensor:
        condition = encode_captions(self.model, [self.token] * len(batch["image"]), train=True)
        predict = partial(self.model.predict, condition=condition)
        latents = encode_images(self.encode, batch, "image")
        return denoising_loss(self.model, latents, predict, generator, self.timesteps)
