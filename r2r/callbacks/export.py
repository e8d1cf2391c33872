"""The result of a training run in the format others read: diffusers folders, safetensors files, and a model card."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from r2r.callbacks.model_card import PICTURE, model_card
from r2r.errors import InputError

log = logging.getLogger(__name__)


class Export(Callback):
    """Calls the task's `export(folder)` after training; the folder appears only when it is complete."""

    def __init__(self, folder: str, samples: str | None = None, push_to_hub: str | None = None) -> None:
        """Say where to.

        Args:
            folder: of the export, with a model card as its README.md.
            samples: folder of picture grids (`ImageGrid`), the last of which goes on the card.
            push_to_hub: repository ("user/name") that gets the export too, private if it is new; None: nothing leaves.
        """
        self.folder, self.samples, self.repository = Path(folder), samples, push_to_hub
        self.config: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises InputError when the hub is wanted and lets nobody in."""
        if self.repository is None or not trainer.is_global_zero:
            return
        from huggingface_hub import HfApi

        try:
            HfApi().whoami()
        except Exception as error:  # of many kinds: no token, a wrong one, no network, offline mode
            raise InputError(
                f"callbacks.export.push_to_hub={self.repository}: the hub lets nobody in "
                f"({str(error).splitlines()[0][:200]}); log in with `hf auth login` or set HF_TOKEN, or leave it out"
            ) from error

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write beside the final place, then rename."""
        if not trainer.is_global_zero:
            return
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        pl_module.export(partial)
        self._write_card(trainer, partial)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(partial, self.folder)
        log.info("exported to %s", self.folder)
        if self.repository is not None:
            self._push(self.repository)

    def _write_card(self, trainer: Trainer, folder: Path) -> None:
        if not self.config:
            return
        grids = sorted(Path(self.samples).glob("step_*.png")) if self.samples is not None else []
        if grids:
            shutil.copyfile(grids[-1], folder / PICTURE)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        made = {"steps": trainer.global_step, "processes": trainer.world_size}
        (folder / "README.md").write_text(model_card(folder, self.config, metrics, made), encoding="utf-8")

    def _push(self, repository: str) -> None:
        """What cannot be sent stays here; the training is done all the same."""
        from huggingface_hub import HfApi

        try:
            HfApi().create_repo(repository, private=True, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=self.folder)
        except Exception as error:  # of many kinds, as above
            log.warning("not sent (%s); by hand: hf upload %s %s", error, repository, self.folder)
        else:
            log.info("sent to %s", repository)
