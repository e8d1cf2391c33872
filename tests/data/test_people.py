"""Restoration and pose views: which entries there are, and that everything in one shows the same person."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2r.cli import CONF, build, compose
from r2r.data import ImageDataModule
from r2r.data.images import digest
from r2r.data.keypoints import read_pose
from r2r.data.samples import LoadedPart, Sample, without_held_out
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS
from r2r.pose import OPENPOSE_18
from tests.data.people_writing import COLOURS, SIDE, encoded, garment_scene, keypoints, person_scene, write_people
from tests.data.shard_writing import write_shard, write_studio

OF_TWO = {"unpaired", "with_prior"}  # of the others
CONFIGS = sorted({path.stem for path in (CONF / "data").glob("*.yaml")} - OF_TWO)


def module(root: Path, view: str, **options) -> ImageDataModule:
    data = ImageDataModule(root, view=view, resolution=SIDE, batch_size=4, num_workers=0, **options)
    data.setup()
    return data


def entry(data: ImageDataModule, key: str) -> dict:
    found = {sample.key: sample for sample in [*data.train_samples, *data.val_samples]}
    return data.view(found[key], None)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_people(tmp_path)


def test_each_garment_of_each_person_is_an_entry(people: Path) -> None:
    data = module(people, "restoration", caption_template="a flat photo of a {caption}, {category}")
    keys = [sample.key for sample in data.train_samples]
    assert keys == [f"0000-{i:06d}.{flat}" for i in range(5) for flat in ("flat", "flat_2")]
    upper, lower = entry(data, "0000-000001.flat"), entry(data, "0000-000001.flat_2")
    assert (upper["slot"], upper["category"]) == ("upper", "t-shirt")
    assert lower["caption"] == "a flat photo of a blue trousers 0, trousers"
    for item, name in ((upper, "upper-clothes"), (lower, "pants")):
        colour = torch.tensor(COLOURS[name]) / 127.5 - 1
        assert torch.allclose(item["person"][:, item["garment_mask"][0]].mean(1), colour, atol=1e-5)
        assert torch.allclose(item["flat"][:, item["flat_mask"][0]].mean(1), colour, atol=1e-5)
        assert item["garment_mask"].any() and (item["flat"][:, ~item["flat_mask"][0]] == 1).all()
    assert all(upper[f"{name}_digest"] == digest(upper[name]) for name in ("person", "flat"))
    assert torch.equal(upper["parsing"] == REGIONS.index("upper"), upper["garment_mask"])
    batch = next(iter(data.train_dataloader()))
    assert batch["parsing"].shape == (4, 1, SIDE, SIDE) and batch["parsing"].dtype == torch.uint8


def test_pose_pairs_are_the_ordered_views_of_one_identity(people: Path) -> None:
    data = module(people, "pose")
    keys = [sample.key for sample in data.train_samples]
    assert len(keys) == 3 * 2 + 2 * 1 == len(set(keys))
    assert "0000-000000_to_0000-000002" in keys and "0000-000002_to_0000-000003" not in keys
    assert len(module(people, "pose_and_itself").train_samples) == 3**2 + 2**2
    batch = next(iter(data.train_dataloader()))
    assert batch["source_pose"].shape == (4, 18, 3) and batch["target_keypoints"].shape == (4, 17, 3)
    item = entry(data, "0000-000000_to_0000-000002")
    assert np.allclose(item["source_keypoints"], keypoints()) and np.allclose(item["target_keypoints"], keypoints(4))
    assert all(item[f"{end}_digest"] == digest(item[end]) for end in ("source", "target"))
    nose = OPENPOSE_18.index("nose")
    assert (item["target_pose"][nose] - item["source_pose"][nose]).tolist() == [4, 0, 0]


def in_regions(item: dict, end: str, parsing: torch.Tensor) -> None:
    """Shoulders are in upper garments, the nose in the face, left of the person on the right side or the other."""
    for name, region in (
        ("nose", "face"),
        ("left_shoulder", "upper"),
        ("right_shoulder", "upper"),
        ("left_hip", "lower"),
    ):
        x, y, v = item[f"{end}_pose"][OPENPOSE_18.index(name)].tolist()
        assert v == 2 and REGIONS[int(parsing[0, int(y), int(x)])] == region, name


@pytest.mark.parametrize("resolution", [SIDE, 32, [32, 24], [40, 20]])
def test_keypoints_follow_crop_and_mirror(people: Path, resolution: int | list[int]) -> None:
    data = ImageDataModule(
        people,
        view="pose",
        resolution=resolution,
        batch_size=1,
        num_workers=0,
        horizontal_flip=True,
        caption_dropout=0.0,
    )
    data.setup()
    sides = set()
    for place in range(8):
        item = data.view(data.train_samples[0], place)
        assert item["source"].shape[1:] == item["source_parsing"].shape[1:]
        in_regions(item, "source", item["source_parsing"])
        known = item["source_pose"][:, 2] > 0
        sides.add(tuple(known[[OPENPOSE_18.index(f"{side}_wrist") for side in ("left", "right")]].tolist()))
        assert not item["source_pose"][~known].any()
    assert sides == {(True, False), (False, True)}  # one wrist is out of the picture; the mirror makes it the other


def test_first_batch_shows_the_pose(people: Path, tmp_path: Path) -> None:
    for view in ("pose", "restoration"):
        module(people, view).first_batch_grid(tmp_path / f"{view}.png")
        assert (tmp_path / f"{view}.png").is_file()


def test_scenes_without_people_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "alone" / "train-0.tar", {f"{i}": garment_scene(i, i) for i in range(3)})
    for root in (tmp_path / "alone", write_studio(tmp_path / "old")):
        for view in ("restoration", "pose"):
            with pytest.raises(
                DataError, match=rf"none of the \d+ training samples .* fits data\.view={view}.*render persons"
            ):
                module(root, view)


def test_broken_people_are_named(tmp_path: Path) -> None:
    scene = person_scene(0, 0, 0)
    for number, (changes, view, message) in enumerate(
        [
            ({"pose.json": b"{}"}, "pose", r"broken or unknown keypoint file: a\.pose\.json"),
            ({"json": b'{"garments": []}'}, "restoration", r"garment 1 of its JSON has no slot \(upper, lower, full\)"),
            ({"json": scene["json"][:-1] + b', "label_set": "ATR"}'}, "restoration", "unknown label set 'ATR'"),
            (
                {"parsing.png": encoded(Image.new("L", (8, 8), 77))},
                "restoration",
                r"a\.parsing\.png .*label 77 is not in",
            ),
        ]
    ):
        root = tmp_path / str(number)
        write_shard(root / "train-0.tar", {"a": scene | changes, "b": person_scene(1, 0, 1)})
        with pytest.raises(InputError, match=message):
            module(root, view, val_fraction=0.0)


def test_people_stream_too(people: Path) -> None:
    for view, suffix in (("pose", "_to_"), ("restoration", ".flat")):
        data = ImageDataModule(
            f"pipe:cat {people}/{{split}}-0000.tar", view=view, resolution=16, batch_size=2, num_workers=0,
            epoch_samples=8, shuffle_buffer=2,
        )  # fmt: skip
        data.setup()
        assert all(suffix in key for batch in data.train_dataloader() for key in batch["key"])
        assert (
            len([key for batch in data.val_dataloader() for key in batch["key"]]) == {"pose": 2, "restoration": 4}[view]
        )


def part(content: object) -> LoadedPart:
    return LoadedPart("pose.json", json.dumps(content).encode())


def test_forms_of_keypoint_files() -> None:
    studio = {"size": [32, 16], "openpose_18": [[1, 2, 1]] * 17 + [[0, 0, 0]]}
    assert read_pose(part(studio), (64, 32)).tolist() == [[2, 4, 1]] * 17 + [[0, 0, 0]]
    people = [{"pose_keypoints_2d": [1, 2, 0.1] * 25}, {"pose_keypoints_2d": [3, 4, 0.9] * 24 + [0, 0, 0]}]
    assert read_pose(part({"people": people}), (64, 32)).tolist() == [[3, 4, 2]] * 18
    assert not read_pose(part({"people": []}), (64, 32)).any()
    dresscode = {"keypoints": [[38.4, 51.2, 1, 0]] * 17 + [[-1, -1, 0, 17]]}
    assert np.allclose(read_pose(part(dresscode), (768, 1024)), [[76.8, 102.4, 2]] * 17 + [[0, 0, 0]])
    for broken in ({"people": [{"pose_keypoints_2d": [1, 2, 3]}]}, [], {"keypoints": [[1, 2]]}):
        with pytest.raises(DataError, match=r"broken or unknown keypoint file: pose\.json"):
            read_pose(part(broken), (64, 32))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_data_config_builds(name: str, tmp_path: Path) -> None:
    data = build(compose("train", [f"data={name}", f"data.root={tmp_path}"]).data)
    assert isinstance(data, ImageDataModule)


def test_training_never_shows_who_is_held_out(caplog: pytest.LogCaptureFixture) -> None:
    def sample(key: str, identity: str) -> Sample:
        return Sample(key, {"json": LoadedPart("json", json.dumps({"identity": identity}).encode())})

    train, val = [sample("a", "1"), sample("b", "2"), sample("c", "2")], [sample("d", "2"), sample("e", "3")]
    assert [each.key for each in without_held_out(train, val)] == ["a"]
    assert "2 training samples left out" in caplog.text
    assert without_held_out(train, val[1:]) == train
