"""Seconds of a training step: the Lightning run beside a plain PyTorch loop of the same networks and losses.

python experiments/baselines/speed.py cut --side 256 --batch 1 --steps 4

Each run has a process of its own, in turns, so that peak memory is its own and a slow spell of the machine meets both.
CUT has a third: the passes of the released code, four encodings where r2r has one.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from r2r.cli import build, compose
from r2r.models.gan.losses import gan_loss

Batch = dict[str, dict[str, Tensor]]


def batch_of(side: int, count: int) -> Batch:
    """Random images of every domain."""
    names = ("source", "target", "second_source")
    return {name: {"image": torch.rand(count, 3, side, side) * 2 - 1} for name in names}


class Clock(Callback):
    """The time after every step."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """The first tick."""
        self.ticks = self.ticks or [time.perf_counter()]

    def on_train_batch_end(self, *args: Any) -> None:
        """One more."""
        self.ticks.append(time.perf_counter())


def lightning_run(task: Any, batch: Batch, steps: int) -> list[float]:
    """As `r2r.train` runs it, without data loading, validation and files."""
    clock = Clock()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="auto", devices=1, max_steps=steps, callbacks=[clock], **quiet)
    trainer.fit(task, DataLoader([batch] * steps, batch_size=None))
    return clock.ticks


def plain_loop(task: Any, batch: Batch, steps: int) -> list[float]:
    """The same networks and losses, updated by torch alone."""
    optimizers = [each["optimizer"] for each in task.configure_optimizers()]
    source, target = batch["source"]["image"], batch["target"]["image"]
    ticks = [time.perf_counter()]
    for step in range(steps):
        for loss, number in losses_of(task, batch, source, target, step):
            optimizers[number].zero_grad()
            loss.backward()
            optimizers[number].step()
        ticks.append(time.perf_counter())
    return ticks


def losses_of(task: Any, batch: Batch, source: Tensor, target: Tensor, step: int) -> Any:
    """Losses with the number of their optimizer, each computed when the one before has been stepped."""
    from r2r.tasks.santa import draw_stretch

    chance = torch.Generator().manual_seed(step * 4_099)  # as `noise_generator`: equal places on UNSB's bridge
    name = type(task).__name__
    if name == "CUT":
        made = task.translate_batch(source, target)
        yield task.discriminator_loss(made, target), 1
        yield task.generator_losses(made, task.contrast.draw(chance))["generator"], 0
    elif name == "SANTA":
        made = task.decode_batch(source, target, chance)
        yield task.discriminator_loss(made, target), 1
        yield task.generator_losses(made, source, target, *draw_stretch(len(source), chance))["generator"], 0
    else:
        bridge, model = task.model.bridge, task.model
        index = int(torch.randint(bridge.num_timesteps, (), generator=chance))
        images = torch.cat([source, batch["second_source"]["image"], target])
        with torch.no_grad():
            places = bridge.walk(images, lambda x, place: model.guess(x, place, chance), index, chance)
        made = task.guess_batch(places, index, torch.randn(len(images), model.code_size))
        yield task.discriminator_loss(made, target), 1
        yield task.energy_loss(made), 2
        codes = torch.randn(2 * len(source), model.code_size)
        yield task.generator_losses(made, source, target, codes, task.contrast.draw(chance))["generator"], 0


def released_passes(task: Any, batch: Batch, steps: int) -> list[float]:
    """CUT with the passes of the released code: queries and keys of both contrasts encoded one by one."""
    optimizers = [each["optimizer"] for each in task.configure_optimizers()]
    source, target = batch["source"]["image"], batch["target"]["image"]
    ticks = [time.perf_counter()]
    for step in range(steps):
        draw = task.contrast.draw(torch.Generator().manual_seed(step))
        fake, same = task.model(torch.cat([source, target]))[0].chunk(2)
        real = gan_loss(task.discriminator(target), True)
        discriminator = 0.5 * (gan_loss(task.discriminator(fake.detach()), False) + real)
        optimizers[1].zero_grad()
        discriminator.backward()
        optimizers[1].step()
        task.discriminator.requires_grad_(False)
        total = gan_loss(task.discriminator(fake), True)
        for made, given in ((fake, source), (same, target)):
            queries = task.model(made, task.nce_layers, encode_only=True)[1]
            keys = task.model(given, task.nce_layers, encode_only=True)[1]
            total = total + task.contrast(queries, keys, draw(keys)) / 2
        optimizers[0].zero_grad()
        total.backward()
        optimizers[0].step()
        task.discriminator.requires_grad_(True)
        ticks.append(time.perf_counter())
    return ticks


RUNS = {"lightning": lightning_run, "plain": plain_loop, "released_passes": released_passes}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One run in this process: seconds of each step after the first, and peak memory."""
    config = compose("train", [f"experiment={options.method}", f"model.width={options.width}"])
    torch.manual_seed(0)
    task = build(config.task, model=build(config.model))
    ticks = RUNS[options.run](task, batch_of(options.side, options.batch), options.steps + 1)
    seconds = [after - before for before, after in pairwise(ticks[1:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": sorted(seconds)[len(seconds) // 2], "fastest": min(seconds), "peak_memory_gb": round(peak, 2)}


def main() -> None:
    """Measure one run, or all in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=["cut", "fastcut", "santa", "unsb"])
    for name, default in {"side": 256, "batch": 1, "width": 64, "steps": 3, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run", choices=list(RUNS), help="this one alone, in this process")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(options)))
        return
    runs = list(RUNS) if options.method == "cut" else list(RUNS)[:2]
    found: dict[str, list[dict[str, float]]] = {run: [] for run in runs}
    for run in runs * options.rounds:
        done = subprocess.run([sys.executable, *sys.argv, "--run", run], capture_output=True, text=True, check=True)
        found[run].append(json.loads(done.stdout.splitlines()[-1]))
    best = {run: min(each["fastest"] for each in rounds) for run, rounds in found.items()}
    ratios = {f"{run} / plain": round(seconds / best["plain"], 3) for run, seconds in best.items() if run != "plain"}
    memory = {run: max(each["peak_memory_gb"] for each in rounds) for run, rounds in found.items()}
    settings = {name: value for name, value in vars(options).items() if name != "run"}
    print(json.dumps({**settings, "seconds": best, "ratios": ratios, "peak_memory_gb": memory}))


if __name__ == "__main__":
    main()
