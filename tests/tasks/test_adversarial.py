"""CUT, FastCUT, SANTA and UNSB as runs: steps mean batches, resuming is exact, ranks average, costs are as said."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from safetensors.torch import load_file

from r2r.cli import build, compose
from r2r.errors import InputError
from r2r.models.gan import load_generator
from r2r.train import train

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")
METHODS = ("cut", "fastcut", "santa", "unsb")
NETWORKS = {"cut": 2, "fastcut": 2, "santa": 2, "unsb": 3}  # optimizers


def small(method: str, folder: Path, *more: str) -> list[str]:
    """An experiment at the size of a stamp, on the embedded scenes."""
    settings = ["model.width=4", "data.resolution=32", "data.num_workers=0", "trainer.accelerator=cpu"]
    settings += [
        "trainer.max_steps=2",
        "trainer.limit_val_batches=2",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
    ]
    settings += [] if method == "santa" else ["task.num_patches=16", "task.num_features=8"]
    return [f"experiment={method}", *settings, f"paths.output_dir={folder}", *more]


def run(method: str, folder: Path, *more: str) -> LightningModule:
    return train(compose("train", small(method, folder, *more)))


def parameters(task: LightningModule) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_batches_and_all_networks_train(method: str, tmp_path: Path) -> None:
    config = compose("train", small(method, tmp_path / "run", "trainer.max_steps=3", "trainer.val_check_interval=3"))
    torch.manual_seed(0)
    task = train(config)
    assert task.trainer.global_step == 3
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_0000003.ckpt"]
    optimizers = task.optimizers()
    assert isinstance(optimizers, list) and len(optimizers) == NETWORKS[method]
    for optimizer in optimizers:
        assert {int(state["step"]) for state in optimizer.state.values()} == {3}
    trained = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.parameters()} and all(p.requires_grad for p in task.parameters())
    schedules: Any = task.lr_schedulers()
    assert [each.last_epoch for each in schedules] == [3] * NETWORKS[method]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2"]
    assert any(row["val/kid"] for row in rows)
    assert (tmp_path / "run" / "samples" / "step_0000003.png").is_file()
    exported = load_generator(tmp_path / "run" / "export")
    assert all(torch.equal(value, task.model.state_dict()[key]) for key, value in exported.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_a_straight_one(method: str, tmp_path: Path) -> None:
    pace = ["trainer.limit_val_batches=0", "callbacks.checkpoint.every_n_train_steps=2"]
    schedule = ["task.lr_scheduler.num_training_steps=4"]
    straight = run(method, tmp_path / "a", *pace, *schedule, "trainer.max_steps=4")
    run(method, tmp_path / "b", *pace, *schedule, "trainer.max_steps=2")
    resumed = run(method, tmp_path / "b", *pace, *schedule, "trainer.max_steps=4", "resume=auto")
    assert resumed.trainer.global_step == 4
    for name, value in parameters(straight).items():
        assert torch.equal(value, parameters(resumed)[name]), name


def batch_of(count: int, second: bool) -> dict[str, Any]:
    def domain(seed: int) -> dict[str, Any]:
        chance = torch.Generator().manual_seed(seed)
        colours = torch.rand(count, 3, 2, 2, generator=chance) * 2 - 1
        return {"image": torch.nn.functional.interpolate(colours, size=32, mode="nearest")}

    names = ["source", "target", *(["second_source"] if second else [])]
    return {name: domain(seed) for seed, name in enumerate(names)}


class Calls:
    """How many images went through each network."""

    def __init__(self, task: LightningModule) -> None:
        self.images: dict[str, int] = {}
        for name in ("model", "discriminator", "energy"):
            if (network := getattr(task, name, None)) is not None:
                network.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def count(module: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            self.images[name] = self.images.get(name, 0) + len(inputs[0])

        return count


@pytest.mark.parametrize("method", ["cut", "fastcut"])
def test_what_a_step_costs(method: str, tmp_path: Path) -> None:
    config = compose("train", small(method, tmp_path))
    task = build(config.task, model=build(config.model))
    calls, batch = Calls(task), batch_of(3, False)
    made = task.translate_batch(batch["source"]["image"], batch["target"]["image"])
    task.discriminator_loss(made, batch["target"]["image"])
    task.generator_losses(made, task.contrast.draw(torch.Generator().manual_seed(0)))
    # a whole pass and an encoder pass of translations, and with the identity loss of target images
    assert calls.images == {"model": 3 * (4 if method == "cut" else 2), "discriminator": 3 * 3}


@pytest.mark.parametrize("method", ["cut", "santa"])
def test_a_loss_falls_on_one_batch(method: str, tmp_path: Path) -> None:
    config = compose("train", small(method, tmp_path, "task.optimizer.lr=0.01"))
    torch.manual_seed(0)
    task = build(config.task, model=build(config.model))
    batch = batch_of(2, False)
    source, target = batch["source"]["image"], batch["target"]["image"]
    found = []
    optimizer = task.configure_optimizers()[0]["optimizer"]
    for _ in range(30):
        chance = torch.Generator().manual_seed(0)
        if method == "cut":
            losses = task.generator_losses(task.translate_batch(source, target), task.contrast.draw(chance))
        else:
            half = torch.full((2,), 0.07)
            losses = task.generator_losses(task.decode_batch(source, target, chance), source, target, 5 * half, half)
        optimizer.zero_grad()
        losses["generator"].backward()
        optimizer.step()
        found.append(losses["generator"].detach().item())
    assert found[-1] < 0.9 * found[0]


def test_unsb_asks_for_a_second_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="second_source=true"):
        run("unsb", tmp_path, "data.second_source=false")


def test_released_weights_start_a_run(tmp_path: Path) -> None:
    config = compose("train", small("cut", tmp_path))
    network = build(config.model)
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    config.task.released_weights = str(tmp_path)
    task = build(config.task, model=build(config.model))
    assert all(torch.equal(value, task.model.state_dict()[key]) for key, value in network.state_dict().items())
    config.task.released_weights = str(tmp_path / "nowhere")
    with pytest.raises(Exception, match=r"holds no latest_net_G\.pth"):
        build(config.task, model=build(config.model))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_averages(method: str, tmp_path: Path) -> None:
    task = run(method, tmp_path, "trainer.precision=bf16-mixed", "+callbacks.ema._target_=r2r.callbacks.EMA")
    assert all(torch.isfinite(value).all() for value in task.state_dict().values())
    assert all(p.dtype == torch.float32 for p in task.parameters())


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["cut", "santa"])
def test_two_ranks_equal_one_process_with_twice_the_batch(method: str, tmp_path: Path) -> None:
    """By gradient descent, as Adam's first steps are signs of gradients that may be nothing but rounding.

    The rate keeps a step (here up to 0.05) below the size of the weights: larger ones multiply rounding.
    """
    exact = ["task.optimizer._target_=torch.optim.SGD", "~task.optimizer.betas", "task.optimizer.lr=0.001"]
    exact += ["trainer.limit_val_batches=2", "trainer.max_steps=2"]
    exact += ["task.num_patches=2000"] if method == "cut" else ["task.noise_std=0", "task.lambda_path=0"]
    ranks = ["trainer.devices=2", "trainer.strategy=ddp_gloo", "data.batch_size=1"]
    for name, more in {"alone": ["data.batch_size=2"], "ranks": ranks}.items():
        done = subprocess.run(
            [sys.executable, "-m", "r2r.train", *small(method, tmp_path / name, *exact, *more)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    alone, ranks_together = (load_file(tmp_path / name / "export" / "model.safetensors") for name in ("alone", "ranks"))
    for key, value in alone.items():
        assert torch.allclose(value, ranks_together[key], rtol=0, atol=2e-6), key
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("alone", "ranks")]
    assert [record["steps"] for record in records] == [2, 2]
    assert records[1]["world_size"] == 2 and "val/kid" in records[1]["metrics"]
