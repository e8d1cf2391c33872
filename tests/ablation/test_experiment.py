"""The whole command: from training to a page, killed in the middle and given again."""

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
    page = (straight / "index.html").read_text(encoding="utf-8")
    assert "TAC on both halves" not in page and "no TAC" in page
    scores = json.loads((straight / "scores.json").read_text())
    assert [row["key"] for row in scores["rows"]] == ["input", "autoencoder", "full", "no_tac"]
    assert scores["rows"][2]["evals"] > scores["rows"][3]["evals"] > 0
    refused = run(killed, "translation.guidance_scale=3")
    assert refused.returncode == 2 and "guidance_scale=2.0, now it is 3" in refused.stderr


def test_without_rows_it_says_what_is_missing() -> None:
    call = [sys.executable, "-m", "r2r.evaluate", "experiment=nothing", "output=x"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0 and "nothing" in done.stderr and "fashion_ablation" in done.stderr
