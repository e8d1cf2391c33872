"""The report verb: everything scored as by the evaluate verb, everything else read from disk, checks before work."""

import csv
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from r2r.cli import compose
from r2r.data.images import to_pil
from r2r.errors import InputError
from r2r.evaluate import evaluate
from r2r.report import gather, report
from tests.reporting.test_pages import elements

NAMES = ["a", "b", "more/c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sources, twins, masks, two runs of r2r with their records, one baseline; and a multirun of two trainings."""
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        source = torch.rand(3, 24, 32, generator=generator) * 1.6 - 0.8
        target = (source + 0.2 * torch.randn(3, 24, 32, generator=generator)).clamp(-1, 1)
        mixed = {"full": 0.2, "no_tac": 0.6, "cut": 0.9}
        pictures = {"source": source, "target": target} | {k: source.lerp(target, w) for k, w in mixed.items()}
        mask = torch.zeros(3, 24, 32) - 1
        mask[:, 4:20, 6:26] = 1
        for kind, picture in (pictures | {"hair": mask}).items():
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil(picture).save(path)
    for name, ratio in (("full", 0.9), ("no_tac", 0.0)):
        record = {"images": 3, "seconds": 6.0, "unet_sample_evals": 90, "peak_memory_gb": 1.5, "status": "done"}
        write(tmp_path / name, **record, config={"tac_ratio": ratio, "output": name, "seed": 0}, command=f"make {name}")
    for job, rate in enumerate((0.1, 0.2)):
        config = {"task": {"lr": rate}, "paths": {"output_dir": str(job)}}
        write(
            tmp_path / "trained" / str(job), steps=5, status="done", seconds=60.0, metrics={"loss": rate}, config=config
        )
    return tmp_path


def write(folder: Path, **record: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))


def arguments(folder: Path, *more: str) -> list[str]:
    """Two runs and a baseline, scored without the cache."""
    given = {"source": "source", "target": "target", "runs.full": "full", "runs.no_tac": "no_tac", "output": "out"}
    named = [f"{key}={folder / value}" for key, value in (given | {"baselines.CUT": "cut"}).items()]
    return [*named, "cache_dir=null", "device=cpu", *more]


def config(folder: Path, *more: str) -> DictConfig:
    return compose("report", arguments(folder, *more))


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.e2e
def test_end_to_end(folder: Path) -> None:
    """Page, tables, grid, record and W&B spec; names are free; the exit code is 0."""
    more = [f"runs.train={folder / 'trained'}", f"masks.hair={folder / 'hair'}", "max_scenes=2"]
    call = [sys.executable, "-m", "r2r.report", *arguments(folder, *more)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    out = folder / "out"
    assert str(out / "index.html") in done.stdout
    stems = ["comparison", "ablation_changes_against_full", "in_hair", "in_background", "costs", "training_runs"]
    assert not [f"{s}{e}" for s in stems for e in (".csv", ".md", ".tex") if not (out / f"{s}{e}").is_file()]
    html = (out / "index.html").read_text(encoding="utf-8")
    found = elements(html)
    assert len([div for div in found.named("div") if div.get("class") == "scene"]) == 2
    assert len(found.named("img")) == 2 + 2 * (2 + 3)  # the slider's, then source, three methods, and twin
    assert "The first 2 of 3 scenes" in html and "make no_tac" in html
    links = {link["href"] for link in found.named("a")}
    assert {(folder / "full").as_uri(), (folder / "cut").as_uri(), (folder / "trained" / "1").as_uri()} <= links
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "done" and record["config"]["runs"]["full"] == str(folder / "full")
    assert set(record["protocols"]) == set(rows(out / "per_image.csv")[0]) - {"key", "method"} | {
        f"KID to target{where} (r2r-features)" for where in ("", " in hair", " in background")
    }
    if find_spec("wandb_workspaces"):
        assert json.loads((out / "wandb_report.json").read_text())["displayName"] == "Rendered to real"
    else:
        assert 'pip install "r2r[wandb-reports]"' in done.stdout
    assert {path.name for path in folder.iterdir()} == {
        "source", "target", "hair", "full", "no_tac", "cut", "trained", "out",
    }  # fmt: skip


def test_scores_are_those_of_the_evaluate_verb(folder: Path) -> None:
    report(config(folder))
    methods = [f"outputs.{name}={folder / place}" for name, place in (("full", "full"), ("no_tac", "no_tac"))]
    methods.append(f"outputs.CUT={folder / 'cut'}")
    same = [f"source={folder / 'source'}", f"target={folder / 'target'}", f"output={folder / 'scores'}"]
    evaluate(compose("evaluate", [*same, *methods, "cache_dir=null", "device=cpu"]))
    ours, theirs = rows(folder / "out" / "comparison.csv"), rows(folder / "scores" / "table.csv")
    shared = set(ours[0]) & set(theirs[0])
    assert len(shared) > 10
    assert [{key: row[key] for key in shared} for row in ours] == [{key: row[key] for key in shared} for row in theirs]
    assert (folder / "out" / "per_image.csv").read_text() == (folder / "scores" / "per_image.csv").read_text()


def test_ablation_and_costs_come_from_the_records(folder: Path) -> None:
    report(config(folder, "~metrics.kid"))
    [full, no_tac] = rows(folder / "out" / "ablation_changes_against_full.csv")
    assert (full["Run"], full["tac_ratio"], full["SSIM to target"]) == ("full", "0.9", "")
    assert (no_tac["Run"], no_tac["tac_ratio"]) == ("no_tac", "0")
    assert float(no_tac["SSIM to target low"]) > 0
    costs = {row.pop("Images"): list(row.values()) for row in rows(folder / "out" / "costs.csv")}
    assert costs == {"full": ["30.0", "2.0", "1.5"], "no_tac": ["30.0", "2.0", "1.5"], "CUT": ["", "", ""]}


def test_one_run_makes_no_ablation(folder: Path) -> None:
    cfg = config(folder, "~metrics.kid")
    cfg.runs.pop("no_tac")
    report(cfg)
    assert not list((folder / "out").glob("ablation*"))


def test_training_runs_need_no_pictures(folder: Path) -> None:
    report(compose("report", [f"runs.sweep={folder / 'trained'}", f"output={folder / 'out'}"]))
    assert [(row["Run"], row["lr"], row["loss"]) for row in rows(folder / "out" / "training_runs.csv")] == [
        ("sweep/0", "0.1", "0.1"),
        ("sweep/1", "0.2", "0.2"),
    ]
    assert not (folder / "out" / "grid.png").exists()
    elements((folder / "out" / "index.html").read_text(encoding="utf-8"))


def test_jobs_of_a_training_sweep_are_listed_with_their_state(folder: Path) -> None:
    jobs = [{"job": job, "overrides": [], "folder": f"/gone/{job}", "module": "r2r.train"} for job in range(3)]
    states = [{"state": "done"}, {"state": "interrupted"}, {"state": "failed", "error": "InputError: no"}]
    lines = [json.dumps({**j, **s, "command": [], "cwd": "/gone"}) for j, s in zip(jobs, states, strict=True)]
    (folder / "trained" / "sweep.jsonl").write_text("\n".join(lines) + "\n")
    material = gather(compose("report", [f"runs.s={folder / 'trained'}", f"output={folder / 'out'}"]))
    assert [(run.name, run.state) for run in material.training] == [
        ("s/0", "done"),
        ("s/1", "interrupted"),
        ("s/2", "failed: InputError: no"),
    ]
    assert material.training[1].folder == folder / "trained" / "1"  # the sweep was moved


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runs.other=/nonexistent"], "other: no such folder: /nonexistent"),
        (["source=null"], "source=FOLDER is missing"),
        (["baselines.full={folder}/cut"], "both called full"),
        (["output={folder}/cut"], "one of the folders to be read"),
        (["sweep={folder}/cut"], "holds no figures"),
        (["wandb=yes"], "wandb=yes"),
        (["wandb=publish"], "wandb_project=NAME"),
        (["wandb=publish", "wandb_project=r2r"], "wandb login"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    folder: Path, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "wandb=publish" in overrides:
        pytest.importorskip("wandb_workspaces")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    with pytest.raises(InputError, match=message):
        report(config(folder, *(override.format(folder=folder) for override in overrides)))
    assert not (folder / "out").exists()


def test_missing_pictures_are_named_unless_skipped(folder: Path) -> None:
    (folder / "cut" / "b.png").unlink()
    with pytest.raises(InputError, match=r"(?s)source has 1 \(b\).*missing=skip"):
        report(config(folder))
    assert not (folder / "out").exists()
    report(config(folder, "missing=skip", "~metrics.kid"))
    assert {row["key"] for row in rows(folder / "out" / "per_image.csv")} == {"a", "more/c"}
    assert "Left out, since not in every folder: source b" in (folder / "out" / "index.html").read_text(
        encoding="utf-8"
    )


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"runs\.NAME=FOLDER"):
        report(compose("report", [f"output={tmp_path}"]))


def test_links_move_with_the_page(folder: Path) -> None:
    """Runs below the page's folder are linked by relative addresses."""
    shutil.move(folder / "cut", folder / "out" / "cut")
    cfg = config(folder, "~metrics.kid")
    cfg.baselines.CUT = str(folder / "out" / "cut")
    report(cfg)
    links = {link["href"] for link in elements((folder / "out" / "index.html").read_text()).named("a")}
    assert "cut/" in links and (folder / "full").as_uri() in links
