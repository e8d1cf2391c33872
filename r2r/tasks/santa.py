"""Unpaired translation along the shortest path between two domains: SANTA.

*Unpaired Image-to-Image Translation with Shortest Path Regularization* (CVPR 2023). One latent is decoded at any place
of a path from source to target; what the decoder makes must change slowly along the way.

Deviations
- Any batch size: the released code fails above one. Each image has its own stretch of the path.
- All decodings of a batch run together; the released code decodes five times.
- The released training script ends at its first evaluation, a call with one argument too many; here validation is
  Lightning's.
- Steps are batches, as in `r2r.tasks.cut`, with the same notes on cropping.
- `lambda_path` is the code's default, 0.01; the released command for Cityscapes has 0.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Generator, Tensor, nn

from r2r.models.gan.adain import PathGenerator
from r2r.models.gan.export import save_generator
from r2r.models.gan.losses import gan_loss
from r2r.tasks.adversarial import compile_all, end_step, frozen, load_released, optimizers, update
from r2r.tasks.denoising import noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory
from r2r.types import Images, UnpairedBatch

PATH_LAYERS = (0, 3, 6, 10, 14)
INTERVAL = (0.05, 0.10)  # half the length of a stretch of the path


@dataclass(frozen=True)
class Decoded:
    """What was made of a batch: the mean latents of both domains, and the images and features from noisy ones."""

    means: Float[Tensor, "b2 c zh zw"]
    latents: Float[Tensor, "b c zh zw"]  # noisy, of the source
    fake: Images
    reconstruction: Images
    same: Images


class SANTA(LightningModule):
    """Trains path generator and discriminator on unpaired images."""

    def __init__(
        self,
        model: PathGenerator,
        discriminator: nn.Module,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        lambda_gan: float = 1.0,
        lambda_reconstruction: float = 5.0,
        lambda_identity: float = 5.0,
        lambda_kl: float = 0.01,
        lambda_path: float = 0.01,
        noise_std: float = 1.0,
        path_layers: Sequence[int] = PATH_LAYERS,
        released_weights: str | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials.

        `released_weights` is a checkpoint folder of the released code.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model, self.discriminator = model, discriminator
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.weights = {"gan": lambda_gan, "reconstruction": lambda_reconstruction, "identity": lambda_identity}
        self.weights |= {"kl": lambda_kl, "path": lambda_path}
        self.noise_std, self.path_layers, self.seed = noise_std, tuple(path_layers), seed
        load_released(released_weights, {"G": model, "D": discriminator})
        compile_all(compile, model, discriminator)

    def training_step(self, batch: UnpairedBatch, batch_idx: int) -> None:
        """One update of the discriminator, one of the generator; what is random depends on seed and step alone."""
        source, target = batch["source"]["image"], batch["target"]["image"]
        chance = noise_generator(self, self.seed)
        made = self.decode_batch(source, target, chance)
        discriminator = self.discriminator_loss(made, target)
        update(self, 1, discriminator)
        losses = self.generator_losses(made, source, target, *draw_stretch(len(source), chance))
        update(self, 0, losses["generator"])
        end_step(self, {**losses, "discriminator": discriminator}, len(source))

    def validation_step(self, batch: UnpairedBatch, batch_idx: int) -> Images | None:
        """The translations, for whoever measures them."""
        source = batch.get("source")
        return None if source is None else self.model.translate(source["image"])

    def configure_optimizers(self) -> Any:
        """One optimizer for the generator, one for the discriminator."""
        return optimizers(self.optimizer, self.lr_scheduler, [[self.model], [self.discriminator]])

    @torch.no_grad()
    def preview(self, batch: UnpairedBatch) -> dict[str, Images]:
        """Sources, half of the way, and their translations."""
        source = batch["source"]["image"].to(self.device)
        latents = self.model.encode(source)
        half = self.model.decode(latents, torch.full((len(source),), 0.5, device=source.device))[0]
        return {"source": source, "half way": half, "translated": self.model.translate(source)}

    def export(self, folder: Path) -> None:
        """Write the generator, as `r2r.translate task=generator` reads it."""
        save_generator(self.model, folder)

    def decode_batch(
        self, source: Images, target: Images, chance: Generator | None = None, noise: Tensor | None = None
    ) -> Decoded:
        """Encode both, add noise (drawn, or given), decode the source at both ends and the target at its own."""
        count, means = len(source), self.model.encode(torch.cat([source, target]))
        if noise is None:
            noise = torch.randn(means.shape, generator=chance, device=means.device).to(means)
        noisy = means + self.noise_std * noise
        latents = noisy[:count]
        place = torch.zeros(3 * count, device=means.device)
        place[count:] = 1
        images = self.model.decode(torch.cat([latents, noisy]), place)[0]
        reconstruction, fake, same = images.split(count)
        return Decoded(means, latents, fake, reconstruction, same)

    def discriminator_loss(self, made: Decoded, target: Images) -> Tensor:
        """Half the sum of the losses on translations and on real images."""
        fake = gan_loss(self.discriminator(made.fake.detach()), False)
        return 0.5 * (fake + gan_loss(self.discriminator(target), True))

    def generator_losses(
        self, made: Decoded, source: Images, target: Images, centre: Float[Tensor, " b"], half: Float[Tensor, " b"]
    ) -> dict[str, Tensor]:
        """By name and without their weights, "generator" being the weighted sum."""
        with frozen(self.discriminator):
            losses = {"gan": gan_loss(self.discriminator(made.fake), True)}
        losses["reconstruction"] = (made.reconstruction - source).abs().mean()
        losses["identity"] = (made.same - target).abs().mean()
        losses["kl"] = made.means.square().mean()
        losses["path"] = self.path_energies(made.latents, centre, half).mean()
        return losses | {"generator": torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()}

    def path_energies(
        self, latents: Float[Tensor, "b c zh zw"], centre: Float[Tensor, " b"], half: Float[Tensor, " b"]
    ) -> Float[Tensor, " l"]:
        """The mean squared speed of each path layer between two places, [centre - half, centre + half] in [0, 1].

        The distance is taken as 0.1 at least, as released, which weakens the penalty near the ends.
        """
        first, second = (centre + half).clamp(0, 1), (centre - half).clamp(0, 1)
        places, count = torch.cat([first, second]), len(latents)
        features = self.model.decode(latents.repeat(2, 1, 1, 1), places, self.path_layers)[1]
        distance = (first - second).clamp(min=0.1)[:, None, None, None]
        return torch.stack([((f[:count] - f[count:]).float() / distance).square().mean() for f in features])


def draw_stretch(count: int, chance: Generator) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Centres in [0, 1] and half lengths in [0.05, 0.10], one for each image."""
    drawn = torch.rand(2, count, generator=chance, device=chance.device)
    return drawn[0], INTERVAL[0] + (INTERVAL[1] - INTERVAL[0]) * drawn[1]
