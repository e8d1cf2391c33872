"""Distances of sets, as KID and FID, during training: what validation makes against images of the target domain."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, distributed

from r2r.errors import InputError
from r2r.metrics import SetScore


class ValidationRealism(Callback):
    """Logs each score as `val/<name>` for tasks whose `validation_step` returns translations, or that can `draw`.

    Translations are compared with the batch's targets, what is drawn with the batch's images.
    Every rank describes its own images; features of all ranks are gathered before the distance is computed, on every
    rank alike, so that none waits for another. A rank's repeated last image (see `ValidationSampler`) counts twice.
    """

    def __init__(self, scores: Mapping[str, SetScore]) -> None:
        self.scores = dict(scores)
        self._features: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._features = {name: ([], []) for name in self.scores}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        *args: Any,
    ) -> None:
        """Describe what was made and what it is to be like; either may be missing once its domain is through.

        Raises InputError for a task that makes nothing.
        """
        pair = _made_and_real(pl_module, outputs, batch, batch_idx)
        for name, score in self.scores.items():
            for kept, images in zip(self._features[name], pair, strict=True):
                if images is not None:
                    kept.append(score.backbone(images.float().clamp(-1, 1)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather and log; nothing where a set has fewer than two images."""
        for name, score in self.scores.items():
            outputs, target = (_gathered(kept) for kept in self._features[name])
            if min(len(outputs), len(target)) > 1 and not trainer.sanity_checking:
                pl_module.log(f"val/{name}", score.estimate(outputs, target, False).value, rank_zero_only=True)


def _made_and_real(
    task: Any, outputs: Tensor | None, batch: dict[str, Any], batch_idx: int
) -> tuple[Tensor | None, Tensor | None]:
    if "target" in batch:
        return outputs, None if batch["target"] is None else batch["target"]["image"]
    if not hasattr(task, "draw"):
        raise InputError(
            f"callbacks.realism has nothing to measure: {type(task).__name__} neither translates nor draws"
        )
    return task.draw(batch, batch_idx), batch["image"]


def _gathered(kept: list[Tensor]) -> Tensor:
    """The features of all ranks, in the order of the ranks."""
    if not distributed.is_available() or not distributed.is_initialized():
        return torch.cat(kept) if kept else torch.empty(0, 0)
    parts: list[list[Tensor]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, kept)
    together = [features for part in parts for features in part]
    return torch.cat(together) if together else torch.empty(0, 0)
