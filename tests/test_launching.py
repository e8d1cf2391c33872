"""The pool of a sweep: what runs when and where, what is written down, and what is left when something dies."""

import json
import os
import re
import signal
import sys
import textwrap
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from r2r.errors import InputError
from r2r.launching import Job, Journal, Plan, complete, device_count, device_ids, launch, read_jobs, resume
from r2r.launching import pool as pool_module
from r2r.launching.configs import make_job, write_config
from r2r.launching.display import Board, tell_apart
from r2r.launching.outcomes import last_error
from r2r.launching.pool import Pool
from r2r.launching.runner import run_jobs

ROOT = Path(__file__).parents[1]


def job(folder: Path, number: int, code: str, **fields: Any) -> Job:
    """A job that runs a piece of Python in its folder."""
    path = folder / str(number)
    path.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return Job(number, [f"x={number}", "y=same"], str(path), "none", command, str(path), **fields)


def run(folder: Path, jobs: list[Job], ids: list[str]) -> dict[int, Job]:
    with Journal(folder) as journal:
        run_jobs(journal, jobs, Pool(ids))
    return read_jobs(folder)


def plan(folder: Path, number: int, code: str = "", **task: Any) -> Plan:
    """A job of the stand-in verb."""
    return Plan(number, [f"x={number}"], folder / str(number), "tests.tiny_job", {"code": code, **task}, {})


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `tests.tiny_job` can be imported."""
    monkeypatch.chdir(ROOT)


def test_pool_gives_each_slot_once_and_shares_where_ids_repeat() -> None:
    pool = Pool(["a", "b", "c"])
    assert pool.take(2) == ["a", "b"] and pool.take(2) is None and pool.take(1) == ["c"]
    pool.give(["a", "b"])
    assert pool.take(2) == ["a", "b"]
    shared = Pool(["0", "0", "1", "1"])
    assert shared.size == 2 and shared.take(3) is None
    assert [shared.take(1), shared.take(1), shared.take(2), shared.take(1)] == [["0"], ["1"], ["0", "1"], None]


@pytest.mark.parametrize(
    ("devices", "count"),
    [(1, 1), (3, 3), ("2", 2), ([0, 3], 2), ("0,3", 2), ("auto", 4), (-1, 4), ("-1", 4), (None, 4)],
)
def test_device_count_reads_what_lightning_reads(devices: Any, count: int) -> None:
    assert device_count(devices, available=4) == count


def test_device_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "visible_gpus", lambda: [])
    assert device_ids(None, cpu=False) == ["cpu:0"] and device_ids(2, cpu=False) == ["cpu:0", "cpu:1"]
    monkeypatch.setattr(pool_module, "visible_gpus", lambda: ["3", "5"])
    assert device_ids(None, cpu=False) == ["3", "5"] and device_ids(1, cpu=False) == ["3"]
    assert device_ids([5, 5], cpu=False) == ["5", "5"]
    assert device_ids(4, cpu=True) == ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]
    with pytest.raises(InputError, match="2 GPUs are visible"):
        device_ids(3, cpu=False)
    for setting in (0, "two", [], -1):
        with pytest.raises(InputError, match="is no pool"):
            device_ids(setting, cpu=True)


def test_visible_gpus_are_named_as_cuda_visible_devices_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pool_module.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7,-1,6")
    assert pool_module.visible_gpus() == ["5", "7"]


def test_jobs_run_at_once_on_gpus_of_their_own(tmp_path: Path) -> None:
    """Each waits for the other's file: one after the other, neither would end."""
    meet = """
        import os, pathlib, time
        print("devices", os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"])
        pathlib.Path("../here%d").touch()
        while not pathlib.Path("../here%d").exists():
            time.sleep(0.02)
    """
    ended = run(tmp_path, [job(tmp_path, 0, meet % (0, 1)), job(tmp_path, 1, meet % (1, 0))], ["3", "GPU-7"])
    assert [one.state for one in ended.values()] == ["done", "done"]
    assert [one.devices for one in ended.values()] == [["3"], ["GPU-7"]]
    logs = [(tmp_path / str(number) / "log.txt").read_text().split()[1] for number in (0, 1)]
    assert logs == ["3", "GPU-7"]


def test_no_more_jobs_run_than_fit(tmp_path: Path) -> None:
    """Every job takes files that stand for its slots; a file that is there already would be a slot used twice."""
    code = """
        import os, time
        mine = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        for name in mine:
            os.close(os.open(f"../slot{name}", os.O_CREAT | os.O_EXCL))
        time.sleep(0.1)
        for name in mine:
            os.remove(f"../slot{name}")
    """
    jobs = [job(tmp_path, number, code, slots=slots) for number, slots in enumerate([1, 3, 2, 1])]
    ended = run(tmp_path, jobs, ["0", "1", "2"])
    assert {one.state for one in ended.values()} == {"done"}
    assert [len(one.devices) for one in ended.values()] == [1, 3, 2, 1]


def test_one_death_does_not_end_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [
        "raise RuntimeError('out of luck')",
        "import sys; print('error: data.root=x is not there', file=sys.stderr); sys.exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "print('fine')",
    ]
    ended = run(tmp_path, [job(tmp_path, number, code) for number, code in enumerate(codes)], ["cpu:0", "cpu:1"])
    assert [one.state for one in ended.values()] == ["failed", "failed", "failed", "done"]
    assert [one.exit_code for one in ended.values()] == [1, 3, -9, 0]
    told = [one.error or "" for one in ended.values()]
    assert told[0] == "RuntimeError: out of luck" and told[1] == "data.root=x is not there"
    assert told[2].startswith("killed by SIGKILL") and told[3] == ""
    shown = capsys.readouterr().out
    assert "3 of 4 jobs are not done" in shown and f"resume={tmp_path}" in shown and "Traceback" in shown
    assert "x=0" in shown and "y=same" not in shown


@pytest.mark.parametrize(("count", "pending_too"), [(3, True), (30, False)], ids=["few", "many"])
def test_board_has_a_line_for_each_job_or_for_what_goes_on(tmp_path: Path, count: int, pending_too: bool) -> None:
    jobs = [job(tmp_path, number, "") for number in range(count)]
    screen = Console(file=StringIO(), force_terminal=True, no_color=True, width=100, height=60)
    with Board(jobs, tell_apart(jobs), screen) as board:
        board.changed(replace(jobs[0], state="running"))
        board.changed(replace(jobs[1], state="failed", error="no [luck]"))
        board.tick()
    text = re.sub(r"\x1b\[[\d;?]*\w", "", screen.file.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
    assert "job 0 running x=0" in text and "job 1 failed x=1" in text and "no [luck]" in text
    assert ("job 2 pending" in text) == pending_too


def test_a_command_that_cannot_start_is_a_failed_job(tmp_path: Path) -> None:
    lost = replace(job(tmp_path, 0, ""), cwd=str(tmp_path / "gone"))
    ended = run(tmp_path, [lost, job(tmp_path, 1, "")], ["cpu:0"])
    assert ended[0].state == "failed" and "gone" in (ended[0].error or "") and ended[1].state == "done"


def test_journal_only_grows_and_its_last_line_holds(tmp_path: Path) -> None:
    run(tmp_path, [job(tmp_path, 0, "")], ["cpu:0"])
    events = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
    assert [event["state"] for event in events] == ["pending", "running", "done"]
    assert all({"job", "overrides", "folder", "command", "exit_code", "seconds", "devices"} <= set(e) for e in events)
    with (tmp_path / "sweep.jsonl").open("a") as file:
        file.write('{"job": 0, "state": "fai')  # killed while writing
    assert read_jobs(tmp_path)[0].state == "done"
    with Journal(tmp_path) as journal:
        journal.write(replace(read_jobs(tmp_path)[0], state="failed"))
    assert read_jobs(tmp_path)[0].state == "failed" and read_jobs(tmp_path / "elsewhere") == {}


def test_a_sweep_has_one_launcher(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(InputError, match="at work"):
        Journal(tmp_path)
    with Journal(tmp_path):
        pass


@pytest.mark.usefixtures("at_root")
def test_resume_runs_what_is_not_done(tmp_path: Path) -> None:
    fails_once = "import os; os.path.exists(folder / 'mended') or exit('not yet')"
    ended = launch(tmp_path, [plan(tmp_path, 0), plan(tmp_path, 1, fails_once, resume=None)], devices=2)
    assert [one.state for one in ended] == ["done", "failed"] and ended[1].error == "not yet"
    before = (tmp_path / "0" / "log.txt").read_text()
    assert resume(tmp_path) == 1
    (tmp_path / "1" / "mended").touch()
    assert resume(tmp_path) == 0 and resume(tmp_path) == 0
    assert [one.state for one in read_jobs(tmp_path).values()] == ["done", "done"]
    assert (tmp_path / "0" / "log.txt").read_text() == before
    assert (tmp_path / "1" / "log.txt").read_text().count("arguments") == 3


@pytest.mark.usefixtures("at_root")
def test_resume_goes_on_from_checkpoints_and_reads_an_edited_config(tmp_path: Path) -> None:
    launch(tmp_path, [plan(tmp_path, 0, "exit('no')", resume=None)])
    (tmp_path / "0" / "checkpoints").mkdir()
    (tmp_path / "0" / "checkpoints" / "step_0000005.ckpt").touch()
    config: Any = OmegaConf.load(tmp_path / "0" / "job.yaml")
    OmegaConf.save(OmegaConf.merge(config, {"code": "print('mended')"}), tmp_path / "0" / "job.yaml")
    assert resume(tmp_path) == 0
    assert (tmp_path / "0" / "log.txt").read_text().splitlines()[-2:] == ["arguments resume=auto", "mended"]


@pytest.mark.usefixtures("at_root")
def test_what_cannot_run_is_refused_before_anything_does(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep"):
        resume(tmp_path)
    with pytest.raises(InputError, match=r"job 1 asks for trainer.devices=3, but the pool has 2"):
        launch(tmp_path, [plan(tmp_path, 0), plan(tmp_path, 1, trainer={"devices": 3})], devices=2)
    with pytest.raises(InputError, match="launcher=slurm"):
        launch(tmp_path, [plan(tmp_path, 0, trainer={"num_nodes": 2})])
    assert not list(tmp_path.iterdir())
    launch(tmp_path, [plan(tmp_path, 0)])
    with pytest.raises(InputError, match="holds job 0 of another sweep"):
        launch(tmp_path, [plan(tmp_path, 0)])
    launch(tmp_path, [plan(tmp_path, 1, "exit(1)")])
    (tmp_path / "1" / "job.yaml").unlink()
    with pytest.raises(InputError, match=r"job\.yaml is gone"):
        resume(tmp_path)


def test_a_job_of_several_processes_is_started_by_torchrun(tmp_path: Path) -> None:
    one, two, all_of_them = (
        make_job(plan(tmp_path, 0, trainer={"devices": devices}), available=3) for devices in (1, [4, 6], "auto")
    )
    assert "torch.distributed.run" not in one.command and one.command[-4:-2] == ["--config-path", one.folder]
    assert {"torch.distributed.run", "--standalone", "--nproc_per_node=2"} <= set(two.command)
    assert all_of_them.slots == 3 and "--nproc_per_node=3" in all_of_them.command


def test_config_of_a_job_reads_as_it_was_written(tmp_path: Path) -> None:
    """Numbers in quotes, interpolations that are meant literally, and line ends in an override."""
    task = {
        "a": "1e-3",
        "b": 1e-3,
        "c": "null",
        "d": None,
        "e": "${now:%Y}",
        "f": ["\\${x}", "ü: #"],
        "g": {"h": "x\ny"},
    }
    made = replace(plan(tmp_path, 0), task=task, overrides=["g.h='x\ny'"], hydra={"job": {"name": "${n}"}})
    write_config(made, make_job(made, 1))
    config: Any = OmegaConf.load(tmp_path / "0" / "job.yaml")
    hydra = OmegaConf.to_container(config.pop("hydra"), resolve=True)
    assert hydra == {"job": {"name": "${n}"}, "run": {"dir": str(tmp_path / "0")}, "output_subdir": None}
    del config["defaults"]
    assert OmegaConf.to_container(config, resolve=True) == task


@pytest.mark.usefixtures("at_root")
def test_value_of_a_job_is_its_optimized_metric(tmp_path: Path) -> None:
    found = {"optimized_metric": "val/loss", "metrics": {"val/loss": 0.25, "train/loss": 1.0}}
    lost = {**found, "optimized_metric": "val/los"}
    broken = {**found, "metrics": {"val/loss": float("nan")}}
    plans = [plan(tmp_path, number, **task) for number, task in enumerate([found, lost, broken, {}])]
    ended = launch(tmp_path, plans, devices=2)
    assert [one.value for one in ended] == [0.25, None, None, None]
    assert [one.state for one in ended] == ["done", "failed", "failed", "done"]
    assert "train/loss, val/loss" in (ended[1].error or "") and "nan" in (ended[2].error or "")
    assert ended[0].metrics == str(tmp_path / "0" / "run.json") and ended[3].metrics is None


TRACEBACK = "Traceback (most recent call last):\n  File\n    f()\n"
LOGS = {
    "data.root=x is not there": f"{TRACEBACK}ValueError: no\nerror: data.root=x is not there\nbye",
    "ValueError: no": f"{TRACEBACK}ValueError: no\n\nSet the environment variable",
    "KeyError: 'k'": "".join(f"[rank1]: {line}\n" for line in f"{TRACEBACK}KeyError: 'k'".splitlines())
    + f"{TRACEBACK}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====",
    "Signal 9 (SIGKILL) received by PID 77, one of the job's processes": f"{TRACEBACK}RuntimeError: peer\n"
    "Root Cause (first observed failure):\n  exitcode: -9\n  traceback: Signal 9 (SIGKILL) received by PID 77\n",
    "the last": "first\nthe last\n\n",
}


@pytest.mark.parametrize(("wanted", "log"), LOGS.items(), ids=range(len(LOGS)))
def test_last_error_is_the_line_that_says_why(wanted: str, log: str) -> None:
    assert last_error(log, 1) == wanted


def test_last_error_without_a_word() -> None:
    assert last_error("", -signal.SIGSEGV) == "killed by SIGSEGV" and "7" in last_error("\n", 7)


def test_threads_of_a_job_are_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ.get('CUDA_VISIBLE_DEVICES'))"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    run(tmp_path, [job(tmp_path, 0, code)], ["cpu:0", "cpu:1"])
    assert (tmp_path / "0" / "log.txt").read_text() == "4 None\n"


@pytest.mark.usefixtures("at_root")
def test_complete_runs_what_is_not_done_and_refuses_other_settings(tmp_path: Path) -> None:
    touch = "(folder / 'made').open('a').write('x')"
    plans = [plan(tmp_path, number, touch, a={"b": number}) for number in range(3)]
    assert [one.state for one in complete(tmp_path, plans[:1], devices=2)] == ["done"]
    said: list[str] = []
    ended = complete(tmp_path, plans, devices=2, work=lambda: said.append("half") or "half")
    assert [(one.job, one.state) for one in ended] == [(1, "done"), (2, "done")] and said
    assert complete(tmp_path, plans, devices=2) == []
    assert [(tmp_path / str(number) / "made").read_text() for number in range(3)] == ["x", "x", "x"]
    other = replace(plans[1], task={**plans[1].task, "a": {"b": 9}})
    with pytest.raises(InputError, match=r"a\.b=1, now it is 9"):
        complete(tmp_path, [plans[0], other], devices=2)
    (tmp_path / "1" / "job.yaml").unlink()  # whoever removes a job wants it anew
    assert [one.state for one in complete(tmp_path, [other], devices=1)] == ["done"]
