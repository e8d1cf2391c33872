"""A checkpoint of the last step, which periodic checkpoints may miss: at the end, or where SIGTERM ended it."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class FinalCheckpoint(Callback):
    """Saves `step_<last>.ckpt` when training ends or must end, unless it is there. Before `EMA`: raw weights."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save on all ranks together."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where a cluster told the run to end; Lightning raises this between two steps, on all ranks."""
        if isinstance(exception, SIGTERMException):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        path = self.folder / f"step_{trainer.global_step:07d}.ckpt"
        if not trainer.strategy.broadcast(path.is_file()) and not trainer.fast_dev_run:
            trainer.save_checkpoint(path)
