"""The loop of a sweep: start what fits, collect what ended, write down every change."""

import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console

from r2r.launching.display import Board, show_summary, tell_apart
from r2r.launching.jobs import Job, Journal, read_jobs
from r2r.launching.outcomes import outcome
from r2r.launching.pool import Pool
from r2r.launching.processes import Running, end_strays, start, stop

Work = Callable[[], str]  # how far everything is, in a few words


def run_jobs(journal: Journal, jobs: Sequence[Job], pool: Pool, work: Work | None = None) -> list[Job]:
    """Run jobs side by side, shown on the terminal; returns them as they ended.

    With `work`, the jobs are part of something larger, which says how far it is and how it goes on.

    Raises:
        KeyboardInterrupt: after the running jobs have been told to end, and ended; the others are still pending.
    """
    console = Console()
    known = read_jobs(journal.folder)  # of a sweep that goes on, all jobs
    titles = tell_apart(list({**known, **{job.job: job for job in jobs}}.values()))
    board = Board(jobs, titles, console, work)
    runner = _Runner(journal, jobs, pool, board)
    try:
        with board:
            runner.run()
    finally:
        show_summary(runner.jobs, titles, console)
        if work is None and (left := sum(job.state != "done" for job in runner.jobs)):
            again = shlex.join(["python", "-m", "r2r.sweep", f"resume={journal.folder}"])
            console.print(f"{left} of {len(jobs)} jobs are not done; to run them again: {again}", soft_wrap=True)
    return runner.jobs


class _Runner:
    """Jobs start in their order, each as soon as enough devices are free for it: a wide one lets narrow ones pass."""

    def __init__(self, journal: Journal, jobs: Sequence[Job], pool: Pool, board: Board) -> None:
        self._journal, self._pool, self._board = journal, pool, board
        self._now = {job.job: journal.write(job) for job in jobs}
        self._waiting = list(jobs)
        self._running: list[Running] = []
        self._threads = max(1, (os.cpu_count() or 1) // len(pool.ids))

    @property
    def jobs(self) -> list[Job]:
        """As they are now."""
        return list(self._now.values())

    def run(self) -> None:
        """Until all have ended; whatever happens, none is left running."""
        try:
            while self._waiting or self._running:
                self._start_what_fits()
                for one in [one for one in self._running if one.process.poll() is not None]:
                    self._collect(one)
                self._board.tick()
                time.sleep(0.1)
        except KeyboardInterrupt:
            self._board.console.print("interrupted: ending the jobs; Ctrl-C again for less patience")
            raise
        finally:
            stop(self._running)
            for one in self._running:
                self._note(outcome(one, interrupted=True))

    def _start_what_fits(self) -> None:
        for job in list(self._waiting):
            if (ids := self._pool.take(job.slots)) is not None:
                self._waiting.remove(job)
                self._start(replace(job, state="running", devices=ids))

    def _start(self, job: Job) -> None:
        try:
            self._running.append(start(job, self._threads))
        except OSError as error:  # its working directory or its Python is gone
            self._pool.give(job.devices)
            job = replace(job, state="failed", error=str(error))
        self._note(job)

    def _collect(self, one: Running) -> None:
        self._running.remove(one)
        self._pool.give(one.job.devices)
        if one.process.returncode:
            end_strays(one.job)
        self._note(outcome(one))

    def _note(self, job: Job) -> None:
        self._now[job.job] = self._journal.write(job)
        self._board.changed(job)
