"""Train an image autoencoder with a lightly regularised latent space, the first stage of latent diffusion.

High-Resolution Image Synthesis with Latent Diffusion Models (arXiv:2112.10752), section 3.1.

Deviations
- No perceptual and no adversarial loss: an L1 loss on pixels and on their differences along both axes keeps edges crisp
  without a pretrained network.
- Trained on random crops: the network is convolutional, so the small pictures teach it what the large ones need.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Generator, Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from r2r.models.stable_diffusion import StableDiffusion
from r2r.tasks.denoising import noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.types import ImageBatch, Images


class Autoencoder(LightningModule):
    """Trains the VAE of a Stable Diffusion pipeline and sets its `scaling_factor` to 1 / std of the latents."""

    def __init__(
        self,
        model: StableDiffusion,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        crop: int = 64,
        edge_weight: float = 0.25,
        kl_weight: float = 3e-4,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `crop` is the side of the training crops in pixels, a multiple of the VAE factor."""
        super().__init__()
        self.model, self.optimizer, self.lr_scheduler = model, optimizer, lr_scheduler
        self.crop, self.edge_weight, self.kl_weight, self.seed = crop, edge_weight, kl_weight, seed
        self.vae = model.vae.requires_grad_(True).train()
        # Over all ranks: each may see one domain alone.
        self.latent_mean, self.latent_square = MeanMetric(), MeanMetric()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Reconstruct one crop of every image, mirrored half of the time."""
        generator = noise_generator(self, self.seed)
        images = random_crop(batch["image"], self.crop, generator)
        posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        output = self.vae.decode(posterior.mean + posterior.std * noise).sample
        pixels, kl = (
            reconstruction_loss(output, images, self.edge_weight),
            kl_to_normal(posterior.mean, posterior.logvar),
        )
        loss = pixels + self.kl_weight * kl
        self.log_dict({"train/loss": loss, "train/kl": kl}, batch_size=len(images))
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """PSNR of whole images decoded from the posterior mean, and the spread of the latents."""
        images = batch["image"]
        latents = self.vae.encode(images).latent_dist.mean
        errors = (self.vae.decode(latents).sample.clamp(-1, 1) - images).square().flatten(1).mean(1)
        self.log("val/psnr", (10 * torch.log10(4 / errors)).mean(), batch_size=len(images), sync_dist=True)
        self.latent_mean.update(latents)
        self.latent_square.update(latents.square())

    def on_validation_epoch_end(self) -> None:
        """Give the latents unit variance from here on."""
        mean, square = self.latent_mean.compute(), self.latent_square.compute()
        self.latent_mean.reset()
        self.latent_square.reset()
        scaling_factor = (square - mean.square()).rsqrt().item()
        self.vae.register_to_config(scaling_factor=round(scaling_factor, 5))
        self.log("val/scaling_factor", scaling_factor)

    def configure_optimizers(self) -> Any:
        """The optimizer over the VAE, and a schedule stepped every step."""
        return stepwise(self.optimizer, self.lr_scheduler, self.vae.parameters())

    @torch.no_grad()
    def preview(self, batch: ImageBatch) -> dict[str, Images]:
        """Images beside their reconstructions."""
        images = batch["image"].to(self.device)
        output = self.vae.decode(self.vae.encode(images).latent_dist.mean).sample
        return {"image": images, "reconstruction": output.clamp(-1, 1)}

    def export(self, folder: Path) -> None:
        """Write the whole pipeline in diffusers format; `vae/` is what was trained."""
        self.model.save_pretrained(folder)


def random_crop(images: Images, crop: int, generator: Generator) -> Float[Tensor, "b 3 _ _"]:
    """One random window of `crop` x `crop` pixels, the same for all images; each image mirrored half of the time."""
    height, width = images.shape[2:]
    top, left = (
        int(torch.randint(side - crop + 1, (), generator=generator, device=generator.device))
        for side in (height, width)
    )
    window = images[:, :, top : top + crop, left : left + crop]
    mirror = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return torch.where(mirror[:, None, None, None], window.flip(3), window)


def reconstruction_loss(output: Images, target: Images, edge_weight: float) -> Float[Tensor, ""]:
    """Mean absolute error of pixels plus `edge_weight` times that of their horizontal and vertical differences."""
    error = output.float() - target.float()
    edges = F.l1_loss(error[..., 1:], error[..., :-1]) + F.l1_loss(error[..., 1:, :], error[..., :-1, :])
    return error.abs().mean() + edge_weight * edges


def kl_to_normal(mean: Float[Tensor, "b c h w"], logvar: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """KL divergence of a diagonal Gaussian to the unit one, in nats per latent element."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
