"""Unpaired translation as a Schrödinger bridge, cut into a few adversarial steps: UNSB.

*Unpaired Image-to-Image Translation via Neural Schrödinger Bridge* (ICLR 2024, arXiv:2305.15086). From a random
place of the bridge, reached without gradients, the generator guesses the end; a discriminator compares ends, an energy
estimates the entropy of the pair of both, and patches are compared as in CUT.

Deviations
- The generator: see `r2r.models.gan.bridge`; `model.released=true` is the released one, which ignores time.
- `lambda_sb` is 1, as in the published training commands; the released code's default is 0.1.
- `lambda_nce` is applied once; the released code applies it twice, which is the same at its 1.
- Source, second source and target walk the bridge together, and end in one pass; likewise the queries, and the keys.
- `num_evals` of a translation is between 1 and the number of timesteps; the released test writes all of them. Its
  authors note that more evaluations can translate too much.
- Steps are batches, as in `r2r.tasks.cut`, with the same notes on cropping. One time index for a batch, as released.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Generator, Tensor, nn

from r2r.errors import InputError
from r2r.models.gan.bridge import BridgeGenerator
from r2r.models.gan.export import save_generator
from r2r.models.gan.losses import gan_loss
from r2r.models.gan.patches import Draw, PatchContrast
from r2r.tasks.adversarial import compile_all, end_step, frozen, load_released, optimizers, update
from r2r.tasks.cut import NCE_LAYERS
from r2r.tasks.denoising import noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory
from r2r.types import Images, UnpairedBatch


@dataclass(frozen=True)
class Guessed:
    """Places on the bridge, with the ends guessed from them at time `index`."""

    index: int
    place: Images
    fake: Images
    second_place: Images  # of other source images
    second_fake: Images
    same: Images  # from the target's own bridge

    @property
    def pair(self) -> Float[Tensor, "b 6 h w"]:
        """Place and guessed end of the sources."""
        return torch.cat([self.place, self.fake], dim=1)

    @property
    def second_pair(self) -> Float[Tensor, "b 6 h w"]:
        """The same of the second sources."""
        return torch.cat([self.second_place, self.second_fake], dim=1)

    def detached(self) -> "Guessed":
        """The same without the way the guesses were made."""
        rest = {name: value.detach() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Guessed(index=self.index, **rest)


class UNSB(LightningModule):
    """Trains generator, patch sampler, discriminator and energy on unpaired images."""

    def __init__(
        self,
        model: BridgeGenerator,
        discriminator: nn.Module,
        energy: nn.Module,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        lambda_gan: float = 1.0,
        lambda_sb: float = 1.0,
        lambda_nce: float = 1.0,
        nce_layers: Sequence[int] = NCE_LAYERS,
        num_patches: int = 256,
        num_features: int = 256,
        temperature: float = 0.07,
        released_weights: str | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials.

        `released_weights` is a checkpoint folder of the released code; a generator from there needs `released=True`.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model, self.discriminator, self.energy = model, discriminator, energy
        self.contrast = PatchContrast(model.channels(nce_layers), num_patches, num_features, temperature)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.lambda_gan, self.lambda_sb, self.lambda_nce = lambda_gan, lambda_sb, lambda_nce
        self.nce_layers, self.seed = tuple(nce_layers), seed
        load_released(released_weights, {"G": model, "D": discriminator, "E": energy, "F": self.contrast.sampler})
        compile_all(compile, model, discriminator, energy)

    def training_step(self, batch: UnpairedBatch, batch_idx: int) -> None:
        """An update of discriminator, energy and generator each; what is random depends on seed and step alone."""
        if "second_source" not in batch:
            raise InputError("unsb needs a second source image for each; set data.second_source=true")
        source, target = batch["source"]["image"], batch["target"]["image"]
        images = torch.cat([source, batch["second_source"]["image"], target])
        chance = noise_generator(self, self.seed)
        index = int(torch.randint(self.model.bridge.num_timesteps, (), generator=chance, device=chance.device))
        with torch.no_grad():
            places = self.model.bridge.walk(images, lambda x, place: self.model.guess(x, place, chance), index, chance)
        made = self.guess_batch(places, index, self._codes(len(images), chance))
        discriminator = self.discriminator_loss(made, target)
        update(self, 1, discriminator)
        energy = self.energy_loss(made)
        update(self, 2, energy)
        codes = self._codes(2 * len(source), chance)
        losses = self.generator_losses(made, source, target, codes, self.contrast.draw(chance))
        update(self, 0, losses["generator"])
        end_step(self, {**losses, "discriminator": discriminator, "energy": energy}, len(source))

    def validation_step(self, batch: UnpairedBatch, batch_idx: int) -> Images | None:
        """The translations, for whoever measures them; the whole bridge, by a seed of the batch."""
        source = batch.get("source")
        if source is None:
            return None
        return self.model.translate(source["image"], Generator(self.device).manual_seed(batch_idx))

    def configure_optimizers(self) -> Any:
        """One optimizer for generator and sampler, one for the discriminator, one for the energy."""
        groups = [[self.model, self.contrast], [self.discriminator], [self.energy]]
        return optimizers(self.optimizer, self.lr_scheduler, groups)

    @torch.no_grad()
    def preview(self, batch: UnpairedBatch) -> dict[str, Images]:
        """Sources, and their translations after one evaluation and after all."""
        source = batch["source"]["image"].to(self.device)
        made = {f"{n} NFE": self.model.translate(source, num_evals=n) for n in (1, self.model.bridge.num_timesteps)}
        return {"source": source, **made}

    def export(self, folder: Path) -> None:
        """Write the generator, as `r2r.translate task=generator` reads it."""
        save_generator(self.model, folder)

    def guess_batch(self, places: Float[Tensor, "n 3 h w"], index: int, codes: Float[Tensor, "n d"]) -> Guessed:
        """Ends from places of source, second source and target, in that order, a third of the rows each."""
        time = torch.full((len(places),), index, device=places.device)
        fake, second_fake, same = self.model(places, time, codes)[0].chunk(3)
        place, second_place, _ = places.chunk(3)
        return Guessed(index, place, fake, second_place, second_fake, same)

    def discriminator_loss(self, made: Guessed, target: Images) -> Tensor:
        """Half the sum of the losses on guessed ends and on real images, both told the time."""
        time = self._time(made)
        fake = gan_loss(self.discriminator(made.fake.detach(), time), False)
        return 0.5 * (fake + gan_loss(self.discriminator(target, time), True))

    def energy_loss(self, made: Guessed) -> Tensor:
        """-E(u, u) + m + m^2, where m is the log of the sum of exp E(u, v) over batch and patches."""
        own, mixed = self._energies(made.detached())
        return -own + mixed + mixed.square()

    def generator_losses(
        self, made: Guessed, source: Images, target: Images, codes: Float[Tensor, "b2 d"], draw: Draw
    ) -> dict[str, Tensor]:
        """By name and without their weights, "generator" being the weighted sum; `codes` are of source and target."""
        losses = self.bridge_losses(made)
        time = torch.zeros(len(codes), dtype=torch.long, device=source.device)
        ends, starts = torch.cat([made.fake, made.same]), torch.cat([source, target])
        queries = self.model(ends, time, codes, self.nce_layers, encode_only=True)[1]
        with torch.no_grad():
            keys = self.model(starts, time, codes, self.nce_layers, encode_only=True)[1]
        for name, rows in (("nce", slice(None, len(source))), ("nce_identity", slice(len(source), None))):
            own, known = ([feature[rows] for feature in features] for features in (queries, keys))
            losses[name] = self.contrast(own, known, draw(known))
        contrast = (losses["nce"] + losses["nce_identity"]) / 2
        total = self.lambda_gan * losses["gan"] + self.lambda_sb * losses["sb"] + self.lambda_nce * contrast
        return losses | {"generator": total}

    def bridge_losses(self, made: Guessed) -> dict[str, Tensor]:
        """The adversarial loss "gan", and "sb": entropy by the energy, and the way from place to end (equation 10)."""
        bridge = self.model.bridge
        with frozen(self.discriminator, self.energy):
            adversarial = gan_loss(self.discriminator(made.fake, self._time(made)), True)
            own, mixed = self._energies(made)
        left = (bridge.num_timesteps - made.index) / bridge.num_timesteps
        way = (made.place - made.fake).float().square().mean()
        return {"gan": adversarial, "sb": bridge.tau * (way - left * (own - mixed))}

    def _energies(self, made: Guessed) -> tuple[Tensor, Tensor]:
        """The mean of E(u, u), and the log of the sum of exp E(u, v), in float32."""
        pair, time = made.pair, self._time(made)
        own = self.energy(torch.cat([pair, pair], dim=1), time)
        mixed = self.energy(torch.cat([pair, made.second_pair], dim=1), time)
        return own.float().mean(), mixed.float().flatten().logsumexp(0)

    def _time(self, made: Guessed) -> Tensor:
        return torch.full((len(made.fake),), made.index, device=made.fake.device)

    def _codes(self, count: int, chance: Generator) -> Tensor:
        return torch.randn(count, self.model.code_size, generator=chance, device=chance.device)
