"""The optimizer and schedule of a task, in the form Lightning asks for."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer], Any]


def stepwise(
    optimizer: OptimizerFactory, lr_scheduler: ScheduleFactory, parameters: Iterable[nn.Parameter]
) -> dict[str, Any]:
    """The optimizer over `parameters`, its learning rate scheduled by optimizer steps rather than epochs."""
    built = optimizer(list(parameters))
    return {"optimizer": built, "lr_scheduler": {"scheduler": lr_scheduler(built), "interval": "step"}}
