"""What a sweep shows: a line for each job while it runs, then a table of all, and the logs of those that failed."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from r2r.launching.jobs import Job
from r2r.launching.processes import log_file

COLOURS = {"pending": "dim", "running": "cyan", "done": "green", "failed": "bold red", "interrupted": "yellow"}
_ALL_LINES = 20  # sweeps up to this size show every job; larger ones what runs and what failed
_TAIL = 12  # lines of a log
_TAILS = 3  # logs


class Board:
    """Live lines on a terminal; elsewhere one printed line for each change. Starts no thread."""

    def __init__(
        self,
        jobs: Sequence[Job],
        titles: Mapping[int, str],
        console: Console,
        work: Callable[[], str] | None = None,
    ) -> None:
        """`work` says how far everything is that the jobs are part of."""
        self.console, self._titles, self._work = console, titles, work
        self._all = len(jobs) <= _ALL_LINES
        self._shown = 0.0
        columns = TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[note]}")
        self._progress = Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
        self._lines: dict[int, TaskID] = {
            job.job: self._progress.add_task(self._line(job), start=False, note="", visible=self._all) for job in jobs
        }
        self._whole = self._progress.add_task(work(), note="") if work else None

    def changed(self, job: Job) -> None:
        """Show a job's new state."""
        line, note = self._lines[job.job], escape(job.error or "")
        if job.state == "running":
            self._progress.start_task(line)
        else:
            self._progress.stop_task(line)
        visible = self._all or job.state in ("running", "failed")
        self._progress.update(line, description=self._line(job), note=note, visible=visible, refresh=True)
        if not self.console.is_terminal:
            took = "" if job.seconds is None or job.state == "running" else f" after {job.seconds:.0f} s"
            whole = f" [dim]{self._work()}[/]" if self._work else ""
            self.console.print(f"{self._line(job)}{took} {note}".rstrip() + whole, soft_wrap=True)

    def tick(self) -> None:
        """Show how long everything has taken, twice a second."""
        if (now := time.monotonic()) > self._shown + 0.5:
            self._shown = now
            if self._work and self._whole is not None and self.console.is_terminal:
                self._progress.update(self._whole, description=self._work())
            self._progress.refresh()

    def _line(self, job: Job) -> str:
        return f"job {job.job} [{COLOURS[job.state]}]{job.state}[/] {escape(self._titles[job.job])}"

    def __enter__(self) -> "Board":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()


def show_summary(jobs: Sequence[Job], titles: Mapping[int, str], console: Console) -> None:
    """The end of the logs of what failed, and a table of all jobs."""
    for job in [job for job in jobs if job.exit_code and job.state == "failed"][:_TAILS]:
        console.rule(f"end of {escape(str(log_file(job)))}", align="left", style="red")
        lines = log_file(job).read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    console.print(_summary(jobs, titles))


def tell_apart(jobs: Sequence[Job]) -> dict[int, str]:
    """What tells the jobs apart: the overrides that not all of them have."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.job: " ".join(part for part in job.overrides if part not in shared) for job in jobs}


def _summary(jobs: Sequence[Job], titles: Mapping[int, str]) -> Table:
    metric = next((job.optimized_metric for job in jobs if job.value is not None), None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "state", "seconds", *([metric] if metric else []), "overrides", "why"):
        table.add_column(heading, overflow="fold")
    for job in jobs:
        value = [] if not metric else ["" if job.value is None else f"{job.value:.5g}"]
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        state = f"[{COLOURS[job.state]}]{job.state}[/]"
        table.add_row(str(job.job), state, seconds, *value, escape(titles[job.job]), escape(job.error or ""))
    return table
