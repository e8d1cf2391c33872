"""IGR's training and sampling: what trains, what is dropped, guidance, resuming; folders with good and bad files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from PIL import Image

from r2r.cli import compose, user_error
from r2r.errors import DataError, InputError
from r2r.models.garment_denoiser import PARTS
from r2r.parsing import ATR_18
from r2r.tasks import GarmentRestoration, GarmentRestorer, RestorationSettings
from r2r.tasks.garment_translation import garment
from r2r.train import train
from r2r.translate import translate

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")  # resuming goes on in the same folder
SMALL = [
    "task.image_prompt={num_tokens: 4, width: 32, depth: 1, head_width: 16}",
    "task.sampling.num_inference_steps=2",
]

SMALL += ["task.prompt='{garment}'"]  # fits the letters that the random text encoder reads


def command_line(output: Path, model: Path, experiment: str = "igr_coarse") -> list[str]:
    given = [f"experiment={experiment}", "debug=smoke", f"model.pretrained={model}", "model.resolution=32"]
    return [*given, "data.resolution=[32,24]", *SMALL, f"paths.output_dir={output}", "task.optimizer.lr=1e-3"]


def run(output: Path, model: Path, *overrides: str, experiment: str = "igr_coarse") -> GarmentRestoration:
    return train(compose("train", [*command_line(output, model, experiment), *overrides]))


@pytest.fixture(scope="module")
def trained(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[GarmentRestoration, Path]:
    output = tmp_path_factory.mktemp("igr")
    return run(output, sd_folder, "trainer.max_steps=2"), output


def test_unet_reference_and_image_prompt_train(trained: tuple[GarmentRestoration, Path]) -> None:
    task, output = trained
    names = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in names} == {"unet", "reference", "image_prompt"}
    assert names == {name for name, _ in task.named_parameters()}
    stored = torch.load(next((output / "checkpoints").glob("*.ckpt")), weights_only=True)["state_dict"]
    assert set(stored) == names | {name for name, _ in task.named_buffers()}
    settings = json.loads((output / "export" / "garment.json").read_text())
    assert settings["parts"] == ["unet", "reference", "image_prompt"] and settings["mask_reference"] is True
    assert (output / "samples" / "step_0000000.png").is_file()


def test_parts_can_be_left_out_or_kept_frozen(sd_folder: Path, tmp_path: Path) -> None:
    frozen = run(tmp_path / "a", sd_folder, "task.train_reference=false", "task.encoder=null", "trainer.max_steps=1")
    moved = {name.split(".")[1] for name, p in frozen.named_parameters() if p.requires_grad}
    assert moved == {"unet"} and frozen.denoiser.reference is not None
    assert [path.name for path in (tmp_path / "a" / "export").glob("*.safetensors")] == ["unet.safetensors"]
    told = run(tmp_path / "b", sd_folder, "task.use_reference=false", "trainer.max_steps=1")
    assert told.denoiser.parts == ["unet", "image_prompt"]
    again = GarmentRestorer.from_pretrained(tmp_path / "b" / "export")
    assert again.denoiser.reference is None and again.prompt == told.prompt


@pytest.mark.parametrize("cached", [False, True])
def test_a_resumed_run_equals_a_straight_one(cached: bool, sd_folder: Path, tmp_path: Path) -> None:
    pace = ["trainer.limit_val_batches=0", "callbacks.checkpoint.every_n_train_steps=2", f"task.cache_latents={cached}"]
    straight = run(tmp_path / "a", sd_folder, *pace, "trainer.max_steps=4")
    run(tmp_path / "b", sd_folder, *pace, "trainer.max_steps=2")
    resumed = run(tmp_path / "b", sd_folder, *pace, "trainer.max_steps=4", "resume=auto")
    near = (
        {"atol": 1e-6, "rtol": 1e-4} if cached else {"atol": 0, "rtol": 0}
    )  # what is encoded together rounds together
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, **near, msg=name)


@pytest.mark.e2e
def test_two_processes_agree_with_each_other(sd_folder: Path, tmp_path: Path) -> None:
    """Gradients of all three parts are averaged, so that both ranks end with the same weights."""
    two = ["trainer.devices=2", "trainer.strategy=ddp_gloo", "trainer.max_steps=2", "trainer.limit_val_batches=0"]
    watch = ["+callbacks.agree._target_=tests.agreement.RanksAgree", f"+callbacks.agree.folder={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    told = [*command_line(tmp_path / "run", sd_folder), *two, *watch]
    done = subprocess.run(
        [sys.executable, "-m", "r2r.train", *told], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["weights"] == ranks[1]["weights"] and ranks[0]["keys"] != ranks[1]["keys"]
    assert json.loads((tmp_path / "run" / "export" / "garment.json").read_text())["parts"] == list(PARTS)


def test_the_second_stage_begins_where_the_first_ended(
    trained: tuple[GarmentRestoration, Path], sd_folder: Path
) -> None:
    first, output = trained
    start = f"task.initial={output / 'export'}"
    second = run(output.parent / "fine", sd_folder, start, "trainer.max_steps=1", "task.optimizer.lr=0")
    for name, value in first.denoiser.state_dict().items():
        torch.testing.assert_close(second.denoiser.state_dict()[name], value, msg=name)
    with pytest.raises(InstantiationException, match="min_stride"):
        run(output.parent / "other", sd_folder, start, "task.min_stride=2")


def test_rows_are_dropped_in_their_shares(trained: tuple[GarmentRestoration, Path]) -> None:
    task = trained[0]
    task.shares = torch.tensor([0.1, 0.2, 0.3]).cumsum(0)
    looking, told = task._dropped(20_000, torch.Generator().manual_seed(0))
    shares = [(~looking & ~told), (~looking & told), (looking & ~told), (looking & told)]
    assert [each.float().mean().item() for each in shares] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)
    with pytest.raises(InstantiationException, match="shares of rows"):
        run(trained[1].parent / "x", Path(task.model.pipe.name_or_path), "task.dropout=0.9", "task.image_dropout=0.2")


def test_the_loss_falls_on_one_batch(sd_folder: Path, tmp_path: Path) -> None:
    task = run(tmp_path, sd_folder, "trainer.max_steps=1", "trainer.limit_val_batches=0")
    batch = next(iter(task.trainer.datamodule.val_dataloader()))
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = task._loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_guidance_adds_up() -> None:
    noises = [torch.tensor(value) for value in (1.0, 3.0, 10.0)]
    joint, apart = (
        RestorationSettings(guidance_scale=2.0),
        RestorationSettings(guidance_scale=2.0, image_guidance_scale=0.5),
    )
    assert joint.guide(noises[:2]) == 1 + 2 * 2 and apart.guide(noises) == 1 + 2 * 2 + 0.5 * 7
    assert RestorationSettings(guidance_scale=1.0).branches == [(True, True)]
    assert apart.branches == [(False, False), (True, False), (True, True)]
    one = RestorationSettings(guidance_scale=1.0, image_guidance_scale=1.0)
    assert one.guide(noises) == noises[2]
    for wrong in ({"num_inference_steps": 1}, {"guidance_scale": -1.0}, {"image_guidance_scale": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RestorationSettings(**wrong)


def test_a_person_is_looked_at_once(trained: tuple[GarmentRestoration, Path]) -> None:
    restorer = GarmentRestorer.from_pretrained(trained[1] / "export")
    persons = torch.rand(3, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    masks = torch.ones(3, 1, 32, 24, dtype=torch.bool)
    settings = RestorationSettings(num_inference_steps=4, image_guidance_scale=1.5)
    flats = restorer(persons, ["upper", "lower", "full"], masks, settings=settings)
    assert flats.shape == persons.shape and flats.isfinite().all()
    assert restorer.denoiser.reference.sample_evals == 3
    assert restorer.model.sample_evals == 3 * 3 * len(restorer.steps(settings))
    for count in (1, 2):
        some = restorer(persons[:count], ["upper", "lower"][:count], masks[:count], settings=settings)
        torch.testing.assert_close(flats[:count], some, atol=1e-4, rtol=1e-3)
    assert restorer(torch.zeros(1, 3, 16, 24), ["full"], settings=settings).shape == (1, 3, 16, 24)


def person(*, garments: tuple[str, ...] = ("upper-clothes",), faces: int = 1) -> np.ndarray:
    labels = np.zeros((48, 36), np.uint8)
    for number, name in enumerate(garments):
        labels[16 + 8 * number : 24 + 8 * number, 8:28] = ATR_18.index(name)
    for number in range(faces):
        labels[4:10, 6 + 16 * number : 12 + 16 * number] = ATR_18.index("face")
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Photos with what is wrong with them in their name, and their label maps."""
    found = {name: tmp_path / name for name in ("photos", "parsing")}
    labels = {
        "good": person(),
        "more/good": person(garments=("upper-clothes", "pants")),
        "two": person(faces=2),
        "naked": person(garments=()),
        "strange": np.full((48, 36), 77, np.uint8),
        "small": person()[:10],
    }
    for name, values in labels.items():
        for kind, picture in (("photos", Image.new("RGB", (36, 48))), ("parsing", Image.fromarray(values))):
            path = found[kind] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    Image.new("RGB", (36, 48)).save(found["photos"] / "missing.png")
    (found["photos"] / "broken.png").write_bytes(b"no picture")
    return found


def translation(folders: dict[str, Path], model: Path, output: Path, *overrides: str) -> DictConfig:
    places = [f"input={folders['photos']}", f"output={output}", f"model={model}", "device=cpu"]
    return compose(
        "translate", ["task=garment_restoration", *places, "task.sampling.num_inference_steps=2", *overrides]
    )


def test_a_folder_is_restored_and_what_cannot_be_is_named(
    folders: dict[str, Path], trained: tuple[GarmentRestoration, Path], tmp_path: Path
) -> None:
    output, model = tmp_path / "flat", trained[1] / "export"
    with pytest.raises(DataError) as error:
        translate(translation(folders, model, output, f"task.parsing={folders['parsing']}"))
    assert {path.relative_to(output).as_posix() for path in output.rglob("*.png")} == {"good.png", "more/good.png"}
    for part in ("6 of 8", "2 heads", "no garment: 0.00%", "label 77", "36x10", "no label map", "broken.png"):
        assert part in str(error.value), part
    with Image.open(output / "good.png") as flat:
        assert flat.size == (36, 48)
    record = json.loads((output / "run.json").read_text())
    assert record["images"] == 2 and record["reference_sample_evals"] == 2 and len(record["broken"]) == 6


def test_settings_that_do_not_fit_are_told_before_anything_is_loaded(
    folders: dict[str, Path], trained: tuple[GarmentRestoration, Path], tmp_path: Path
) -> None:
    model = trained[1] / "export"
    parsing = f"task.parsing={folders['parsing']}"
    for overrides, message in (
        ([], "task.parsing is missing"),
        (["task.parsing=nowhere"], "no such folder"),
        ([parsing, "task.slot=hat"], "task.slot=hat"),
        ([parsing, "task.label_set=ATR"], "ATR"),
    ):
        with pytest.raises(InstantiationException) as error:
            translate(translation(folders, model, tmp_path / "flat", *overrides))
        assert message in str(user_error(error.value))
    with pytest.raises(InstantiationException, match="no export of igr"):
        translate(translation(folders, tmp_path, tmp_path / "flat", parsing))
    assert not (tmp_path / "flat").exists()


def test_a_cut_out_garment_fills_the_frame(folders: dict[str, Path], tmp_path: Path) -> None:
    places = [f"input={folders['photos'] / 'good.png'}", f"output={tmp_path / 'cut'}"]
    translate(compose("translate", ["task=garment_cutout", *places, f"task.parsing={folders['parsing']}"]))
    with Image.open(tmp_path / "cut" / "good.png") as picture:
        dark = np.array(picture).max(2) < 128
    rows, columns = np.nonzero(dark.any(1))[0], np.nonzero(dark.any(0))[0]
    assert len(columns) == round(0.9 * 36) and len(rows) == round(0.9 * 36 * 8 / 20)  # of 20 x 8 pixels
    assert abs(rows.mean() - 23.5) <= 1 and abs(columns.mean() - 17.5) <= 1
    with pytest.raises(InstantiationException, match=r"needs task\.parsing"):
        translate(compose("translate", ["task=garment_cutout", places[0], f"output={tmp_path / 'none'}"]))


def test_the_garment_that_shows_most_is_found() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:4], labels[4:] = 3, 4
    assert garment(labels, "largest")[0] == "lower" and garment(labels, "upper")[1].sum() == 40
    with pytest.raises(DataError, match="no full garment"):
        garment(labels, "full")
