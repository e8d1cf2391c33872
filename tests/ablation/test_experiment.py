"""The whole command: from training to a page, killed in the middle and given again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

CLAIM = "claims=[{text: TAC keeps texture,after: full,before: no_tac,columns: [texture.detail]}]"
SMALL = [
    *("experiment=fashion_ablation", "num_scenes=4", CLAIM, "translation.num_inference_steps=4"),
    *("~rows.sdedit", "~rows.no_positive", "~rows.no_positive_more", "~rows.no_negative", "~rows.both_halves"),
    *(f"{half}.{key}" for half in ("positive", "negative") for key in ("trainer.max_steps=1", "data.batch_size=2")),
    *("trade_off.num_scenes=2", "trade_off.strength=[0.5,1]", "trade_off.tac_ratio=[0,0.9]"),
]


def command(output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "r2r.evaluate", *SMALL, f'output="{output}"', *more]


def run(output: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(output, *more), capture_output=True, text=True, timeout=900, check=False)


def costs_of(output: Path) -> dict[str, dict[str, str]]:
    """The table of costs by row."""
    lines = (output / "costs.csv").read_text(encoding="utf-8").splitlines()
    return {row["Images"]: row for row in csv.DictReader(lines)}


def kill_when(output: Path, pattern: str) -> None:
    """Start the command and kill it, without a warning, as soon as a file is there."""
    with (output.parent / "killed.log").open("wb") as log:
        process = subprocess.Popen(command(output), stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 600
        while not list(output.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, (output.parent / "killed.log").read_text()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.e2e
def test_killed_and_given_again_it_ends_with_the_same_table(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "a killed one"
    done = run(straight)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the work" in done.stdout and "TAC keeps texture" in done.stdout
    kill_when(killed, "seed_0/*/0000-*.png")
    assert not (killed / "table.csv").exists()
    again = run(killed)
    assert again.returncode == 0, again.stdout + again.stderr
    for name in ("table.csv", "table.md", "table.tex", "per_image.csv", "findings.json"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    for name in ("grid.png", "trade_off.png", "heat_maps.png"):
        with Image.open(straight / name) as picture:
            assert min(picture.size) > 100
    costs = costs_of(straight)
    assert list(costs) == ["autoencoder only", "full", "no TAC"]
    assert costs["full"]["Images seen in training"] == "4" and costs["autoencoder only"]["Training [min]"] == ""
    assert float(costs["full"]["Network evals per image"]) > float(costs["no TAC"]["Network evals per image"]) > 0
    page = (straight / "index.html").read_text(encoding="utf-8")
    assert "TAC on both halves" not in page and "no TAC" in page
    scores = json.loads((straight / "scores.json").read_text())
    assert [row["key"] for row in scores["rows"]] == ["input", "autoencoder", "full", "no_tac"]
    assert scores["rows"][2]["evals"] > scores["rows"][3]["evals"] > 0
    refused = run(killed, "translation.guidance_scale=3")
    assert refused.returncode == 2 and "guidance_scale=2.0, now it is 3" in refused.stderr


@pytest.mark.e2e
def test_methods_trained_from_scratch_stand_beside_the_others(tmp_path: Path) -> None:
    """One of each kind: a generator, an optimisation for each image, and FashionR2R."""
    few = ["experiment=baselines", "num_scenes=2", "claims=[]", "scratch.trainer.max_steps=2", "resolution=64"]
    few += [f"~rows.{name}" for name in ("fastcut", "santa", "unsb", "unsb_released")]
    few += [f"{half}.trainer.max_steps=1" for half in ("positive", "negative")]
    few += ["rows.vct.translation={task: vct,reference: ${output}/reference.png,task.guidance_scale: 2,"]
    few[-1] += "task.num_inference_steps: 2,task.null_text.num_inner_steps: 1,task.concept.steps: 1}"
    call = [sys.executable, "-m", "r2r.evaluate", *few, "translation.num_inference_steps=2", f"output={tmp_path}"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    costs = costs_of(tmp_path)
    assert list(costs) == ["CUT", "VCT", "FashionR2R"]
    assert costs["CUT"]["Images seen in training"] == "2" and float(costs["CUT"]["Network evals per image"]) == 1
    assert costs["VCT"]["Images seen in training"] == "" and float(costs["VCT"]["Training [min]"]) > 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert [row["name"] for row in scores["rows"]] == ["input (identity)", "CUT", "VCT", "FashionR2R"]


def test_without_rows_it_says_what_is_missing() -> None:
    call = [sys.executable, "-m", "r2r.evaluate", "experiment=nothing", "output=x"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0 and "nothing" in done.stderr and "fashion_ablation" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("experiment", "row", "columns"),
    [
        ("restore_demo", "restored", {"twin.ssim", "twin.psnr", "twin.distance", "twin_garment.ssim"}),
        ("pose_demo", "moved", {"twin.ssim", "twin.psnr", "twin.distance", "twin_garment.ssim", "twin_face.ssim"}),
    ],
)
def test_the_small_models_that_ship_beat_a_plain_copy_in_tone_and_texture(
    experiment: str, row: str, columns: set[str], tmp_path: Path
) -> None:
    """`make demo-restore` against cut-out garments, `make demo-pose` against the source, on six persons."""
    told = [f"experiment={experiment}", "num_scenes=6", f"output={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "r2r.evaluate", *told], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))["findings"]
    changes = {each["column"]: each["change"]["value"] for each in found}
    assert set(changes) == columns
    assert changes["twin.psnr"] > 0 and changes["twin_garment.ssim"] > 0
    costs = costs_of(tmp_path)
    assert float(costs[row]["Network evals per image"]) == 38  # two rows; the last of 20 steps changes nothing
    assert "held-out scenes" in (tmp_path / "index.html").read_text(encoding="utf-8")
