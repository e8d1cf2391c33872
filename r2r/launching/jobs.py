"""What is known of the jobs of a sweep, and `sweep.jsonl`, which keeps it.

The file only grows: one JSON object per change, each with all that is known of its job; the last line of a job holds.
A launcher that is killed leaves jobs `running` behind, which count as not done.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from r2r.errors import InputError

State = Literal["pending", "running", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class Job:
    """One line of `sweep.jsonl`."""

    job: int
    overrides: list[str]  # what the sweep varies and what all jobs share
    folder: str  # absolute; job.yaml, log.txt and everything the job writes
    module: str  # what `python -m` runs
    command: list[str]
    cwd: str  # relative paths of the config start here
    slots: int = 1  # devices it asks for, one process each
    optimized_metric: str | None = None  # its name among the metrics of run.json
    state: State = "pending"
    devices: list[str] = field(default_factory=list)  # slots it was given last
    exit_code: int | None = None
    seconds: float | None = None  # of the last attempt
    error: str | None = None  # why it failed, in one line
    metrics: str | None = None  # file that holds them
    value: float | None = None  # of optimized_metric


class Journal:
    """`sweep.jsonl` open for writing: held by one launcher at a time.

    Raises:
        InputError: another launcher works on this sweep.
    """

    def __init__(self, folder: Path) -> None:
        import fcntl

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "sweep.jsonl").open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{folder} is at work: another process runs this sweep; wait for it or stop it") from None
        self._end_line()

    def write(self, job: Job) -> Job:
        """Append what is known of a job now."""
        self._file.write(json.dumps(asdict(job)).encode() + b"\n")
        self._file.flush()
        return job

    def _end_line(self) -> None:
        """A launcher killed while writing leaves half a line, which must not spoil the next one."""
        if self._file.seek(0, 2):
            self._file.seek(-1, 2)
            if self._file.read() != b"\n":
                self._file.write(b"\n")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_jobs(folder: Path) -> dict[int, Job]:
    """The jobs of a sweep as they are now, by number; empty for a folder without `sweep.jsonl`."""
    path = folder / "sweep.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    events = [event for line in lines if (event := _parsed(line)) is not None]
    return {job.job: job for job in (Job(**event) for event in events)}


def _parsed(line: str) -> Mapping[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:  # cut off when its launcher was killed
        return None
    return event if isinstance(event, dict) else None
