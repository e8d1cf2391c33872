"""Which devices a sweep has, and how many of them a job takes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from r2r.errors import InputError


class Pool:
    """Slots that jobs take and give back. An id given twice is a device that two jobs may share."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self.free = list(ids)

    @property
    def size(self) -> int:
        """The most that one job can take."""
        return len(set(self.ids))

    def take(self, count: int) -> list[str] | None:
        """So many different devices, the least used first, or None while they are not free."""
        chosen = sorted(dict.fromkeys(self.free), key=lambda name: -self.free.count(name))[:count]
        if len(chosen) < count:
            return None
        for name in chosen:
            self.free.remove(name)
        return chosen

    def give(self, ids: Sequence[str]) -> None:
        """Back into the pool."""
        self.free = sorted([*self.free, *ids], key=self.ids.index)


def device_ids(setting: Any, cpu: bool) -> list[str]:
    """The slots of a pool: ids of GPUs, or `cpu:<n>` for processes without one.

    Args:
        setting: `hydra.launcher.devices`. None: all visible GPUs, or one CPU slot where there is none; a number: that
            many of them; a list of GPU ids: these (twice the same id: two jobs share the GPU).
        cpu: no job wants a GPU, so the machine's are not asked for.

    Raises:
        InputError: more GPUs than there are, or no number and no list.
    """
    if isinstance(setting, Sequence) and not isinstance(setting, str) and setting:
        return [str(name) for name in setting]
    if setting is not None and (not isinstance(setting, int) or setting < 1):
        raise InputError(f"hydra.launcher.devices={setting} is no pool; give a number of slots or ids like [0,1]")
    gpus = [] if cpu else visible_gpus()
    if not gpus:
        return [f"cpu:{slot}" for slot in range(setting or 1)]
    if setting is not None and setting > len(gpus):
        raise InputError(
            f"hydra.launcher.devices={setting}, but {len(gpus)} GPUs are visible; "
            "for jobs on CPUs add trainer.accelerator=cpu, to share GPUs list ids twice: [0,0]"
        )
    return gpus[:setting]


def visible_gpus() -> list[str]:
    """Ids of the GPUs this process may use, as `CUDA_VISIBLE_DEVICES` writes them."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if given is None else [name.strip() for name in given.split(",")]
    return names[:count]


def device_count(devices: Any, available: int) -> int:
    """How many processes Lightning's `trainer.devices` asks for, where "auto" and -1 mean all that are available.

    Raises:
        InputError: no form of `trainer.devices` at all.
    """
    if devices is None or devices in ("auto", -1, "-1"):
        return available
    if isinstance(devices, str) and not devices.isdigit():
        devices = [name for name in devices.split(",") if name.strip()]
    count = len(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else int(devices)
    if count < 1:
        raise InputError(f"trainer.devices={devices}: give a number of devices from 1 on, a list of them, or auto")
    return count


def uses_cpu(config: Mapping[str, Any]) -> bool:
    """Whether a job says that it needs no GPU."""
    trainer = config.get("trainer") or {}
    return trainer.get("accelerator") == "cpu" or config.get("device") == "cpu"
