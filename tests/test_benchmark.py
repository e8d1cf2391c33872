"""The counts of work at full size: what is stored is what the code does, and it lies at the floors."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from r2r.benchmark import counters
from r2r.cli import compose
from r2r.errors import InputError

STORED = Path(__file__).parents[1] / "experiments" / "benchmark" / "counters.json"


@pytest.mark.e2e
def test_counts_are_those_that_are_stored() -> None:
    """A change of these numbers is a change of cost: measure it, then `python -m r2r.benchmark` writes new ones."""
    stored = json.loads(STORED.read_text())
    found = counters((stored["height"], stored["width"]))
    assert found == pytest.approx(stored["counters"], rel=1e-4)


def test_stored_counts_lie_at_the_floors() -> None:
    """A training step is three forward passes; textual inversion needs no gradients of weights."""
    found = json.loads(STORED.read_text())["counters"]
    forward = found["U-Net evaluation: TFLOP"]
    assert found["finetuning: TFLOP"] == pytest.approx(3 * forward, rel=0.02) == pytest.approx(2.407, rel=0.02)
    assert found["textual inversion: TFLOP"] <= 1.70
    assert found["finetuning, checkpointed: TFLOP"] <= 4 * forward
    assert found["finetuning, checkpointed: activations [MiB]"] < 0.15 * found["finetuning: activations [MiB]"]
    assert found["translation, source=row: U-Net evaluations"] == 54  # the released code: 90
    assert found["translation, source=recorded: U-Net evaluations"] == 42


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="height=500"):
        counters((500, 512))


@pytest.mark.e2e
def test_the_scripts_of_full_size_still_run(tmp_path: Path) -> None:
    """Counts of IGR as they are stored; of the steps, which take minutes and gigabytes, their command lines."""
    folder = STORED.parents[1] / "full_size"
    command = [sys.executable, str(folder / "igr_count.py"), "--output", str(tmp_path / "counts.json")]
    environment = {**os.environ, "PYTHONPATH": str(STORED.parents[2])}
    size = ["--height", "512", "--width", "384"]
    done = subprocess.run([*command, *size], capture_output=True, text=True, env=environment, check=False)
    found, stored = (json.loads(path.read_text()) for path in (tmp_path / "counts.json", folder / "igr_counts.json"))
    assert done.returncode == 0 and found == stored
    step = runpy.run_path(str(folder / "step.py"))
    for method, (experiment, *_) in step["METHODS"].items():
        assert compose("train", step["settings"](method, tmp_path, frozen=True)).name == experiment
