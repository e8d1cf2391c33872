"""A sweep from its first job to its last, going on with one that was not finished, and jobs that follow a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from r2r.errors import InputError
from r2r.launching.configs import NAME, Plan, check_same, make_job, read_config, settled, write_config
from r2r.launching.jobs import Job, Journal, read_jobs
from r2r.launching.pool import Pool, device_ids, uses_cpu
from r2r.launching.runner import Work, run_jobs


def launch(folder: Path, plans: Sequence[Plan], devices: Any = None) -> list[Job]:
    """Run the jobs of a new sweep, or further jobs of one in the same folder; returns them as they ended.

    Raises:
        InputError: before any job starts: a job that does not fit the pool, or a folder that holds these jobs already.
        KeyboardInterrupt: after the jobs have been told to end, and ended.
    """
    pool = Pool(device_ids(devices, cpu=all(uses_cpu(plan.task) for plan in plans)))
    jobs = [make_job(plan, pool.size) for plan in plans]
    with Journal(folder) as journal:
        if taken := sorted(read_jobs(folder).keys() & {job.job for job in jobs}):
            raise InputError(
                f"{folder} holds job {taken[0]} of another sweep already; go on with that one by "
                f"`python -m r2r.sweep resume={folder}`, or choose another hydra.sweep.dir"
            )
        for plan, job in zip(plans, jobs, strict=True):
            write_config(plan, job)
        return run_jobs(journal, jobs, pool)


def complete(folder: Path, plans: Sequence[Plan], devices: Any = None, work: Work | None = None) -> list[Job]:
    """Run those of the plans that are not done in a folder, whatever else was done there; returns them as they ended.

    A plan is known by its folder and keeps its number; a job that has checkpoints goes on from the last one. `work`
    says how far everything is, in a few words.

    Raises:
        InputError: before any job starts: a job was begun with other settings, or does not fit the pool.
        KeyboardInterrupt: after the jobs have been told to end, and ended.
    """
    pool = Pool(device_ids(devices, cpu=all(uses_cpu(plan.task) for plan in plans)))
    with Journal(folder) as journal:
        known = {job.folder: job for job in read_jobs(folder).values() if (Path(job.folder) / f"{NAME}.yaml").is_file()}
        number, left = max(read_jobs(folder), default=-1), list[Job]()
        for plan in plans:
            if (before := known.get(str(plan.folder))) is None:
                number += 1
                left.append(make_job(replace(plan, number=number), pool.size))
                write_config(plan, left[-1])
                continue
            make_job(plan, pool.size)  # settles the devices in its config
            check_same(plan, before)
            left += [] if before.state == "done" else [_again(before, plan.task, pool.size)]
        return run_jobs(journal, left, pool, work) if left else []


def resume(folder: Path, devices: Any = None) -> int:
    """Run what is not done of the sweep in a folder, each job with its `job.yaml`, which may have been edited.

    A job that has checkpoints goes on from the last one. `devices` is `hydra.launcher.devices`, by default as it was.

    Returns:
        The exit code: 0 when all jobs are done, 1 when some failed, 130 after Ctrl-C.

    Raises:
        InputError: there is no sweep in the folder, or it does not fit the pool, or another process runs it.
    """
    folder = folder.absolute()
    if not read_jobs(folder):
        raise InputError(f"{folder} holds no sweep: there is no sweep.jsonl with jobs in it")
    with Journal(folder) as journal:
        left = [job for job in read_jobs(folder).values() if job.state != "done"]
        if not left:
            print(f"all jobs of {folder} are done")
            return 0
        configs = [read_config(job) for job in left]
        setting = _devices_then(folder) if devices is None else devices
        pool = Pool(device_ids(setting, cpu=all(uses_cpu(config) for config in configs)))
        jobs = [_again(job, config, pool.size) for job, config in zip(left, configs, strict=True)]
        try:
            ended = run_jobs(journal, jobs, pool)
        except KeyboardInterrupt:
            return 130
    return 0 if all(job.state == "done" for job in ended) else 1


def _again(job: Job, config: Mapping[str, Any], available: int) -> Job:
    """The job as it starts another time."""
    job = replace(
        settled(job, config, available), state="pending", devices=[], exit_code=None, seconds=None, error=None
    )
    goes_on = "resume" in config and any((Path(job.folder) / "checkpoints").glob("*.ckpt"))
    return replace(job, command=[*job.command, "resume=auto"]) if goes_on else job


def _devices_then(folder: Path) -> Any:
    """The pool that the sweep was started with, from the config Hydra keeps beside it."""
    path = folder / "multirun.yaml"
    devices = OmegaConf.select(OmegaConf.load(path), "hydra.launcher.devices") if path.is_file() else None
    return OmegaConf.to_container(devices) if OmegaConf.is_list(devices) else devices
