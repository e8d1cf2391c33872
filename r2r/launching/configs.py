"""A job's own config: composed and resolved once by the launcher, so that every process of the job reads the same.

A process that composed again would name another folder (`${now:}`) and, below `--multirun`, start the sweep once more.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from r2r.errors import InputError
from r2r.launching.jobs import Job
from r2r.launching.pool import device_count

NAME = "job"  # of the config in the job's folder, beside what the job writes


@dataclass(frozen=True)
class Plan:
    """One job as the sweep composed it: plain containers, everything resolved."""

    number: int
    overrides: list[str]
    folder: Path  # absolute
    module: str
    task: dict[str, Any]
    hydra: dict[str, Any]  # how the job logs, which environment it sets
    records: dict[str, str] = field(default_factory=dict)  # further files of its folder


def make_job(plan: Plan, available: int) -> Job:
    """The job of a plan on a pool of so many devices; nothing is written yet.

    Raises:
        InputError: it asks for more devices than the pool has, or for several machines.
    """
    job = Job(plan.number, plan.overrides, str(plan.folder), plan.module, [], str(Path.cwd()))
    if isinstance(trainer := plan.task.get("trainer"), dict) and "devices" in trainer:
        # ids are the launcher's: inside the job, the devices it was given are counted from 0
        trainer["devices"] = device_count(trainer["devices"], available)
    return settled(job, plan.task, available)


def write_config(plan: Plan, job: Job) -> None:
    """Write `job.yaml` and what else the plan holds into the job's folder."""
    folder = Path(job.folder)
    for name, text in plan.records.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    hydra = {**plan.hydra, "run": {"dir": job.folder}, "output_subdir": None}
    content = {
        "defaults": [{"override hydra/job_logging": "disabled"}, "_self_"],  # the logging below, and nothing else
        "hydra": _escaped(hydra),
        **_escaped(plan.task),
    }
    title = " ".join(" ".join(job.overrides).split())
    text = OmegaConf.to_yaml(OmegaConf.create(content))
    (folder / f"{NAME}.yaml").write_text(f"# {title}\n{text}", encoding="utf-8")


def read_config(job: Job) -> dict[str, Any]:
    """The job's config as it is now: whoever mends a failed sweep may have edited it.

    Raises:
        InputError: the file is gone, or the whole sweep lies somewhere else now.
    """
    path = Path(job.folder) / f"{NAME}.yaml"
    if not path.is_file():
        raise InputError(f"{path} is gone: a sweep can go on only in the folder it was started in")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))


def check_same(plan: Plan, job: Job) -> None:
    """Raise InputError where a job that was begun has other settings than the plan, naming the first of them."""
    now = _flat(_escaped(plan.task))
    before = _flat({key: value for key, value in read_config(job).items() if key not in ("defaults", "hydra")})
    changed = [key for key in {**now, **before} if now.get(key) != before.get(key)]
    if changed:
        key = changed[0]
        more = f" and {len(changed) - 1} more settings" if len(changed) > 1 else ""
        raise InputError(
            f"{job.folder} was made with {key}={before.get(key)}, now it is {now.get(key)}{more}; choose another "
            "output folder, or remove that one (and what was made from it) to make it anew"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = (_flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def settled(job: Job, config: Mapping[str, Any], available: int) -> Job:
    """The job with what its config decides: how many devices it takes, how it is started, what is read from it."""
    trainer = config.get("trainer") or {}
    slots = device_count(trainer.get("devices", 1), available)
    if slots > available:
        raise InputError(
            f"job {job.job} asks for trainer.devices={slots}, but the pool has {available}; "
            f"set trainer.devices to {available} or less, or widen the pool with hydra.launcher.devices"
        )
    if trainer.get("num_nodes", 1) != 1:
        raise InputError(
            f"job {job.job} asks for trainer.num_nodes={trainer['num_nodes']}, but the pool is one machine; "
            "use hydra/launcher=slurm"
        )
    return replace(job, slots=slots, command=command(job, slots), optimized_metric=config.get("optimized_metric"))


def command(job: Job, processes: int) -> list[str]:
    """How the job is started by hand, too.

    Below torchrun, Lightning leaves starting processes alone; by itself it would repeat the command line of the sweep.
    """
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *several, "-m", job.module, "--config-path", job.folder, "--config-name", NAME]


def _escaped(value: Any) -> Any:
    """Strings that are read as they are: a `${` that is left after resolving is meant literally."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: 2 * found.group(1) + r"\${", value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value
