"""One progress bar over the whole run, counted in optimizer steps, with the time that is left.

Lightning's bars restart with every epoch, which for step-based training on small data says nothing about the end.
"""

import logging
import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

log = logging.getLogger(__name__)

READ_EVERY = 1.0  # seconds; reading the loss has the device finish what it does


class StepProgress(Callback):
    """A rich bar on a terminal; a log line every tenth of the run elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start = (0, 0.0)  # step and clock when this process began
        self._read = 0.0  # clock when the loss was read

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, from the step that was resumed at."""
        self._start = (trainer.global_step, time.perf_counter())
        if not trainer.is_global_zero:
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Remaining()
        self._bar = Progress(*columns, TextColumn("{task.fields[loss]}"))
        if self._bar.console.is_terminal:
            self._bar.start()
        self._task = self._bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step, loss="")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Advance to the present step."""
        if self._bar is None:
            return
        step, total, now = trainer.global_step, trainer.max_steps, time.perf_counter()
        shown = self._bar.console.is_terminal
        self._bar.update(self._task, completed=step)
        due = now - self._read >= READ_EVERY if shown else step % max(1, total // 10) == 0
        if not due:
            return
        self._read = now
        loss = f"loss {float(trainer.callback_metrics.get('train/loss', float('nan'))):.4f}"
        self._bar.update(self._task, loss=loss)
        if not shown:
            first, clock = self._start
            left = (now - clock) / max(1, step - first) * (total - step)
            log.info("step %d of %d, %s, %.0f s left", step, total, loss, left)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar down, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
