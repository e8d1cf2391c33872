"""The result of a training run in the format others read: diffusers folders, safetensors files."""

import logging
import os
import shutil
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class Export(Callback):
    """Calls the task's `export(folder)` after training; the folder appears only when it is complete."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write beside the final place, then rename."""
        if not trainer.is_global_zero:
            return
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        pl_module.export(partial)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(partial, self.folder)
        log.info("exported to %s", self.folder)
