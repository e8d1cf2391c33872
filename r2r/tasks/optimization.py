"""The optimizer and schedule of a task, in the form Lightning asks for."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Trained = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # parameters, or groups of them as torch takes them
OptimizerFactory = Callable[[Any], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer], Any]


def stepwise(optimizer: OptimizerFactory, lr_scheduler: ScheduleFactory, parameters: Trained) -> dict[str, Any]:
    """The optimizer over `parameters`, its learning rate scheduled by optimizer steps rather than epochs.

    A fused one lets gradients be unscaled before its step, as others do, and so be clipped: by its own way, within the
    step, Lightning would refuse to clip in mixed precision, in bfloat16 too, where nothing is scaled.
    """
    built = optimizer(list(parameters))
    built._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
    return {"optimizer": built, "lr_scheduler": {"scheduler": lr_scheduler(built), "interval": "step"}}


def linear_decay(epoch: int, constant: int, decay: int, first: int = 1) -> float:
    """CUT's factor of the learning rate: 1 for `constant` epochs, then falling to 1 / (decay + 1) in the last.

    `epoch` counts from 0, `first` is the number that the released code gives to that epoch. Beyond the end it stays at
    0, where the released formula turns negative.
    """
    return max(0.0, 1.0 - max(0, epoch + first - constant) / (decay + 1))


def constant_then_linear(
    optimizer: torch.optim.Optimizer, num_training_steps: int, constant_share: float = 0.5
) -> torch.optim.lr_scheduler.LambdaLR:
    """CUT's schedule by steps instead of epochs: constant for a share of the run, then `linear_decay`."""
    constant = round(constant_share * num_training_steps)
    decay = num_training_steps - constant
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_decay(step, constant, decay))
