"""A job's processes: started in a session of their own, ended all together, never left behind."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2r.launching.jobs import Job

GRACE = {signal.SIGINT: 20.0, signal.SIGTERM: 10.0}  # seconds each has to work before the next, and before SIGKILL
_MARK = "R2R_JOB"  # in the environment of all processes of a job, which torchrun puts into sessions of their own


@dataclass
class Running:
    """A job at work."""

    job: Job
    process: subprocess.Popen[bytes]
    since: float  # time.monotonic()
    log_start: int  # where this attempt begins in log.txt

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return round(time.monotonic() - self.since, 1)

    @property
    def log(self) -> str:
        """What this attempt has printed."""
        with log_file(self.job).open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")


def log_file(job: Job) -> Path:
    """Standard output and errors of all attempts."""
    return Path(job.folder) / "log.txt"


def start(job: Job, threads: int) -> Running:
    """Start a job on `job.devices`, with so many threads for each process unless the environment says how many."""
    end_strays(job)  # of an attempt whose launcher was killed
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    with log_file(job).open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            job.command,
            cwd=job.cwd,
            env=_environment(job, threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the launcher's to pass on
            preexec_fn=_die_with_parent(),
        )
    return Running(job, process, time.monotonic(), begin)


def stop(running: Sequence[Running]) -> None:
    """End jobs together: SIGINT, so that they keep what is finished; then SIGTERM; then SIGKILL."""
    for number, grace in GRACE.items():
        try:
            for one in running:
                _signal(one.process, number)
            deadline = time.monotonic() + grace
            while any(one.process.poll() is None for one in running) and time.monotonic() < deadline:
                time.sleep(0.05)
        except KeyboardInterrupt:  # impatient: on to the next signal
            continue
    for one in running:
        _signal(one.process, signal.SIGKILL)
        one.process.wait()
        end_strays(one.job)


def end_strays(job: Job) -> None:
    """Kill what is left of a job whose first process is gone: ranks without their torchrun, workers of loaders."""
    for process in _marked(job):
        try:
            os.kill(process, signal.SIGKILL)
        except OSError:  # gone meanwhile
            continue


def _environment(job: Job, threads: int) -> dict[str, str]:
    environment = {**os.environ, _MARK: job.folder, "PYTHONUNBUFFERED": "1"}
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    if not any(name.startswith("cpu:") for name in job.devices):
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(job.devices)
    if "SLURM_NTASKS" in environment:  # the pool runs inside an allocation: its tasks are not the job's processes
        environment["SLURM_JOB_NAME"] = "interactive"
    return environment


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, number)
        except OSError:
            return


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux a job gets SIGTERM when the launcher dies, however it dies (torchrun passes it on to its ranks).

    The launcher has one thread, so code between fork and exec is safe, and the thread's death is the launcher's.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, launcher, pr_set_pdeathsig = ctypes.CDLL(None).prctl, os.getpid(), 1

    def ask() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the launcher runs in a shell's background
        prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != launcher:  # it died before
            os._exit(1)

    return ask


def _marked(job: Job) -> Iterator[int]:
    """Processes that carry the job's mark; known from /proc, so none elsewhere."""
    mark = f"{_MARK}={job.folder}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:  # gone, or another user's
            continue
