"""A checkpoint of the last step, which periodic checkpoints may miss."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer


class FinalCheckpoint(Callback):
    """Saves `step_<last>.ckpt` when training ends, unless it is there already. Stands before `EMA`: raw weights."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save on all ranks together."""
        path = self.folder / f"step_{trainer.global_step:07d}.ckpt"
        if not trainer.strategy.broadcast(path.is_file()) and not trainer.fast_dev_run:
            trainer.save_checkpoint(path)
