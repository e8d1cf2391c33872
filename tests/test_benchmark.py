"""The counts of work at full size: what is stored is what the code does, and it lies at the floors."""

import json
from pathlib import Path

import pytest

from r2r.benchmark import counters
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
