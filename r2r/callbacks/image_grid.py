"""Pictures of what the model does, from step 0, always of the same validation images."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torchvision.utils import make_grid, save_image


class ImageGrid(Callback):
    """Saves the task's `preview(batch)` as a grid, one column for each entry, as `samples/step_0000000.png`."""

    def __init__(self, folder: str, num_images: int = 6) -> None:
        self.folder, self.num_images = Path(folder), num_images
        self._batch: dict[str, Any] | None = None

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int, *args: Any
    ) -> None:
        """Keep the first images of the first batch."""
        if batch_idx == 0:
            self._batch = first(batch, self.num_images)

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, save, and hand to W&B where there is one."""
        if self._batch is None:
            return
        columns = pl_module.preview(self._batch)  # on all ranks: a network that is shared out needs them all
        if not trainer.is_global_zero:
            return
        rows = torch.stack([column.float().cpu() for column in columns.values()], dim=1).flatten(0, 1)
        grid = make_grid(rows, nrow=len(columns), normalize=True, value_range=(-1, 1))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:07d}.png"
        save_image(grid, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("preview", [str(path)], caption=[" | ".join(columns)])


def first(batch: dict[str, Any], count: int) -> dict[str, Any]:
    """The first `count` entries of everything in a batch, whose entries may be batches themselves."""
    return {key: first(part, count) if isinstance(part, dict) else part[:count] for key, part in batch.items()}
