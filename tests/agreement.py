"""A callback for the two-process test: each rank writes what it saw and what it ended with."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class RanksAgree(Callback):
    """Writes `rank_<r>.json` with the keys of the rank's batches and a hash of the trained weights."""

    def __init__(self, folder: str) -> None:
        self.folder, self.keys = Path(folder), list[str]()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Note the keys."""
        self.keys += batch["key"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hash the weights, bit for bit."""
        digest = hashlib.sha256()
        for parameter in pl_module.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        content = {"weights": digest.hexdigest(), "keys": self.keys}
        (self.folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(content))
