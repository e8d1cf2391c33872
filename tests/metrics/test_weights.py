"""The id of weights follows names and values alone; loading from the hub leaves the libraries' notices as they were."""

from pathlib import Path

import pytest
import torch
from transformers import ViTModel
from transformers.utils import logging

from r2r.metrics.weights import from_hub, weights_id
from tests.metrics.networks import vit_folder


def test_id_follows_names_and_values() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "steps": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    known = weights_id(state)
    assert len(known) == 8 and int(known, 16) >= 0
    assert weights_id(dict(reversed(state.items()))) == known
    assert weights_id(state | {"a": state["a"].T.contiguous().T}) == known
    assert weights_id(state | {"a": state["a"] + 1e-6}) != known
    assert weights_id({name.replace("a", "b"): value for name, value in state.items()}) != known


def test_hub_networks_are_frozen_and_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = vit_folder(tmp_path)
    capfd.readouterr()
    level = logging.get_verbosity()
    network = from_hub(ViTModel, folder, add_pooling_layer=False)
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert logging.get_verbosity() == level
    assert capfd.readouterr().err == ""
