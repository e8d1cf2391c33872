"""Runs the jobs of an ablation in the order of their needs, side by side, and tells how much is left."""

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2r.ablation.rows import Unit
from r2r.errors import InputError
from r2r.launching import Job, complete

_EVERY = 1.0  # seconds between looks at the disk


def run(units: Mapping[str, Unit], output: Path, devices: Any, cpu: bool) -> list[Job]:
    """Run what is not done yet; all settings are checked before the first job starts.

    Raises:
        InputError: a job was begun with other settings, or failed: its message and the place of its log.
        KeyboardInterrupt: after the running jobs have been ended.
    """
    plans = {name: unit.plan(output) for name, unit in units.items()}
    progress, ended = Progress(list(units.values()), output), list[Job]()
    for level in levels(units):
        for name in level:
            _leave_something(units[name], output / name)
        slots = devices if devices is not None or not cpu else max(1, min(len(level), _cores()))
        jobs = complete(output, [plans[name] for name in level], slots, progress)
        if failed := [job for job in jobs if job.state != "done"]:
            more = f"; {len(failed) - 1} more failed" if len(failed) > 1 else ""
            job = failed[0]
            raise InputError(
                f"{job.overrides[0]}: {job.error or job.state}{more}; see {job.folder}/log.txt, then give the same "
                "command again: what is done is kept"
            )
        ended += jobs
    return ended


def levels(units: Mapping[str, Unit]) -> list[list[str]]:
    """The jobs that can run side by side, step by step; within a step the dearest first."""
    done, found = set[str](), list[list[str]]()
    while left := [unit for unit in units.values() if unit.name not in done]:
        ready = [unit for unit in left if done.issuperset(unit.needs)]
        found.append([unit.name for unit in sorted(ready, key=lambda unit: -unit.cost)])
        done.update(found[-1])
    return found


class Progress:
    """How much of the work is done, by what lies on disk, and how long the rest takes, by the pace so far."""

    def __init__(self, units: Sequence[Unit], output: Path) -> None:
        self.units, self.output = units, output
        self.whole = sum(unit.cost for unit in units)
        self._start, self._before = time.monotonic(), self._done()
        self._looked, self._text = self._start - _EVERY, ""

    def __call__(self) -> str:
        """Share and time left, in words; looks at the disk once a second at most."""
        if (now := time.monotonic()) >= self._looked + _EVERY:
            self._looked, done = now, self._done()
            gained, took = done - self._before, now - self._start
            self._text = f"{done / self.whole:.0%} of the work"
            if gained > 0:
                self._text += f", {_minutes(took * (self.whole - done) / gained)} left"
        return self._text

    def _done(self) -> float:
        return sum(unit.cost * min(1.0, count_done(unit, self.output) / unit.total) for unit in self.units)


def count_done(unit: Unit, output: Path) -> int:
    """How many pictures or steps of a job are there."""
    folder = output / unit.name
    if unit.verb == "train":
        return unit.total if (folder / "export").is_dir() else _last_step(folder / "metrics.csv")
    return sum(1 for _ in folder.glob("strength_*/tac_*/*.png" if unit.verb == "sweep" else "*.png"))


def _leave_something(unit: Unit, folder: Path) -> None:
    """A translation killed between its last picture and its record makes that picture again, for its costs."""
    made = sorted(folder.glob("*.png")) if unit.verb == "translate" else []
    if made and not (folder / "run.json").is_file():
        made[-1].unlink()


def _last_step(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    return max((int(step) for step in steps if step and step.isdigit()), default=0)


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
