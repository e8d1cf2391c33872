"""Unpaired translation by patchwise contrast: CUT and FastCUT.

*Contrastive Learning for Unpaired Image-to-Image Translation* (arXiv:2007.15651, ECCV 2020): a patch of the translation
must be recognised, among other patches, as that of its own source. FastCUT is `identity=false lambda_nce=10
flip_equivariance=true`, with a shorter run.

Deviations
- The discriminator is updated first, then generator and patch sampler together, as in the released code; of the last
  two, one optimizer holds both, which for Adam is the same.
- The encoder is not run again on what the generator has just encoded: the keys of CUT come from its own forward pass,
  queries of translation and identity share one. 2 forward passes and 2 halves for a pair, released: 2 and 4.
- Steps are batches; the released code counts epochs (400 in CUT, 200 in FastCUT) of its larger domain.
- No image pool, as in the released defaults. The released code crops at random out of 286 pixels for 256; here the
  data decides (`data.horizontal_flip`, `data.resolution=286 data.random_crop=256`), by default without crops.
- Batches larger than one: negatives come from the same image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from r2r.models.gan.export import save_generator
from r2r.models.gan.losses import gan_loss
from r2r.models.gan.patches import Draw, PatchContrast
from r2r.models.gan.resnet import ResnetGenerator
from r2r.tasks.adversarial import compile_all, end_step, frozen, load_released, optimizers, update
from r2r.tasks.denoising import noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory
from r2r.types import Images, UnpairedBatch

NCE_LAYERS = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class Translated:
    """What the generator made of a batch, and the features of what it was given."""

    fake: Images
    same: Images | None  # the target images through the generator, for the identity loss
    source_keys: list[Tensor]
    target_keys: list[Tensor]
    flipped: bool


class CUT(LightningModule):
    """Trains generator, patch sampler and discriminator on unpaired images."""

    def __init__(
        self,
        model: ResnetGenerator,
        discriminator: nn.Module,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        lambda_gan: float = 1.0,
        lambda_nce: float = 1.0,
        identity: bool = True,
        flip_equivariance: bool = False,
        nce_layers: Sequence[int] = NCE_LAYERS,
        num_patches: int = 256,
        num_features: int = 256,
        temperature: float = 0.07,
        released_weights: str | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials.

        `identity` halves the contrastive loss and adds that of target images to themselves; `flip_equivariance` mirrors
        half of the batches before the generator. `released_weights` is a checkpoint folder of the released code.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model, self.discriminator = model, discriminator
        self.contrast = PatchContrast(model.channels(nce_layers), num_patches, num_features, temperature)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.lambda_gan, self.lambda_nce = lambda_gan, lambda_nce
        self.identity, self.flip_equivariance = identity, flip_equivariance
        self.nce_layers, self.seed = tuple(nce_layers), seed
        load_released(released_weights, {"G": model, "D": discriminator, "F": self.contrast.sampler})
        compile_all(compile, model, discriminator)

    def training_step(self, batch: UnpairedBatch, batch_idx: int) -> None:
        """One update of the discriminator, one of the generator; what is random depends on seed and step alone."""
        source, target = batch["source"]["image"], batch["target"]["image"]
        chance = noise_generator(self, self.seed)
        flip = self.flip_equivariance and bool(torch.rand((), generator=chance, device=chance.device) < 0.5)
        made = self.translate_batch(source, target, flip)
        discriminator = self.discriminator_loss(made, target)
        update(self, 1, discriminator)
        losses = self.generator_losses(made, self.contrast.draw(chance))
        update(self, 0, losses["generator"])
        end_step(self, {**losses, "discriminator": discriminator}, len(source))

    def validation_step(self, batch: UnpairedBatch, batch_idx: int) -> Images | None:
        """The translations, for whoever measures them."""
        source = batch.get("source")
        return None if source is None else self.model.translate(source["image"])

    def configure_optimizers(self) -> Any:
        """One optimizer for generator and sampler, one for the discriminator."""
        return optimizers(self.optimizer, self.lr_scheduler, [[self.model, self.contrast], [self.discriminator]])

    @torch.no_grad()
    def preview(self, batch: UnpairedBatch) -> dict[str, Images]:
        """Sources and their translations."""
        source = batch["source"]["image"].to(self.device)
        return {"source": source, "translated": self.model.translate(source)}

    def export(self, folder: Path) -> None:
        """Write the generator, as `r2r.translate task=generator` reads it."""
        save_generator(self.model, folder)

    def translate_batch(self, source: Images, target: Images, flip: bool = False) -> Translated:
        """One forward pass of all that is translated."""
        given = source.flip(3) if flip else source
        out, keys = self.model(torch.cat([given, target]) if self.identity else given, self.nce_layers)
        count = len(source)
        fake, same = out[:count], out[count:] if self.identity else None
        source_keys = [key[:count].detach() for key in keys]
        if flip:
            with torch.no_grad():
                source_keys = self.model(source, self.nce_layers, encode_only=True)[1]
        return Translated(fake, same, source_keys, [key[count:].detach() for key in keys], flip)

    def discriminator_loss(self, made: Translated, target: Images) -> Tensor:
        """Half the sum of the losses on translations and on real images."""
        fake = gan_loss(self.discriminator(made.fake.detach()), False)
        return 0.5 * (fake + gan_loss(self.discriminator(target), True))

    def generator_losses(self, made: Translated, draw: Draw) -> dict[str, Tensor]:
        """By name, "generator" being their weighted sum; contrastive ones contain `lambda_nce`."""
        with frozen(self.discriminator):
            losses = {"gan": self.lambda_gan * gan_loss(self.discriminator(made.fake), True)}
        images = made.fake if made.same is None else torch.cat([made.fake, made.same])
        queries = self.model(images, self.nce_layers, encode_only=True)[1]
        count = len(made.fake)
        own = [query[:count].flip(3) if made.flipped else query[:count] for query in queries]
        losses["nce"] = contrast = self.lambda_nce * self.contrast(own, made.source_keys, draw(made.source_keys))
        if made.same is not None:
            same, keys = [query[count:] for query in queries], made.target_keys
            losses["nce_identity"] = self.lambda_nce * self.contrast(same, keys, draw(keys))
            contrast = (contrast + losses["nce_identity"]) / 2
        return losses | {"generator": losses["gan"] + contrast}
