"""Who ends a sweep, and what must not be left running then. Reads /proc and asks Linux for signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r2r.launching import read_jobs
from tests.test_launching import job, run

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether a process runs; one that is dead but not yet collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


LAUNCHER = """
import sys
from pathlib import Path
from r2r.launching import Journal, processes
from r2r.launching.pool import Pool
from r2r.launching.runner import run_jobs
from tests.test_launching import job
processes.GRACE = {number: 2.0 for number in processes.GRACE}
folder = Path(sys.argv[1])
try:
    with Journal(folder) as journal:
        run_jobs(journal, [job(folder, 0, sys.argv[2]), job(folder, 1, "")], Pool(["cpu:0"]))
except KeyboardInterrupt:
    sys.exit(130)
"""
# A job with a process in a session of its own, as torchrun starts its ranks.
FAMILY = """
import signal, subprocess, sys, time
print("up", subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
{answer}
time.sleep(60)
"""


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launcher(folder: Path, code: str) -> "subprocess.Popen[bytes]":
    """A launcher in a process of its own, once its first job is up."""
    command = [sys.executable, "-c", LAUNCHER, str(folder), code]
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=_hear_ctrl_c)
    wait_for(lambda: (folder / "0" / "log.txt").is_file() and "up" in (folder / "0" / "log.txt").read_text())
    return process


def child(folder: Path) -> int:
    return int((folder / "0" / "log.txt").read_text().split()[1])


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    ],
    ids=["at SIGINT", "at SIGTERM", "at SIGKILL"],
)
def test_ctrl_c_ends_the_jobs_and_says_so(tmp_path: Path, answer: str) -> None:
    with launcher(tmp_path, FAMILY.format(answer=answer)) as process:
        process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 130 and "interrupted" in shown
    wait_for(lambda: not alive(child(tmp_path)))
    jobs = read_jobs(tmp_path)
    assert jobs[0].state == "interrupted" and jobs[1].state == "pending"


def test_a_killed_launcher_takes_its_jobs_along(tmp_path: Path) -> None:
    """SIGKILL leaves it no time to do anything: the kernel tells the job, whose own children resume finds and ends."""
    with launcher(tmp_path, "import os\nprint('pid', os.getpid(), flush=True)\n" + FAMILY.format(answer="")) as process:
        process.kill()
    lines = (tmp_path / "0" / "log.txt").read_text().split()
    wait_for(lambda: not alive(int(lines[1])))
    assert read_jobs(tmp_path)[0].state == "running"
    left = int(lines[3])
    assert alive(left)
    ended = run(tmp_path, [job(tmp_path, 0, "print('again')"), job(tmp_path, 1, "")], ["cpu:0"])
    assert [one.state for one in ended.values()] == ["done", "done"]
    wait_for(lambda: not alive(left))


def test_a_failed_job_leaves_no_process_behind(tmp_path: Path) -> None:
    ended = run(tmp_path, [job(tmp_path, 0, FAMILY.format(answer="sys.exit(1)"))], ["cpu:0"])
    assert ended[0].state == "failed"
    wait_for(lambda: not alive(child(tmp_path)))
