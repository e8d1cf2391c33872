"""W&B without friction: online with an account, offline without one."""

import logging
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)


def wandb_logger(**options: Any) -> WandbLogger:
    """Lightning's logger; logs offline when neither `WANDB_MODE` nor a key (`WANDB_API_KEY`, netrc) is set."""
    if "WANDB_MODE" not in os.environ and not has_account():
        log.info("W&B: no account on this machine, logging offline; `wandb sync` uploads the run later")
        os.environ["WANDB_MODE"] = "offline"
    return WandbLogger(**options)


def has_account() -> bool:
    """Whether a W&B key is in the environment or in the netrc file."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return "WANDB_API_KEY" in os.environ or (netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8"))
