"""How a job ended: its state, why it failed in one line, and the metrics it left."""

import json
import math
import re
import signal
from dataclasses import replace
from pathlib import Path

from r2r.launching.jobs import Job, State
from r2r.launching.processes import Running

_INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
_RANK = re.compile(r"^\[rank\d+\]:\s?", re.MULTILINE)


def outcome(running: Running, interrupted: bool = False) -> Job:
    """The job after its last process has ended; `interrupted`: the launcher ended it."""
    code = running.process.wait()
    state: State = "done" if code == 0 else "interrupted" if interrupted or code in _INTERRUPTED else "failed"
    metrics = Path(running.job.folder) / "run.json"
    job = replace(
        running.job,
        state=state,
        exit_code=code,
        seconds=running.seconds,
        error=last_error(running.log, code) if state == "failed" else None,
        metrics=str(metrics) if metrics.is_file() else None,
    )
    return _with_value(job) if state == "done" and job.optimized_metric else job


def last_error(log: str, code: int) -> str:
    """Why a process ended with this exit code, from what it printed.

    In this order: what r2r says to its user, the first rank that a signal ended (as torchrun reports it), the end of
    the last traceback that is not torchrun's own, a signal, the last line.
    """
    log = _RANK.sub("", log)
    told = re.findall(r"^error: (.+)$", log, re.MULTILINE)
    rank = re.search(r"Root Cause.*?(Signal \d+ \(\w+\) received by PID \d+)", log, re.DOTALL)
    raised = [line for line in _raised(log) if not line.startswith("torch.distributed.elastic")]
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if told:
        return told[-1]
    if rank:
        return f"{rank.group(1)}, one of the job's processes"
    if raised:
        return raised[-1]
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + ("; was there enough memory?" if name == "SIGKILL" else "")
    return lines[-1] if lines else f"exit code {code} without a word"


def _raised(log: str) -> list[str]:
    """The line after each traceback: the exception and its message."""
    return re.findall(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(\S.*)$", log, re.MULTILINE)


def _with_value(job: Job) -> Job:
    """The job with the value of its `optimized_metric`; failed when there is no such number."""
    content = json.loads(Path(job.metrics).read_text(encoding="utf-8")) if job.metrics else {}
    metrics = content.get("metrics") or {}
    value = metrics.get(job.optimized_metric)
    if isinstance(value, int | float) and math.isfinite(value):
        return replace(job, value=float(value))
    known = ", ".join(sorted(metrics)) or "none"
    if value is None:
        return replace(
            job, state="failed", error=f"optimized_metric={job.optimized_metric} is not in run.json: {known}"
        )
    return replace(job, state="failed", error=f"optimized_metric={job.optimized_metric} ended as {value}")
