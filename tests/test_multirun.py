"""`python -m r2r.train -m ...`: what the launcher makes of a sweep, searching with Optuna, SLURM, and whole sweeps."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from r2r import launching
from r2r.cli import CONF
from r2r.errors import InputError
from r2r.launching import Job, Plan, read_jobs
from r2r.train import main, refuse_processes_in_a_sweep, starting_point

TINY = ["debug=smoke", "experiment=tiny_features", "model.resolution=32", "trainer.max_steps=1"]
Multirun = Callable[..., list[list[Plan]]]
Answer = Callable[[Plan], float | None]


def started_plan(plan: Plan, value: float | None) -> Job:
    state = "failed" if value is None else "done"
    return Job(plan.number, plan.overrides, str(plan.folder), plan.module, [], "", state=state, value=value)


@pytest.fixture
def multirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Multirun]:
    """Sweeps in this process up to the start of jobs; returns what each batch would have started."""
    monkeypatch.chdir(tmp_path)
    before = HydraConfig.instance().cfg

    def sweep(*overrides: str, answer: Answer = lambda plan: 0.0) -> list[list[Plan]]:
        batches: list[list[Plan]] = []

        def launch(folder: Path, plans: Sequence[Plan], devices: Any) -> list[Job]:
            batches.append(list(plans))
            return [started_plan(plan, answer(plan)) for plan in plans]

        monkeypatch.setattr(launching, "launch", launch)
        GlobalHydra.instance().clear()
        made = Hydra.create_main_hydra2("train", create_config_search_path(str(CONF)))
        task: Any = main.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
        made.multirun("train", task, list(overrides), with_log_configuration=False)
        return batches

    yield sweep
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = before


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False)


def test_every_job_gets_a_config_of_its_own(multirun: Multirun, tmp_path: Path) -> None:
    ((first, second),) = multirun(*TINY, "seed=3,4", "hydra.sweep.dir=all of them")
    assert (first.number, second.number) == (0, 1) and first.module == "r2r.train"
    assert first.overrides == [*TINY, "seed=3"]
    folder = tmp_path / "all of them" / "1"
    assert second.folder == folder and second.task["paths"]["output_dir"] == str(folder)
    assert second.task["seed"] == 4 == second.task["data"]["seed"]
    assert second.task["callbacks"]["export"]["folder"] == str(folder / "export")
    assert second.hydra["job_logging"]["handlers"]["file"]["filename"] == str(folder / "r2r.log")
    assert OmegaConf.create(second.records[".hydra/overrides.yaml"]) == second.overrides
    assert "${paths.output_dir}" in second.records[".hydra/config.yaml"]
    assert "hydra" not in second.task


def test_a_job_knows_its_time_and_number_once_and_for_all(multirun: Multirun) -> None:
    """`${now:}` and `${hydra:}` are plain values in the job's config: its processes cannot read them differently."""
    (plans,) = multirun(*TINY, "seed=0,1,2", "+at=${now:%f}", "+job=${hydra:job.num}")
    assert all(plan.task["at"].isdigit() for plan in plans) and len({plan.folder.parent for plan in plans}) == 1
    assert [plan.task["job"] for plan in plans] == [0, 1, 2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folder"], "job 0 lacks data.root; give it on the command line as data.root=VALUE"),
        (["+x=${nowhere}"], "job 0: Interpolation key 'nowhere' not found"),
    ],
)
def test_a_config_that_cannot_be_resolved_starts_nothing(
    multirun: Multirun, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        multirun("experiment=fashion_dki", *overrides)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_a_failed_job_makes_the_sweep_fail(multirun: Multirun) -> None:
    with pytest.raises(SystemExit) as end:
        multirun(*TINY, "seed=0,1", answer=lambda plan: None if plan.task["seed"] else 0.0)
    assert end.value.code == 1


SEARCH = ["hydra/sweeper=optuna", "hydra.launcher.devices=2", "hydra.sweeper.seed=0", "hydra.sweep.dir=found"]
SPACE = ["task.optimizer.lr=tag(log,interval(1e-5,1e-3))", "data.batch_size=4,8", "seed=range(0,7,3)"]


def loss(plan: Plan) -> float:
    task = plan.task
    return 1e3 * abs(task["task"]["optimizer"]["lr"] - 1e-4) + task["data"]["batch_size"] + task["seed"]


def test_optuna_searches_in_batches_and_goes_on(
    multirun: Multirun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = [*TINY, *SEARCH, *SPACE, "optimized_metric=val/loss"]
    batches = multirun(*search, "hydra.sweeper.n_trials=5", answer=loss)
    assert [[plan.number for plan in batch] for batch in batches] == [[0, 1], [2, 3], [4]]
    tried = [plan.task for batch in batches for plan in batch]
    assert all(1e-5 <= task["task"]["optimizer"]["lr"] <= 1e-3 for task in tried)
    assert {task["data"]["batch_size"] for task in tried} == {4, 8} and {task["seed"] for task in tried} <= {0, 3, 6}
    best = json.loads((tmp_path / "found" / "best.json").read_text())
    losses = [loss(plan) for batch in batches for plan in batch]
    assert best["value"] == pytest.approx(min(losses)) and best["job"] == losses.index(min(losses))
    assert f"job {best['job']}" in capsys.readouterr().out
    (more,) = multirun(*search, "hydra.sweeper.n_trials=2", answer=loss)
    assert [plan.number for plan in more] == [5, 6]
    assert json.loads((tmp_path / "found" / "best.json").read_text())["trials"] == 7


def test_optuna_counts_failures_and_hears_of_jobs_whose_launcher_died(multirun: Multirun, tmp_path: Path) -> None:
    import optuna

    search = [*TINY, *SEARCH, *SPACE, "optimized_metric=val/loss"]
    multirun(*search, "hydra.sweeper.n_trials=3", answer=lambda plan: None if plan.number == 1 else loss(plan))
    study = optuna.load_study(study_name="r2r", storage=f"sqlite:///{tmp_path / 'found' / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    asked = study.ask(), study.ask()  # two trials that nobody was there to tell of; one of the jobs was done
    with launching.Journal(tmp_path / "found") as journal:
        journal.write(Job(asked[0].number, [], "", "", [], "", state="done", value=-1.0))
    multirun(*search, "hydra.sweeper.n_trials=1", answer=loss)
    assert [trial.state.name for trial in study.trials[3:]] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert json.loads((tmp_path / "found" / "best.json").read_text())["job"] == asked[0].number


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimized_metric=null"], "optimized_metric=NAME"),
        (["hydra.sweeper.direction=up"], "minimize or maximize"),
        (["hydra/launcher=basic"], "leave hydra/launcher out"),
        (["data.batch_size=4"], "nothing to search"),
    ],
)
def test_optuna_refuses_what_it_cannot_search(
    multirun: Multirun, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    search = [*TINY, *SEARCH[:1], "optimized_metric=val/loss", "data.batch_size=4,8", *overrides]
    with pytest.raises(SystemExit) as end:
        multirun(*search)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_optuna_that_is_missing_is_named(
    multirun: Multirun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit):
        multirun(*TINY, *SEARCH, *SPACE, "optimized_metric=val/loss")
    assert "r2r[optuna]" in capsys.readouterr().err


def job_config(*overrides: str) -> DictConfig:
    """The config of one job of a sweep, `hydra` included, made known to `HydraConfig`."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [*TINY, *overrides], return_hydra_config=True)
    cfg.hydra.mode = RunMode.MULTIRUN
    HydraConfig.instance().set_config(cfg)
    return cfg


@pytest.fixture
def hydra_config() -> Iterator[None]:
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


@pytest.mark.usefixtures("hydra_config")
@pytest.mark.parametrize("several", [["trainer.devices=2"], ["trainer.strategy=ddp_gloo"], ["trainer.devices=auto"]])
def test_only_launchers_that_start_processes_rightly_may_have_several(several: list[str]) -> None:
    for launcher in ("basic", "submitit_local"):
        with pytest.raises(InputError, match=f"Leave hydra/launcher={launcher} out"):
            refuse_processes_in_a_sweep(job_config(f"hydra/launcher={launcher}", *several))
        refuse_processes_in_a_sweep(job_config(f"hydra/launcher={launcher}"))
    for launcher in ("slurm", "submitit_slurm"):
        refuse_processes_in_a_sweep(job_config(f"hydra/launcher={launcher}", *several))


def test_refusal_comes_before_torch(tmp_path: Path) -> None:
    """In a process of its own: a single line, and nothing heavy was loaded."""
    overrides = ["-m", *TINY, "hydra/launcher=basic", "trainer.devices=2", "trainer.strategy=ddp", "seed=0,1"]
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('torch imported:', 'torch' in sys.modules))\n"
        f"sys.argv = ['r2r.train', *{overrides}]\n"
        "runpy.run_module('r2r.train', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "torch imported: False" in done.stdout
    assert len(done.stderr.splitlines()) == 1 and "Leave hydra/launcher=basic out" in done.stderr


def test_slurm_gets_one_task_for_each_device(tmp_path: Path) -> None:
    """The script as it would be submitted; Lightning wants tasks and nodes as the trainer has them."""
    script = tmp_path / "script.sh"
    for name, does in {"srun": "exit 1", "sbatch": f"cp \"$1\" '{script}'; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    slurm = ["hydra/launcher=slurm", "trainer.devices=4", "trainer.num_nodes=2", "hydra.launcher.partition=gpu"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    python("r2r.train", "-m", *TINY, *slurm, "seed=0,1,2", "hydra.sweep.dir=far away", cwd=tmp_path, PATH=path)
    lines = script.read_text().splitlines()
    wanted = "nodes=2 ntasks-per-node=4 gpus-per-node=4 cpus-per-task=8 time=1440 signal=SIGUSR1@120 partition=gpu"
    wanted += " job-name=tiny_features array=0-2%3 open-mode=append requeue"
    assert {f"#SBATCH --{each}" for each in wanted.split()} <= set(lines)
    assert any(line.startswith("srun ") and f"{tmp_path}/far away" in line for line in lines)


def test_a_job_that_slurm_requeued_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "step_0000005.ckpt"
    checkpoint.touch()
    with pytest.raises(InputError, match="resume=auto"):
        starting_point(None, tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert starting_point(None, tmp_path) == str(checkpoint)
    (tmp_path / "hpc_ckpt_1.ckpt").touch()  # Lightning finds it by itself, where it is given no other
    assert starting_point(None, tmp_path) is None


@pytest.mark.e2e
def test_a_sweep_survives_a_job_and_goes_on_when_mended(tmp_path: Path) -> None:
    """Four jobs on two slots; the data of one are not there, until they are."""
    studio, late, here = Path(str(files("r2r") / "assets" / "studio")), tmp_path / "late data", tmp_path / "here"
    here.symlink_to(studio)
    settings = [*TINY, "trainer.limit_val_batches=0", "hydra.launcher.devices=2", "hydra.sweep.dir=four jobs"]
    done = python("r2r.train", "-m", *settings, f"data.root=embedded,'{late}','{here}','{studio}'", cwd=tmp_path)
    folder = tmp_path / "four jobs"
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "1 of 4 jobs are not done" in done.stdout and f"data.root='{late}'" in done.stdout
    jobs = read_jobs(folder)
    assert [job.state for job in jobs.values()] == ["done", "failed", "done", "done"]
    assert jobs[1].exit_code == 3 and str(late) in (jobs[1].error or "")
    shutil.copytree(studio, late)
    finished = [(folder / number / "run.json").read_text() for number in "023"]
    assert python("r2r.sweep", f"resume='{folder}'", cwd=tmp_path.parent).returncode == 0
    assert [job.state for job in read_jobs(folder).values()] == ["done"] * 4
    assert finished == [(folder / number / "run.json").read_text() for number in "023"]
    record = json.loads((folder / "1" / "run.json").read_text())
    assert record["status"] == "done" and record["config"]["data"]["root"] == str(late)


@pytest.mark.e2e
def test_a_job_of_a_sweep_may_have_several_processes(tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.strategy=ddp_gloo", "hydra.launcher.devices=2", "hydra.sweep.dir=wide"]
    done = python("r2r.train", "-m", *TINY, *two, "trainer.limit_val_batches=0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert record["world_size"] == 2 and record["status"] == "done"
    assert (tmp_path / "wide" / "0" / "log.txt").read_text().count("optimized_metric: null") == 1  # one config shown
