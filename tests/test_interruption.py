"""Trainings that are ended from outside, in real processes: what is kept, how they end, and that they go on exactly."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

STEPS, EVERY = 12, 3


def command(sd_folder: Path, output: Path, *overrides: str) -> list[str]:
    """Twelve short steps on embedded photos, with EMA."""
    given = ["experiment=fashion_dki", "debug=smoke", f"model.pretrained={sd_folder}", "model.resolution=32"]
    given += ["data.resolution=32", f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={STEPS}"]
    given += [f"callbacks.checkpoint.every_n_train_steps={EVERY}", "callbacks=ema", "trainer.limit_val_batches=0"]
    return [sys.executable, "-m", "r2r.train", *given, f"paths.output_dir={output}", *overrides]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def run(arguments: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, check=False, **options)


def after_step(step: int, log: Path, arguments: list[str], number: int) -> int:
    """Start a run, send it a signal when its log tells of a step; returns how it ended."""
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(1200):
            if log.is_file() and len(log.read_text().splitlines()) > step:
                break
            time.sleep(0.05)
        process.send_signal(number)
        return process.wait(timeout=120)


def checkpoints(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "checkpoints").glob("*.ckpt")}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "checkpoints" / f"step_{STEPS:07d}.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def straight(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("straight") / "run"
    done = run(command(sd_folder, output))
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def same_end(output: Path, straight: Path) -> None:
    """Weights, averages and every loss of the straight run, bit for bit."""
    ends = [weights(each) for each in (output, straight)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    exports = [
        (each / "export" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for each in (output, straight)
    ]
    assert exports[0] == exports[1]
    losses = [sorted(set((each / "metrics.csv").read_text().splitlines()[1:])) for each in (output, straight)]
    assert losses[0] == losses[1]


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_run_goes_on_to_the_very_same_end(
    number: int, straight: Path, sd_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    ended = after_step(4, output / "metrics.csv", command(sd_folder, output), number)
    kept = checkpoints(output)
    if number == signal.SIGTERM:
        assert ended == 143 and max(kept) not in {f"step_{EVERY:07d}.ckpt"}  # saved where it was told to end
    else:
        assert ended == -9
    assert kept and all(len(content) > 1000 for content in kept.values())
    assert f"step_{STEPS:07d}.ckpt" not in kept
    done = run(command(sd_folder, output, "resume=auto"))
    assert done.returncode == 0, done.stderr[-3000:]
    same_end(output, straight)


@pytest.mark.e2e
def test_a_full_disk_is_told_and_costs_nothing(straight: Path, sd_folder: Path, tmp_path: Path) -> None:
    """Files may not grow beyond what a checkpoint takes, as on a disk without room."""
    output = tmp_path / "run"
    done = run(command(sd_folder, output, f"trainer.max_steps={EVERY}"))
    assert done.returncode == 0, done.stderr[-3000:]
    before = checkpoints(output)

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = run(command(sd_folder, output, "resume=auto"), preexec_fn=small)
    assert full.returncode == 5 and "Traceback" not in full.stderr, full.stderr[-3000:]
    for part in (
        "cannot write below",
        "GiB free",
        f"the last whole checkpoint is step_{EVERY:07d}.ckpt",
        "resume=auto",
    ):
        assert part in full.stderr, full.stderr[-2000:]
    assert checkpoints(output) == before
    done = run(command(sd_folder, output, "resume=auto"))
    assert done.returncode == 0, done.stderr[-3000:]
    same_end(output, straight)


@pytest.mark.e2e
def test_what_two_ranks_saved_one_goes_on_with(sd_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    two = ["trainer.devices=2", "trainer.strategy=ddp_gloo", f"trainer.max_steps={EVERY}"]
    done = run(command(sd_folder, output, *two))
    assert done.returncode == 0, done.stderr[-3000:]
    done = run(command(sd_folder, output, "resume=auto", f"trainer.max_steps={2 * EVERY}"))
    assert done.returncode == 0, done.stderr[-3000:]
    saved = torch.load(output / "checkpoints" / f"step_{2 * EVERY:07d}.ckpt", weights_only=True)
    assert saved["global_step"] == 2 * EVERY
