"""Train the feature network: garment category and texture, of rendered and photo images alike.

Both images of a scene enter every batch under the same labels, so nothing in the loss tells the domains apart; the
domain is never an input nor a label.
"""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Generator, Tensor
from torch.nn import functional as F

from r2r.models.feature_net import FeatureNet
from r2r.tasks.denoising import noise_generator
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory, stepwise
from r2r.types import Images, PairedBatch


class FeatureClassifier(LightningModule):
    """Cross-entropy of both labels on augmented pairs."""

    def __init__(
        self,
        model: FeatureNet,
        optimizer: OptimizerFactory,
        lr_scheduler: ScheduleFactory,
        seed: int = 0,
    ) -> None:
        """Receive built objects; `optimizer` and `lr_scheduler` are partials."""
        super().__init__()
        self.model, self.optimizer, self.lr_scheduler, self.seed = model, optimizer, lr_scheduler, seed

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Both domains in one batch, augmented."""
        generator = noise_generator(self, self.seed)
        images = augment(torch.cat([batch["rendered"], batch["photo"]]), generator)
        loss = sum(F.cross_entropy(*pair) for pair in zip(self.model(images), self._labels(batch, 2), strict=True))
        self.log("train/loss", loss, batch_size=len(images))
        return torch.as_tensor(loss)

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Accuracy of each label on each domain."""
        for domain, images in (("rendered", batch["rendered"]), ("photo", batch["photo"])):
            logits, labels = self.model(images), self._labels(batch, 1)
            for name, scores, label in zip(("category", "texture"), logits, labels, strict=True):
                hits = (scores.argmax(1) == label).float().mean()
                self.log(f"val/{domain}_{name}", hits, batch_size=len(images), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over the network, and a schedule stepped every step."""
        return stepwise(self.optimizer, self.lr_scheduler, self.model.parameters())

    @torch.no_grad()
    def preview(self, batch: PairedBatch) -> dict[str, Images]:
        """The images as the network sees them in training."""
        images = augment(batch["photo"], Generator().manual_seed(0))
        return {"rendered": batch["rendered"], "photo": batch["photo"], "augmented": images}

    def export(self, folder: Path) -> None:
        """Write the network (`FeatureNet.from_pretrained(folder)`)."""
        self.model.save_pretrained(folder)

    def _labels(self, batch: PairedBatch, copies: int) -> tuple[Tensor, Tensor]:
        categories = [self.model.categories.index(name) for name in batch["category"]]
        textures = [self.model.textures.index(name) for name in batch["texture"]]
        category, texture = (torch.tensor(values * copies, device=self.device) for values in (categories, textures))
        return category, texture


def augment(images: Images, generator: Generator) -> Images:
    """Mirror, shift (up to 8 px), exposure and colour cast of each image, and a light blur of a quarter of them."""
    count, device = len(images), generator.device
    chance = torch.rand(2, count, 1, 1, 1, generator=generator, device=device)
    colour = torch.rand(2, count, 3, 1, 1, generator=generator, device=device)
    images = torch.where(chance[0] < 0.5, images.flip(3), images)
    down, right = torch.randint(-8, 9, (2,), generator=generator, device=device).tolist()
    padded = F.pad(images, (8, 8, 8, 8), mode="replicate")
    images = padded[:, :, 8 + down : 8 + down + images.shape[2], 8 + right : 8 + right + images.shape[3]]
    images = torch.where(chance[1] < 0.25, F.avg_pool2d(images, 3, 1, padding=1, count_include_pad=False), images)
    return (images * (0.8 + 0.4 * colour[0]) + 0.2 * (colour[1] - 0.5)).clamp(-1, 1)
