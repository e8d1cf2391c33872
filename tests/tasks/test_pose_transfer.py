"""TruePose: what trains, what is dropped, guidance, resuming; folders with good and bad files."""

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
from r2r.data.folders import find_pairs
from r2r.data.keypoints import fitted_pose
from r2r.data.samples import LoadedPart
from r2r.errors import DataError, InputError
from r2r.models.pose_denoiser import needs_parsing, read_settings
from r2r.parsing import ATR_18, REGIONS
from r2r.tasks import PoseSampler, PoseSettings, PoseTransfer
from r2r.tasks.label_maps import LabelMaps
from r2r.train import train
from r2r.translate import translate

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")  # resuming goes on in the same folder
SMALL = [
    "task.image_prompt={num_tokens: 4, width: 32, depth: 1, head_width: 16}",
    "task.sampling.num_inference_steps=2",
    "task.prompt=man",  # fits the letters that the random text encoder reads
]


def command_line(output: Path, model: Path) -> list[str]:
    given = ["experiment=truepose", "debug=smoke", f"model.pretrained={model}", "model.resolution=32"]
    return [*given, "data.resolution=[32,24]", *SMALL, f"paths.output_dir={output}", "task.optimizer.lr=1e-3"]


def run(output: Path, model: Path, *overrides: str) -> PoseTransfer:
    return train(compose("train", [*command_line(output, model), *overrides]))


@pytest.fixture(scope="module")
def trained(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PoseTransfer, Path]:
    output = tmp_path_factory.mktemp("truepose")
    return run(output, sd_folder, "trainer.max_steps=2"), output


def test_all_parts_train_and_regions_at_their_own_rate(trained: tuple[PoseTransfer, Path]) -> None:
    task, output = trained
    names = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[1] for name in names} == {"unet", "source", "pose", "prompts", "embedding", "fusion"}
    assert names == {name for name, _ in task.named_parameters()}
    groups = task.optimizers().param_groups
    assert [group["lr"] for group in groups] == [1e-3, task.region_lr] and groups[1]["weight_decay"] == 0
    assert sum(len(group["params"]) for group in groups) == len(names)
    settings = json.loads((output / "export" / "pose.json").read_text())
    assert settings["parts"] == ["unet", "pose", "source", "embedding", "fusion", "prompts"]
    assert (output / "samples" / "step_0000000.png").is_file()


def test_parts_can_be_left_out_shared_or_kept_frozen(sd_folder: Path, tmp_path: Path) -> None:
    frozen = ["task.train_source=false", "task.encoder=null", "task.use_fusion_bias=false", "trainer.max_steps=1"]
    task = run(tmp_path / "a", sd_folder, *frozen)
    assert {n.split(".")[1] for n, p in task.named_parameters() if p.requires_grad} == {"unet", "pose", "embedding"}
    written = {path.stem for path in (tmp_path / "a" / "export").glob("*.safetensors")}
    assert written == {"pose", "unet", "embedding"}
    shared = run(tmp_path / "b", sd_folder, "task.share_weights=true", "task.use_parsing=false", "trainer.max_steps=1")
    assert shared.denoiser.parts == ["unet", "pose", "prompts"]
    again = PoseSampler.from_pretrained(tmp_path / "b" / "export")
    assert not needs_parsing(read_settings(tmp_path / "b" / "export")) and again.prompt == "man"
    aligned = run(tmp_path / "c", sd_folder, "task.alignment_weight=0.1", "trainer.max_steps=1")
    assert "heads" in aligned.denoiser.parts
    with pytest.raises(InstantiationException, match="not with share_weights"):
        run(tmp_path / "d", sd_folder, "task.share_weights=true", "task.gradient_checkpointing=true")
    with pytest.raises(InstantiationException, match=r"pose_dropout=1\.5"):
        run(tmp_path / "d", sd_folder, "task.pose_dropout=1.5")


def test_a_resumed_run_equals_a_straight_one(sd_folder: Path, tmp_path: Path) -> None:
    pace = ["trainer.limit_val_batches=0", "callbacks.checkpoint.every_n_train_steps=2", "callbacks=ema"]
    straight = run(tmp_path / "a", sd_folder, *pace, "trainer.max_steps=4")
    run(tmp_path / "b", sd_folder, *pace, "trainer.max_steps=2")
    resumed = run(tmp_path / "b", sd_folder, *pace, "trainer.max_steps=4", "resume=auto")
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, atol=0, rtol=0, msg=name)
    ends = [torch.load(tmp_path / each / "checkpoints" / "step_0000004.ckpt", weights_only=True) for each in "ab"]
    assert str(ends[0]["callbacks"].keys()) == str(ends[1]["callbacks"].keys())


@pytest.mark.e2e
def test_two_processes_agree_with_each_other(sd_folder: Path, tmp_path: Path) -> None:
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


def test_a_batch_without_parsing_is_told_what_to_do(trained: tuple[PoseTransfer, Path]) -> None:
    batch = next(iter(trained[0].trainer.datamodule.val_dataloader()))
    del batch["source_parsing"]
    with pytest.raises(InputError, match="parsing of the source is missing"):
        trained[0]._loss(batch, torch.Generator().manual_seed(0))


def test_guidance_adds_up() -> None:
    noises = [torch.tensor(value) for value in (1.0, 3.0, 10.0)]
    assert PoseSettings(pose_scale=2.0, appearance_scale=0.5).guide(noises) == 1 + 2 * 2 + 0.5 * 7
    joint = PoseSettings(pose_scale=3.0, appearance_scale=3.0)
    assert joint.branches == [(False, False), (True, True)] and joint.guide(noises[::2]) == 1 + 3 * 9
    one = PoseSettings(pose_scale=1.0, appearance_scale=1.0)
    assert one.branches == [(True, True)] and one.guide(noises[:1]) == noises[0]
    for wrong in ({"num_inference_steps": 1}, {"pose_scale": -1.0}, {"appearance_scale": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            PoseSettings(**wrong)


def test_a_source_is_looked_at_once(trained: tuple[PoseTransfer, Path]) -> None:
    sampler = PoseSampler.from_pretrained(trained[1] / "export")
    generator = torch.Generator().manual_seed(0)
    sources = torch.rand(3, 3, 32, 24, generator=generator) * 2 - 1
    parsing = torch.randint(0, len(REGIONS), (3, 1, 32, 24), generator=generator).to(torch.uint8)
    poses = torch.rand(3, 18, 3, generator=generator) * torch.tensor([24.0, 32.0, 2.0])
    settings = PoseSettings(num_inference_steps=4, pose_scale=1.5)
    found = sampler(sources, parsing, poses, settings=settings)
    assert found.shape == sources.shape and found.isfinite().all()
    assert sampler.denoiser.source.sample_evals == 3
    assert sampler.model.sample_evals == 3 * 3 * len(sampler.steps(settings))
    some = sampler(sources[:2], parsing[:2], poses[:2], settings=settings)
    torch.testing.assert_close(found[:2], some, atol=1e-4, rtol=1e-3)


def label_map(faces: int = 1) -> np.ndarray:
    labels = np.zeros((48, 36), np.uint8)
    labels[14:30, 8:28] = ATR_18.index("upper-clothes")
    for number in range(faces):
        labels[4:10, 6 + 16 * number : 12 + 16 * number] = ATR_18.index("face")
    return labels


def keypoint_file(known: bool = True, size: tuple[int, int] = (36, 48)) -> str:
    points = [[4 + number, 40 - number, 2 if known else 0] for number in range(18)]
    return json.dumps({"openpose_18": points, "size": size})


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Photos with what is wrong with them in their name, their label maps, and keypoint files."""
    found = {name: tmp_path / name for name in ("photos", "parsing", "poses")}
    labels = {"good": label_map(), "more/good": label_map(), "two": label_map(2), "nobody": label_map() * 0}
    for name, values in labels.items():
        colour = (200, 30, 40) if name == "good" else (30, 40, 200)
        for kind, picture in (("photos", Image.new("RGB", (36, 48), colour)), ("parsing", Image.fromarray(values))):
            path = found[kind] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    (found["photos"] / "broken.png").write_bytes(b"no picture")
    found["poses"].mkdir()
    (found["poses"] / "left.json").write_text(keypoint_file())
    (found["poses"] / "wide.json").write_text(keypoint_file(size=(72, 48)))
    return found


def translation(folders: dict[str, Path], model: Path, output: Path, *overrides: str) -> DictConfig:
    places = [f"source={folders['photos']}", f"poses={folders['poses']}", f"output={output}", f"model={model}"]
    quick = ["device=cpu", "task.sampling.num_inference_steps=2"]
    return compose("translate", ["task=pose_transfer", *places, *quick, *overrides])


def test_every_photo_is_drawn_in_every_pose_and_what_cannot_be_is_named(
    folders: dict[str, Path], trained: tuple[PoseTransfer, Path], tmp_path: Path
) -> None:
    output, model = tmp_path / "posed", trained[1] / "export"
    (folders["poses"] / "unknown.json").write_text(keypoint_file(known=False))
    (folders["poses"] / "torn.json").write_text("{")
    with pytest.raises(DataError) as error:
        translate(translation(folders, model, output, f"task.parsing={folders['parsing']}"))
    done = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert done == {f"{name}_to_{pose}.png" for name in ("good", "more/good") for pose in ("left", "wide")}
    for part in ("16 of 20", "2 heads", "shows no person", "broken.png", "unknown.json", "torn.json"):
        assert part in str(error.value), part
    with Image.open(output / "good_to_left.png") as picture:
        assert picture.size == (36, 48)
    record = json.loads((output / "run.json").read_text())
    assert record["images"] == 4 and record["source_sample_evals"] == 4


def test_clothes_may_come_from_another_photo(
    folders: dict[str, Path], trained: tuple[PoseTransfer, Path], tmp_path: Path
) -> None:
    model, parsing = trained[1] / "export", f"task.parsing={folders['parsing']}"
    for name in ("two", "nobody", "broken"):
        (folders["photos"] / f"{name}.png").unlink()
    donors = [f"task.donors={folders['photos'] / 'more' / 'good.png'}", f"task.donor_parsing={folders['parsing']}/more"]
    pictures, strong = {}, "task.sampling.appearance_scale=30.0"  # a random decoder hardly shows what is at 2
    for name, given in {"own": [], "lent": donors, "none": [*donors, "task.lent=[]"]}.items():
        translate(translation(folders, model, tmp_path / name, parsing, strong, *given))
        with Image.open(tmp_path / name / "good_to_left.png") as picture:
            pictures[name] = np.array(picture).astype(int)
    assert np.abs(pictures["own"] - pictures["none"]).max() <= 1 < np.abs(pictures["own"] - pictures["lent"]).max()
    with pytest.raises(InstantiationException, match=r"task\.lent=\['hat'\]"):
        translate(translation(folders, model, tmp_path / "x", parsing, *donors, "task.lent=[hat]"))
    with pytest.raises(InstantiationException, match=r"donor_parsing=FOLDER"):
        translate(translation(folders, model, tmp_path / "x", parsing, donors[0]))
    with pytest.raises(DataError, match=r"poses/good\.png"):
        given = [f"task.donors={folders['poses']}", f"task.donor_parsing={folders['parsing']}"]
        translate(translation(folders, model, tmp_path / "x", parsing, *given))


def test_settings_that_do_not_fit_are_told_before_anything_is_loaded(
    folders: dict[str, Path], trained: tuple[PoseTransfer, Path], tmp_path: Path
) -> None:
    model = trained[1] / "export"
    for overrides, message in (
        ([], "task.parsing is missing"),
        (["task.parsing=nowhere"], "no such folder"),
        (["task.parsing=.", "task.label_set=ATR"], "ATR"),
        (["pairing=some"], "a file that lists pairs"),
        (["pairing=name"], "has no keypoint file"),
        ([f"poses={folders['photos']}"], "has no keypoint files"),
    ):
        with pytest.raises((InstantiationException, InputError)) as error:
            translate(translation(folders, model, tmp_path / "posed", *overrides))
        assert message in str(user_error(error.value)), message
    with pytest.raises(InstantiationException, match="no export of truepose"):
        translate(translation(folders, tmp_path, tmp_path / "posed", f"task.parsing={folders['parsing']}"))
    assert not (tmp_path / "posed").exists()


def test_photos_meet_poses_by_name_or_all(folders: dict[str, Path], tmp_path: Path) -> None:
    photo, pose = folders["photos"] / "more" / "good.png", folders["poses"] / "more" / "good.json"
    pose.parent.mkdir()
    pose.write_text(keypoint_file())
    by_name = find_pairs(folders["photos"] / "more", folders["poses"] / "more", tmp_path / "out", "name")
    assert by_name == {(photo, pose): tmp_path / "out" / "good.png"}
    every = find_pairs(photo, folders["poses"], tmp_path / "out")
    assert {path.name for path in every.values()} == {f"good_to_{n}.png" for n in ("left", "wide", "more_good")}


def test_photos_meet_poses_as_a_list_says(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = tmp_path / "pairs.csv"
    listed.write_text("from,to\ngood.jpg,left.jpg\nmore/good.jpg, wide.jpg\ngone.jpg,left.jpg\n")
    found = find_pairs(folders["photos"], folders["poses"], tmp_path / "out", str(listed))
    names = {path.relative_to(tmp_path / "out").as_posix() for path in found.values()}
    assert names == {"good_to_left.png", "more/good_to_wide.png"} and "1 of 3 pairs left out" in caplog.text
    for text, message in (("a b c\n", "'a b c' is not"), ("gone left\n", "of none of its 1")):
        listed.write_text(text)
        with pytest.raises(InputError, match=message):
            find_pairs(folders["photos"], folders["poses"], tmp_path / "out", str(listed))


def test_poses_of_another_frame_cover_the_picture() -> None:
    part = LoadedPart("pose", keypoint_file(size=(72, 48)).encode())
    moved = fitted_pose(part, (36, 48))
    points = np.array(json.loads(keypoint_file())["openpose_18"], float)
    inside = points[:, 0] >= 18
    np.testing.assert_allclose(moved[inside], (points - [18, 0, 0])[inside], atol=1e-5)
    assert (moved[~inside] == 0).all()
    with pytest.raises(DataError, match="broken or unknown keypoint file: pose"):
        fitted_pose(LoadedPart("pose", b"[]"), (36, 48))


def test_a_face_behind_a_hand_is_one_face_and_two_are_two(tmp_path: Path) -> None:
    face, hand = ATR_18.index("face"), ATR_18.index("left-arm")
    labels = np.zeros((48, 36), np.uint8)
    labels[10:22, 4:16], labels[10:22, 9:11] = face, hand
    for count, place in enumerate((slice(4, 4), slice(24, 36)), 1):
        labels[10:22, place] = face
        Image.fromarray(labels).save(tmp_path / "a.png")
        maps = LabelMaps(tmp_path / "photos", tmp_path)
        if count == 1:
            assert maps(tmp_path / "a.jpg", Image.new("RGB", (36, 48)))[12, 5] == REGIONS.index("face")
        else:
            with pytest.raises(DataError, match="2 heads"):
                maps(tmp_path / "a.jpg", Image.new("RGB", (36, 48)))
