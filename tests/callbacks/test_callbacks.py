"""Callbacks by themselves: the metrics file, averaged weights, W&B without an account."""

import csv
import os
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer

from r2r.callbacks import EMA, CsvMetrics
from r2r.callbacks.wandb_logger import has_account, wandb_logger
from r2r.errors import InputError


def test_metrics_grow_columns_and_survive_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = CsvMetrics(str(tmp_path))
    first.log_metrics({"loss": 1.0}, 0)
    first.log_metrics({"val": 2.0}, 0)
    second = CsvMetrics(str(tmp_path))
    second.log_metrics({"loss": 0.5}, 1)
    monkeypatch.setattr(CsvMetrics, "_read", lambda self: pytest.fail("the file was read for a row like those before"))
    second.log_metrics({"loss": 0.25}, 2)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "0", "loss": "1", "val": ""},
        {"step": "0", "loss": "", "val": "2"},
        {"step": "1", "loss": "0.5", "val": ""},
        {"step": "2", "loss": "0.25", "val": ""},
    ]


class Weight(LightningModule):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.0]))


def test_ema_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decay with diffusers' warm-up, min(d, 1 - (1 + k)^(-2/3)); raw weights come back after validation."""
    module, trainer = Weight(), Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    ema = EMA(decay=0.5)
    ema.on_fit_start(trainer, module)
    average = 0.0
    for step in range(1, 4):
        monkeypatch.setattr(Trainer, "global_step", step)
        module.weight.data.fill_(float(step))
        decay = 0.0 if step == 1 else min(0.5, 1 - step ** (-2 / 3))
        average = decay * average + (1 - decay) * step
        ema.on_train_batch_end(trainer, module)
        ema.on_train_batch_end(trainer, module)  # accumulating batches: no step, no averaging
    ema.on_validation_start(trainer, module)
    assert float(module.weight.detach()) == pytest.approx(average, rel=1e-5)
    ema.on_validation_end(trainer, module)
    assert float(module.weight.detach()) == 3.0
    again = EMA(decay=0.5)
    again.load_state_dict(ema.state_dict())
    again.on_fit_start(trainer, module)
    again.on_train_end(trainer, module)
    assert float(module.weight.detach()) == pytest.approx(average, rel=1e-5)


def test_ema_every_second_step_has_the_decay_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a resumed run does not average the weights of its checkpoint again, when its first batch makes no step."""
    module, trainer = Weight(), Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    ema = EMA(decay=0.5, every=2)
    ema.on_fit_start(trainer, module)
    for step in range(1, 9):
        monkeypatch.setattr(Trainer, "global_step", step)
        module.weight.data.fill_(float(step))
        ema.on_train_batch_end(trainer, module)
    average = 2.0
    for step in (4, 6, 8):
        average += (1 - min(0.25, 1 - (step // 2) ** (-2 / 3))) * (step - average)
    assert float(ema.average.shadow_params[0]) == pytest.approx(average, rel=1e-5)
    again = EMA(decay=0.5, every=2)
    again.load_state_dict(ema.state_dict())
    again.on_fit_start(trainer, module)
    again.on_train_start(trainer, module)
    module.weight.data.fill_(100.0)
    again.on_train_batch_end(trainer, module)
    assert float(again.average.shadow_params[0]) == pytest.approx(average, rel=1e-5)
    with pytest.raises(InputError, match=r"ema\.every=0"):
        EMA(every=0)


def test_wandb_needs_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_account()
    wandb_logger(project="r2r", save_dir=tmp_path)
    assert os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert has_account()
