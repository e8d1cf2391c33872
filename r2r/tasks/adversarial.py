"""What the adversarial tasks share: their updates, by hand and the same on any number of ranks.

Lightning counts every optimizer step. A step of a run is one batch here: only the generator's optimizer steps through
Lightning, so `trainer.max_steps`, checkpoints, schedules and logs count batches, however many optimizers there are.

Several backward passes of one forward pass do not fit DDP's hooks, which average gradients once. The gradients of each
update are therefore averaged here, all at once, and the strategies need no search for unused parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from r2r.errors import InputError
from r2r.models.gan.checkpoints import load_official
from r2r.tasks.optimization import OptimizerFactory, ScheduleFactory

Loss = Mapping[str, Tensor]
GENERATOR = 0  # the optimizer that counts


def optimizers(
    optimizer: OptimizerFactory, lr_scheduler: ScheduleFactory, groups: Sequence[Sequence[nn.Module]]
) -> list[dict[str, Any]]:
    """One optimizer with its schedule for each group of networks, the generator's first."""
    built = [optimizer([p for network in group for p in network.parameters()]) for group in groups]
    return [{"optimizer": each, "lr_scheduler": lr_scheduler(each)} for each in built]


def update(task: LightningModule, number: int, loss: Tensor) -> None:
    """Backward, gradients averaged over ranks, and a step of optimizer `number`."""
    wrapped: Any = task.optimizers()[number]  # pyright: ignore[reportIndexIssue]
    wrapped.zero_grad()
    network = task.trainer.model
    with network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext():
        task.manual_backward(loss)
    parameters = [p for group in wrapped.param_groups for p in group["params"] if p.grad is not None]
    _average(task, parameters)
    (wrapped if number == GENERATOR else wrapped.optimizer).step()
    torch.clear_autocast_cache()  # it holds copies of the weights as they were


def end_step(task: LightningModule, losses: Loss, batch_size: int) -> None:
    """Move the schedules on, and log; the loss called "generator" is what the progress bar shows."""
    schedules = task.lr_schedulers()
    for schedule in schedules if isinstance(schedules, list) else [schedules]:
        schedule.step()  # pyright: ignore
    for name, value in losses.items():
        shown = name == "generator"
        task.log("train/loss" if shown else f"train/{name}", value.detach(), batch_size=batch_size)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through these networks to what they are given, and not to their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def load_released(folder: str | Path | None, networks: Mapping[str, nn.Module]) -> None:
    """Load `latest_net_G.pth`, `latest_net_D.pth`, ... of the released code, those that are in the folder.

    Raises:
        InputError: no generator there, or weights that do not fit.
    """
    if folder is None:
        return
    files = {name: Path(folder) / f"latest_net_{name}.pth" for name in networks}
    if not files["G"].is_file():
        raise InputError(f"task.released_weights={str(folder)!r} holds no latest_net_G.pth; give a checkpoint folder")
    for name, file in files.items():
        if file.is_file():
            load_official(networks[name], file)


def compile_all(wanted: bool, *networks: nn.Module) -> None:
    """Compile networks in place, their names of weights unchanged."""
    for network in networks if wanted else ():
        network.compile()


def _average(task: LightningModule, parameters: Sequence[nn.Parameter]) -> None:
    """The gradients of all ranks, averaged in one call."""
    if task.trainer.world_size == 1 or not parameters:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    mean = task.trainer.strategy.reduce(flat, reduce_op="mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
