"""The counts of work at full size: what is stored is what the code does, and it lies at the floors."""

import json
import math
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from r2r.benchmark import counters
from r2r.cli import compose
from r2r.diffusion import NoiseLevels
from r2r.errors import InputError
from r2r.models import StableDiffusion
from r2r.tasks.denoising import denoising_loss

STORED = Path(__file__).parents[1] / "experiments" / "benchmark" / "counters.json"


@pytest.mark.e2e
def test_counts_are_those_that_are_stored() -> None:
    """A change of these numbers is a change of cost: measure it, then `python -m r2r.benchmark` writes new ones."""
    stored = json.loads(STORED.read_text())
    found = counters((stored["height"], stored["width"]))
    assert found == pytest.approx(stored["counters"], rel=1e-4)


def test_stored_counts_lie_at_the_floors() -> None:
    """A training step is three forward passes; textual inversion and LoRA need no gradients of weights."""
    found = json.loads(STORED.read_text())["counters"]
    forward = found["U-Net evaluation: TFLOP"]
    assert found["finetuning: TFLOP"] == pytest.approx(3 * forward, rel=0.02) == pytest.approx(2.407, rel=0.02)
    assert found["textual inversion: TFLOP"] <= 1.70
    assert 2 * forward < found["finetuning, LoRA: TFLOP"] < 1.1 * 2 * forward
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


@torch.no_grad()
def test_timed_trainings_compute_the_same_loss() -> None:
    """Of the same latents, noise and timesteps: r2r and the rebuilt loop of diffusers' script."""
    peers = runpy.run_path(str(STORED.with_name("peers.py")))
    model, latents = StableDiffusion.from_pretrained("tiny"), torch.randn(3, 8, 8, 8)
    condition, chance = model.encode_prompts(["a shirt"]).repeat(3), torch.Generator().manual_seed(0)
    noise, times = torch.randn(latents.shape, generator=chance), NoiseLevels().sample(3, 1000, chance)
    schedule = DDPMScheduler.from_config(model.pipe.scheduler.config)
    wanted = peers["target"](schedule, latents, noise, times)
    told = (schedule.add_noise(latents, noise, times), wanted, times, condition.prompt_embeds)
    predict = partial(model.predict, condition=condition)
    ours = denoising_loss(model, latents, predict, torch.Generator().manual_seed(0), NoiseLevels())
    assert float(ours) == pytest.approx(float(peers["loss_of"](model.unet, *told)), rel=1e-5)


def test_the_variant_of_the_timing_script_changes_what_it_says() -> None:
    """And leaves everything as it was."""
    variant, config = runpy.run_path(str(STORED.with_name("speed.py")))["variant"], torch._inductor.config
    for name, wanted in {"r2r fast, forced layout": True, "r2r fast": False}.items():
        with variant(name):
            assert config.force_layout_optimization is wanted
        assert config.force_layout_optimization is False


@pytest.mark.e2e
def test_the_timing_script_times_everything_and_hides_nothing(tmp_path: Path) -> None:
    """Times are not looked at; a pipeline that cannot take the tiny model is named with its message."""
    script, small = str(STORED.with_name("speed.py")), ["--model", "tiny", "--side", "64", "--batch", "2"]
    short = ["--seconds", "0.1", "--rounds", "1", "--window", "1", "--workers", "0", "--output", str(tmp_path)]
    pipelines = [f"{name}Pipeline" for name in ("StableDiffusionImg2Img", "StableDiffusionDiffEdit")]
    pipelines.append("LEditsPPPipelineStableDiffusion")
    told = [*small, *short, "--tasks", "textual inversion", "translation"]
    told += ["--contenders", "r2r", "diffusers", *pipelines]  # not "r2r fast", which takes a minute to compile
    environment = {**os.environ, "PYTHONPATH": str(STORED.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *told], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "speed.json").read_text())
    names = {f"textual inversion: {each}" for each in ("r2r", "diffusers")}
    names |= {f"translation: {each}" for each in ("r2r", *pipelines[:2])}
    assert set(found["results"]) == names
    assert "expanded size" in found["failed"]["translation: LEditsPPPipelineStableDiffusion"]  # takes four channels
    for result in found["results"].values():
        assert math.isfinite(result["images_per_second"]) and result["images_per_second"] > 0
    evals = {name: each.get("unet_evals_per_image") for name, each in found["results"].items()}
    assert evals["translation: r2r"] == 54 and evals["translation: StableDiffusionImg2ImgPipeline"] == 30
    assert (tmp_path / "speed.png").stat().st_size > 0
