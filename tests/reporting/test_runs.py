"""Runs are read from disk as they were left: settings, costs, metrics, also of jobs that failed."""

import json
from pathlib import Path
from typing import Any

import pytest

from r2r.errors import DataError, InputError
from r2r.reporting.runs import (
    Run,
    changed_settings,
    flat,
    job_run,
    last_values,
    numbered_runs,
    read_run,
    short_names,
    training_table,
)


def write(folder: Path, **record: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_costs_are_per_image(tmp_path: Path) -> None:
    record = {"images": 4, "seconds": 10.0, "unet_sample_evals": 240, "peak_memory_gb": 3.0, "peak_gpu_memory_gb": None}
    run = read_run("full", write(tmp_path, **record))
    assert (run.evals, run.seconds, run.memory_gb, run.trained) == (60.0, 2.5, 3.0, False)
    assert read_run("gpu", write(tmp_path, peak_memory_gb=3.0, peak_gpu_memory_gb=7.5)).memory_gb == 7.5
    nothing = read_run("nothing", write(tmp_path, images=0, seconds=1.0))
    assert (nothing.evals, nothing.seconds, nothing.memory_gb) == (None, None, None)


def test_a_folder_of_anyone_is_a_run_without_record(tmp_path: Path) -> None:
    run = read_run("cut", tmp_path)
    assert (run.settings, run.evals, run.state, run.metrics, run.url) == ({}, None, "no record", {}, None)


def test_a_cell_of_a_sweep_has_its_settings_and_no_cost_of_its_own(tmp_path: Path) -> None:
    config = {"strength": [0.3, 0.5], "tac_ratio": [0.0, 0.9], "guidance_scale": 7.5}
    write(tmp_path, images=4, seconds=10.0, unet_sample_evals=99, status="done", config=config)
    cell = tmp_path / "strength_0.5" / "tac_0.9"
    cell.mkdir(parents=True)
    run = read_run("cell", cell)
    assert run.settings == {"strength": 0.5, "tac_ratio": 0.9, "guidance_scale": 7.5}
    assert (run.evals, run.seconds, run.trained, run.state) == (None, None, False, "done")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"full: no such folder: .*nowhere"):
        read_run("full", tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="is a file"):
        read_run("full", tmp_path / "run.json")
    for text in ("{", "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match=r"full: .*run\.json"):
            read_run("full", tmp_path)


def test_settings_are_flat_and_places_do_not_count() -> None:
    config = {"output": "a", "paths": {"output_dir": "b"}, "task": {"optimizer": {"lr": 0.1}}, "tac_ratio": 0.9}
    assert dict(flat({"a": {"b": [1, 2], "c": {}}, "d": None})) == {"a.b": [1, 2], "d": None}
    assert Run("r", Path(), {"config": config}).settings == {"task.optimizer.lr": 0.1, "tac_ratio": 0.9}


def test_only_settings_that_differ_are_changed() -> None:
    configs = [{"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}]
    runs = [Run(str(index), Path(), {"config": config}) for index, config in enumerate(configs)]
    assert changed_settings(runs) == {"b.c": [2, 3], "d": [None, 4]}
    assert changed_settings(runs[:1]) == {}
    assert short_names(["a.x.lr", "b.c", "b.lr"]) == ["a.x.lr", "c", "b.lr"]


def test_metrics_fall_back_on_the_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n1,0.5,\n2,0.25,0.4\n3,0.125,\n")
    assert last_values(tmp_path / "metrics.csv") == {"train/loss": 0.125, "val/loss": 0.4}
    assert read_run("r", write(tmp_path, steps=3, metrics={})).metrics == {"train/loss": 0.125, "val/loss": 0.4}
    assert read_run("r", write(tmp_path, steps=3, metrics={"train/loss": 1.0})).metrics == {"train/loss": 1.0}


def test_training_table_tells_what_was_changed_and_how_it_ended(tmp_path: Path) -> None:
    common = {"status": "done", "seconds": 90.0, "peak_memory_gb": 2.0, "metrics": {"train/loss": 0.5}}
    for index, rate in ((2, 0.1), (10, 0.2)):
        config = {"task": {"lr": rate}, "paths": {"output_dir": str(index)}, "seed": 0}
        write(tmp_path / str(index), steps=7, config=config, **common)
    write(tmp_path / "3", images=1)  # of another verb
    runs = numbered_runs(read_run("sweep", tmp_path))
    assert [run.name for run in runs] == ["sweep/2", "sweep/10"]
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "job.yaml").write_text("defaults: [_self_]\nhydra: {run: x}\ntask: {lr: 0.4}\nseed: 0\n")
    failed = job_run("sweep/11", tmp_path / "11", "failed", "InputError: no data")
    pending = job_run("sweep/12", tmp_path / "12", "pending", None)
    table = training_table([*runs, failed, pending])
    assert [column.title for column in table.columns] == [
        "Run", "lr", "Steps", "train/loss", "State", "Minutes", "Memory [GB]",
    ]  # fmt: skip
    assert table.texts() == [
        ["sweep/2", "0.1", "7", "0.500", "done", "1.5", "2.0"],
        ["sweep/10", "0.2", "7", "0.500", "done", "1.5", "2.0"],
        ["sweep/11", "0.4", "–", "–", "failed: InputError: no data", "–", "–"],
        ["sweep/12", "–", "–", "–", "pending", "–", "–"],
    ]


def test_a_job_that_never_finished_says_so(tmp_path: Path) -> None:
    write(tmp_path, steps=5, status="running", config={})
    assert job_run("s/0", tmp_path, "interrupted", None).state == "interrupted"
    write(tmp_path, steps=9, status="done", config={})
    assert job_run("s/0", tmp_path, "done", None).state == "done"
