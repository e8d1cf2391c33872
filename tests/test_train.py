"""The train verb: what trains, exact resuming, exports that load, and bad commands that end early and clearly."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from hydra.errors import InstantiationException
from lightning import LightningModule
from PIL import Image
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from r2r.cli import CONF, compose
from r2r.errors import InputError
from r2r.train import find_checkpoint, train

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")  # resuming goes on in the same folder

STATES = "__bnb_optimizer_quant_state__"  # where a bitsandbytes optimizer keeps its own
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve captioned images in a plain folder."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        pixels = torch.randint(0, 256, (40, 48, 3), generator=torch.Generator().manual_seed(index)).byte()
        Image.fromarray(pixels.numpy()).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text("a shirt")
    return folder


@pytest.fixture
def quick(photos: Path, sd_folder: Path, tmp_path: Path) -> list[str]:
    """Overrides that make any experiment run in seconds: random pipeline, small images, few steps."""
    return [
        f"model.pretrained={sd_folder}",
        "model.resolution=32",
        "data=folder",
        f"data.root={photos}",
        "data.num_workers=0",
        "data.val_fraction=0.4",
        "data.batch_size=2",
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        "trainer.log_every_n_steps=1",
        "trainer.limit_val_batches=1",
        f"paths.output_dir={tmp_path / 'run'}",
    ]


def run(*overrides: str) -> LightningModule:
    return train(compose("train", list(overrides)))


def trained(task: LightningModule) -> set[str]:
    return {name for name, p in task.named_parameters() if p.requires_grad}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "r2r.train", *arguments], capture_output=True, text=True, env=env, check=False
    )


def test_positive_half_trains_the_unet_and_exports_a_pipeline(quick: list[str], tmp_path: Path) -> None:
    task = run("experiment=fashion_dki", *quick, "task.single_file=true")
    assert trained(task) == {f"unet.{name}" for name, _ in task.model.unet.named_parameters()}
    out = tmp_path / "run"
    pipe = DiffusionPipeline.from_pretrained(out / "export")
    assert isinstance(pipe, StableDiffusionPipeline)
    file = str(out / "export" / "single_file.safetensors")
    of_file = StableDiffusionPipeline.from_single_file(file, config=str(out / "export"))
    for name, value in task.model.unet.state_dict().items():
        assert torch.equal(pipe.unet.state_dict()[name], value) and torch.equal(of_file.unet.state_dict()[name], value)
    assert (out / "checkpoints" / "step_0000002.ckpt").is_file()
    assert (out / "samples" / "step_0000000.png").is_file() and (out / "samples" / "first_batch.png").is_file()
    assert "| steps | 2 |" in (out / "export" / "README.md").read_text() and (out / "export" / "samples.png").is_file()
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "done" and record["steps"] == 2 and record["unet_sample_evals"] > 0
    assert record["trained_parameters"] == sum(p.numel() for p in task.model.unet.parameters())
    with (out / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 2


def test_a_hub_that_lets_nobody_in_ends_the_command_before_the_first_step(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> None:
        raise OSError("no token")

    monkeypatch.setattr(huggingface_hub, "HfApi", nobody)
    with pytest.raises(InputError, match=r"push_to_hub=me/model: .*no token"):
        run("experiment=fashion_dki", *quick, "callbacks.export.push_to_hub=me/model")
    assert not (tmp_path / "run" / "export").exists() and not (tmp_path / "run" / "metrics.csv").exists()


def test_the_loss_can_be_about_the_garment(quick: list[str], sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give data\.mask_member"):
        run("experiment=fashion_dki", *quick, "task.background_weight=0.1")
    given = [f"model.pretrained={sd_folder}", "model.resolution=32", "debug=smoke", "data.resolution=32"]
    given += [
        "experiment=fashion_dki",
        "data.mask_member=garment_mask.png",
        "trainer.max_steps=1",
        "task.offset_noise=0.1",
    ]
    given += ["model.schedule={prediction_type: v_prediction, rescale_betas_zero_snr: true}", "task.min_snr_gamma=5.0"]
    task = run(*given, "task.background_weight=0.25", f"paths.output_dir={tmp_path / 'garment'}")
    batch = next(iter(task.trainer.datamodule.val_dataloader()))
    latents = task.encode(batch["image"])
    places = task._places(batch, latents)
    assert places.shape == (2, 1, 16, 16) and places.min() >= 0.25 and places.max() == 1.0
    covered = batch["garment_mask"].float().mean((1, 2, 3))
    torch.testing.assert_close(places.mean((1, 2, 3)), 0.25 + 0.75 * covered)
    scheduler = json.loads((tmp_path / "garment" / "export" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["rescale_betas_zero_snr"] is True and scheduler["prediction_type"] == "v_prediction"
    with pytest.raises(InstantiationException, match=r"background_weight=0\.0"):
        run(*given, "task.background_weight=0.0", f"paths.output_dir={tmp_path / 'none'}")


def test_pictures_beside_keep_the_prior(quick: list[str], photos: Path, tmp_path: Path) -> None:
    told = [each for each in quick if not each.startswith(("data=", "data.root=", "data.val_fraction="))]
    told += ["experiment=fashion_dki", "data=with_prior", "data@data.target=folder", "data.target.val_fraction=0.4"]
    told += [f"data.target.root={photos}", f"data.source.root={photos}"]
    with pytest.raises(InputError, match=r"prior_weight=0: above 0 it needs data=with_prior, which needs it"):
        run(*told)
    with pytest.raises(InputError, match=r"prior_weight=2: above 0"):  # before a model is looked for
        run("experiment=fashion_dki", *quick, "task.prior_weight=2.0", f"model.pretrained={tmp_path / 'none'}")
    with pytest.raises(InstantiationException, match=r"prior_weight=-1"):
        run("experiment=fashion_dki", *quick, "task.prior_weight=-1.0")
    told[-3:-3] = ["task.prior_weight=2.0"]
    straight = run(
        *told, "trainer.max_steps=4", "trainer.val_check_interval=2", f"paths.output_dir={tmp_path / 'straight'}"
    )
    with (tmp_path / "straight" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert all(float(row["train/prior_loss"]) > 0 for row in rows) and len(rows) == 4
    assert "val/loss" in straight.trainer.callback_metrics
    run(*told, f"paths.output_dir={tmp_path / 'resumed'}")
    resumed = run(*told, "trainer.max_steps=4", f"paths.output_dir={tmp_path / 'resumed'}", "resume=auto")
    for name, value in straight.unet.state_dict().items():
        torch.testing.assert_close(resumed.unet.state_dict()[name], value, atol=0, rtol=0, msg=name)
    told = [each for each in told if not each.startswith(("data@data.target", "data.target."))]
    run(*told, "data.target.mask_member=garment_mask.png", "task.background_weight=0.5", "trainer.max_steps=1")


def test_negative_half_trains_the_placeholder_alone(quick: list[str], tmp_path: Path, sd_folder: Path) -> None:
    task = run("experiment=fashion_negative", "task.num_vectors=3", *quick)
    assert trained(task) == {"vectors.0"}
    assert not any(p.grad is not None for p in task.model.unet.parameters())
    file = tmp_path / "run" / "export" / "rendered.safetensors"
    (token, vectors), *others = load_file(file).items()
    assert token == "<rendered>" and vectors.shape == (3, 24) and not others
    pipe = DiffusionPipeline.from_pretrained(sd_folder)
    pipe.load_textual_inversion(str(file))
    assert pipe.maybe_convert_prompt("<rendered>", pipe.tokenizer) == "<rendered> <rendered>_1 <rendered>_2"


def test_sdxl_trains_both_halves(quick: list[str], sdxl_folder: Path, tmp_path: Path) -> None:
    model = f"model.pretrained={sdxl_folder}"
    run("experiment=fashion_dki", *quick, model)
    task = run("experiment=fashion_negative", *quick, model, f"paths.output_dir={tmp_path / 'negative'}")
    assert trained(task) == {"vectors.0", "vectors.1"}
    vectors = load_file(tmp_path / "negative" / "export" / "rendered.safetensors")
    assert {name: v.shape for name, v in vectors.items()} == {"clip_l": (4, 24), "clip_g": (4, 32)}


def test_text_encoders_train_only_when_asked(quick: list[str]) -> None:
    task = run("experiment=fashion_dki", "task.train_text_encoder=true", *quick)
    assert any(name.startswith("text_encoders.0.") for name in trained(task))


def test_resuming_equals_a_straight_run(quick: list[str], tmp_path: Path) -> None:
    """Four steps, and two steps twice: the same weights, bit for bit; the metrics of both halves in one file."""
    straight = run("experiment=fashion_dki", *quick, "trainer.max_steps=4", f"paths.output_dir={tmp_path / 'a'}")
    run("experiment=fashion_dki", *quick, f"paths.output_dir={tmp_path / 'b'}")
    again = "trainer.max_steps=4", "resume=auto", f"paths.output_dir={tmp_path / 'b'}"
    resumed = run("experiment=fashion_dki", *quick, *again)
    for name, value in straight.model.unet.state_dict().items():
        assert torch.equal(resumed.model.unet.state_dict()[name], value), name
    rows: dict[str, list[Any]] = {}
    for name in "ab":
        with (tmp_path / name / "metrics.csv").open() as file:
            rows[name] = [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert rows["a"] == rows["b"]


def test_an_eight_bit_optimizer_goes_on_too(quick: list[str], tmp_path: Path) -> None:
    """Its states lie in checkpoints in 8 bits; four steps, and two twice, end with the same weights."""
    pytest.importorskip("bitsandbytes", "0.50", reason="pip install 'bitsandbytes>=0.50'")
    told = ["experiment=fashion_dki", *quick, "task.optimizer._target_=bitsandbytes.optim.AdamW8bit"]
    straight = run(*told, "trainer.max_steps=4", f"paths.output_dir={tmp_path / 'a'}")
    run(*told, f"paths.output_dir={tmp_path / 'b'}")
    resumed = run(*told, "trainer.max_steps=4", "resume=auto", f"paths.output_dir={tmp_path / 'b'}")
    for name, value in straight.model.unet.state_dict().items():
        assert torch.equal(resumed.model.unet.state_dict()[name], value), name
    stored = torch.load(tmp_path / "a" / "checkpoints" / "step_0000004.ckpt", weights_only=True)
    states = [each[STATES] for each in stored["optimizer_states"][0]["state"].values()]
    moments = [each[name] for each in states for name in ("state1", "state2")]
    small = sum(each.numel() for each in moments if each.dtype == torch.uint8)
    assert small > 0.9 * sum(each.numel() for each in moments)  # bitsandbytes keeps short vectors in float32


@pytest.mark.parametrize("kept", [1, 2])
def test_resuming_while_accumulating_equals_a_straight_run(kept: int, quick: list[str], tmp_path: Path) -> None:
    """Two batches to a step, from any checkpoint: the average is that of the straight run too."""
    told = ["experiment=fashion_dki", *quick, "trainer.accumulate_grad_batches=2", "callbacks=ema"]
    told += ["trainer.max_steps=4", "callbacks.checkpoint.every_n_train_steps=1", "callbacks.checkpoint.save_top_k=-1"]
    straight = run(*told)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if path.name != f"step_{kept:07d}.ckpt":
            path.unlink()
    resumed = run(*told, "resume=auto")
    assert resumed.trainer.fit_loop.total_batch_idx == 5  # the third batch of an epoch, its last, is a step alone
    for name, value in straight.model.unet.state_dict().items():  # the averaged weights
        assert torch.equal(resumed.model.unet.state_dict()[name], value), name


def test_gradient_checkpointing_changes_no_weight(quick: list[str], tmp_path: Path) -> None:
    plain = run("experiment=fashion_dki", *quick)
    told = ["task.gradient_checkpointing=true", f"paths.output_dir={tmp_path / 'b'}"]
    other = run("experiment=fashion_dki", *quick, *told)
    assert other.model.unet.is_gradient_checkpointing and not plain.model.unet.is_gradient_checkpointing
    for name, value in plain.model.unet.state_dict().items():
        assert torch.equal(other.model.unet.state_dict()[name], value), name


def test_mixed_precision_keeps_weights_in_float32_and_few_checkpoints(quick: list[str], tmp_path: Path) -> None:
    kept = ["callbacks.checkpoint.every_n_train_steps=1", "callbacks.checkpoint.save_top_k=2", "trainer.max_steps=4"]
    task = run("experiment=fashion_dki", *quick, "trainer.precision=bf16-mixed", *kept)
    assert all(parameter.dtype == torch.float32 for parameter in task.parameters())
    assert math.isfinite(float(task.trainer.callback_metrics["train/loss"]))
    found = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert found == ["step_0000003.ckpt", "step_0000004.ckpt"]


def test_ema_is_averaged_saved_and_exported(quick: list[str], tmp_path: Path) -> None:
    """With a decay of zero the average is the last weights; with one near one it stays near the first."""
    raw = run("experiment=fashion_dki", *quick, "task.optimizer.lr=0.1")
    averaged = run(
        *("experiment=fashion_dki", *quick, "task.optimizer.lr=0.1", "callbacks=ema", "callbacks.ema.decay=0.9999"),
        f"paths.output_dir={tmp_path / 'ema'}",
    )
    name = "conv_in.weight"
    assert not torch.equal(raw.model.unet.state_dict()[name], averaged.model.unet.state_dict()[name])
    exported = load_file(tmp_path / "ema" / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(exported[name], averaged.model.unet.state_dict()[name])


def test_realism_of_what_is_drawn_from_captions(quick: list[str], tmp_path: Path) -> None:
    """On request, from fixed noise; averaged weights are those that draw; text alone says what."""
    often = ["trainer.val_check_interval=2", "callbacks.ema.every=2"]
    task = run("experiment=fashion_dki", *quick, "callbacks=[ema,realism]", *often)
    assert math.isfinite(float(task.trainer.callback_metrics["val/kid"]))
    batch = {"image": torch.zeros(2, 3, 32, 32), "caption": ["a shirt", "a dress"], "key": ["a", "b"]}
    first, again = task.draw(batch, 1), task.draw(batch, 1)
    assert first.shape == (2, 3, 32, 32) and torch.equal(first, again) and not torch.equal(first[0], first[1])
    assert not torch.equal(task.draw(batch, 2), first)
    nothing = ["experiment=fashion_negative", *quick, "callbacks=realism", f"paths.output_dir={tmp_path / 'b'}"]
    with pytest.raises(InputError, match="TextualInversion neither translates nor draws"):
        run(*nothing)


def test_loss_falls(quick: list[str]) -> None:
    """Validation noise is fixed, so the curve is smooth enough to compare its ends."""
    steps = "trainer.max_steps=30", "task.optimizer.lr=1e-3", "trainer.val_check_interval=10"
    task = run("experiment=fashion_dki", *quick, *steps)
    with (Path(task.trainer.default_root_dir) / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(losses) == 3 and losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("experiment", ["fashion_dki", "fashion_negative"])
def test_cached_latents_train_the_same(experiment: str, quick: list[str], tmp_path: Path) -> None:
    """Twelve steps over seven images: most come from the cache, and the losses are those of encoding each time."""
    losses: list[list[float]] = []
    for cached in ("false", "true"):
        out = tmp_path / cached
        run(
            *(f"experiment={experiment}", *quick, "trainer.max_steps=12", f"task.cache_latents={cached}"),
            f"paths.output_dir={out}",
        )
        with (out / "metrics.csv").open() as file:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])
    assert len(losses[0]) == 12 and losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_find_checkpoint(tmp_path: Path) -> None:
    assert find_checkpoint("auto", tmp_path) is None and find_checkpoint(None, tmp_path) is None
    for step in (5, 40):
        (tmp_path / f"step_{step:07d}.ckpt").touch()
    assert find_checkpoint("auto", tmp_path) == str(tmp_path / "step_0000040.ckpt")
    with pytest.raises(InputError, match="resume=auto"):
        find_checkpoint(None, tmp_path)
    with pytest.raises(InputError, match=r"nothing\.ckpt"):
        find_checkpoint(str(tmp_path / "nothing.ckpt"), tmp_path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    cfg = compose("train", [f"experiment={name}"])
    assert cfg.name == name and cfg.task._target_.startswith("r2r.") and cfg.model._target_.startswith("r2r.")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["experiment=nothing"], 1, "nothing"),
        (["trainer.max_step=3"], 1, "max_step"),
        (["data=folder"], 2, "data.root"),
        (["data=folder", "data.root=/nonexistent"], 3, "/nonexistent"),
        (["model.pretrained=/nonexistent"], 2, "/nonexistent"),
        (["resume=/nonexistent.ckpt"], 2, "/nonexistent.ckpt"),
    ],
)
def test_bad_commands_end_with_one_message(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = command("experiment=fashion_dki", *arguments, f"paths.output_dir={out}")
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr
    written = {path.name for path in out.rglob("*") if path.is_file()}
    assert written <= {"config.yaml", "hydra.yaml", "overrides.yaml", "config.resolved.yaml", "r2r.log"}


def test_fused_optimizer_and_layout_change_no_result(quick: list[str], tmp_path: Path) -> None:
    plain = run("experiment=fashion_dki", *quick)
    fast = ["+task.optimizer.fused=true", "model.channels_last=true", f"paths.output_dir={tmp_path / 'fast'}"]
    task = run("experiment=fashion_dki", *quick, *fast)
    assert task.model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in plain.model.unet.state_dict().items():
        torch.testing.assert_close(task.model.unet.state_dict()[name], value, rtol=0, atol=5e-6)  # two steps of 1e-5
    DiffusionPipeline.from_pretrained(tmp_path / "fast" / "export")


def test_a_fused_optimizer_clips_in_mixed_precision(quick: list[str], tmp_path: Path) -> None:
    """Lightning refuses to clip what says that it unscales gradients within its step."""
    tasks = dict[str, Any]()
    for name, told in {"plain": [], "fused": ["+task.optimizer.fused=true"]}.items():
        told = [*told, "trainer.precision=bf16-mixed", f"paths.output_dir={tmp_path / name}"]
        tasks[name] = run("experiment=fashion_dki", *quick, *told)
    assert tasks["fused"].trainer.gradient_clip_val == 1.0
    for name, value in tasks["plain"].state_dict().items():
        torch.testing.assert_close(tasks["fused"].state_dict()[name], value, rtol=0, atol=5e-6, msg=name)


class Reads(TorchDispatchMode):
    """Counts how often the host asks for a number of the training, for which it would wait for a GPU.

    Integers are not counted: on the host, data loaders and samplers draw their seeds as such.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("experiment", ["fashion_dki", "fashion_negative"])
def test_steps_read_no_number_and_no_pixel(
    experiment: str, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two log lines a step only queues work: twice the steps are no read more."""
    monkeypatch.setattr("r2r.models.latent_cache.digest", lambda image: pytest.fail("pixels came back"))
    told = [f"experiment={experiment}", *quick, "task.cache_latents=true", "+task.optimizer.fused=true"]
    told += ["trainer.log_every_n_steps=100", "trainer.limit_val_batches=0", "callbacks.grid=null"]
    counts = list[int]()
    for steps in (20, 40):  # a line for every tenth of a run reads the loss
        with Reads() as reads:
            run(*told, f"trainer.max_steps={steps}", f"paths.output_dir={tmp_path / str(steps)}")
        counts.append(reads.count)
    assert counts[0] == counts[1]


@pytest.mark.e2e
def test_compiled_training_is_one_graph_and_the_same(quick: list[str], tmp_path: Path) -> None:
    """One graph for all steps; names of weights stay, so that the export loads."""
    quiet = ["trainer.max_steps=3", "trainer.limit_val_batches=0", "callbacks.grid=null"]
    told = ["experiment=fashion_dki", *quick, *quiet]
    fast = ["model.compile=true", "model.channels_last=true", f"paths.output_dir={tmp_path / 'fast'}"]
    called = [sys.executable, "-m", "tests.compiled_training", *told, *fast]
    done = subprocess.run(called, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["graphs"] == 1
    eager = run(*told).trainer.callback_metrics["train/loss"]
    assert found["loss"] == pytest.approx(float(eager), rel=1e-4)
    DiffusionPipeline.from_pretrained(tmp_path / "fast" / "export")


@pytest.mark.e2e
def test_two_processes_agree_with_each_other(quick: list[str], tmp_path: Path) -> None:
    """One DDP step on two CPU processes; gradients are averaged, so both end with the same weights, saved once."""
    done = command(
        *("experiment=fashion_dki", *quick, "trainer.devices=2", "trainer.strategy=ddp_gloo", "trainer.max_steps=1"),
        "+callbacks.agree._target_=tests.agreement.RanksAgree",
        f"+callbacks.agree.folder={tmp_path}",
        PYTHONPATH=str(Path(__file__).parents[1]),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    sums = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert sums[0]["weights"] == sums[1]["weights"]
    assert sums[0]["keys"] and not set(sums[0]["keys"]) & set(sums[1]["keys"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["world_size"] == 2


@pytest.mark.e2e
def test_a_unet_that_is_shared_out_trains_like_one_that_is_not(quick: list[str], tmp_path: Path) -> None:
    """FSDP2 on two CPU processes ends with DDP's weights; its checkpoint goes on in one process."""
    told = ["experiment=fashion_dki", *quick, "callbacks.checkpoint.every_n_train_steps=1"]
    folders = {"fsdp": ["trainer=fsdp", "trainer.strategy.process_group_backend=gloo"]}
    folders["ddp"] = ["trainer.strategy=ddp_gloo"]
    weights = {}
    for name, strategy in folders.items():
        done = command(*strategy, *told, "trainer.devices=2", f"paths.output_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr[-3000:]
        weights[name] = load_file(tmp_path / name / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in weights["ddp"].items():
        torch.testing.assert_close(weights["fsdp"][name], value, rtol=0, atol=1e-6)  # two steps of 1e-5
    assert len(list((tmp_path / "fsdp" / "samples").glob("step_*.png"))) == 1
    alone = ["trainer.max_steps=3", "resume=auto", f"paths.output_dir={tmp_path / 'fsdp'}"]
    assert run(*told, *alone).trainer.global_step == 3


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=fashion_negative"], "TextualInversion runs with another"),
        (["experiment=fashion_dki", "callbacks=ema"], "callbacks=ema averages whole weights"),
        (["experiment=fashion_dki_lora"], "a LoRA fits beside it"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(arguments: list[str], message: str, quick: list[str]) -> None:
    done = command(*arguments, "trainer=fsdp", "trainer.strategy.process_group_backend=gloo", *quick)
    assert done.returncode == 2 and message in done.stderr
