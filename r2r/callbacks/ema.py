"""Exponential moving average of what trains, kept by diffusers' `EMAModel` (warm-up included).

Lightning's `EMAWeightAveraging` copies the whole module and has no warm-up; this averages the trained parameters only.
"""

from typing import Any

from diffusers.training_utils import EMAModel
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from r2r.errors import InputError


class EMA(Callback):
    """Averages after every optimizer step; validation, previews and exports see the averaged weights."""

    def __init__(self, decay: float = 0.999, every: int = 1) -> None:
        """`decay` is that of one step; averaging only `every` so many steps costs less, with the decay of them all.

        Raises InputError when `every` is below 1.
        """
        if every < 1:
            raise InputError(f"callbacks.ema.every={every} must be at least 1")
        self.decay, self.every = decay, every
        self._ema: EMAModel | None = None
        self._state: dict[str, Any] | None = None
        self._last_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the present weights, or from the checkpoint's average.

        Raises InputError for weights that are shared out.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise InputError("callbacks=ema averages whole weights, and trainer=fsdp shares them out; leave one out")
        self._ema = EMAModel(_trained(pl_module), decay=self.decay**self.every, use_ema_warmup=True, foreach=True)
        if self._state is not None:
            self._ema.load_state_dict(self._state)
        self._ema.to(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a checkpoint holds is averaged already."""
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Average once for each optimizer step, or every few, however many batches it took."""
        if trainer.global_step != self._last_step and trainer.global_step % self.every == 0:
            self._last_step = trainer.global_step
            self.average.step(_trained(pl_module))

    @property
    def average(self) -> EMAModel:
        """The running average; there once fitting has started."""
        if self._ema is None:
            raise RuntimeError("EMA has no average before fitting starts")
        return self._ema

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the averaged weights."""
        if self._ema is not None:
            self.swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the raw weights."""
        if self._ema is not None:
            self.average.restore(_trained(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averaged weights in the model: what is exported is what was validated."""
        self.average.copy_to(_trained(pl_module))

    def swap_in(self, pl_module: LightningModule) -> None:
        """Put the averaged weights in, keeping the raw ones aside."""
        self.average.store(_trained(pl_module))
        self.average.copy_to(_trained(pl_module))

    def state_dict(self) -> dict[str, Any]:
        """The average, for the checkpoint (whose `state_dict` holds the raw weights)."""
        return {} if self._ema is None else self._ema.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until fitting starts, when the parameters are there."""
        self._state = state_dict or None


def _trained(pl_module: LightningModule) -> list[nn.Parameter]:
    return [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
