"""`run.json`: what was run, with which versions, for how long, and how much U-Net work it was."""

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from r2r.models.stable_diffusion import StableDiffusion
from r2r.provenance import run_record, write_json


class RunRecord(Callback):
    """Writes the record when training ends, well or not, with its state in the field `status`."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "run.json"
        self.config: dict[str, Any] = {}
        self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()
        self._write(trainer, pl_module, "running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the finished record."""
        self._write(trainer, pl_module, "interrupted" if trainer.interrupted else "done")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say in the record that the run was interrupted, or failed and why."""
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        status = "interrupted" if stopped else f"failed: {type(exception).__name__}: {exception}"
        self._write(trainer, pl_module, status)

    def _write(self, trainer: Trainer, pl_module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        model = pl_module.model
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        record = run_record(
            self.config,
            status=status,
            seconds=time.perf_counter() - self._start,
            steps=trainer.global_step,
            world_size=trainer.world_size,
            trained_parameters=trained,
            unet_sample_evals=model.sample_evals if isinstance(model, StableDiffusion) else 0,
            metrics=metrics,
            wandb_url=_wandb_url(trainer),
        )
        write_json(self.path, record)


def _wandb_url(trainer: Trainer) -> str | None:
    """Where W&B shows the run; None without W&B or an account."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return loggers[0].experiment.url if loggers else None
