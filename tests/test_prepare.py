"""The prepare verb: what it writes for training and translation, what it refuses, and how it goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from r2r.cli import compose
from r2r.data import ImageDataModule
from r2r.data.keypoints import read_pose
from r2r.data.prepared import PreparedPerson, identity, region_box, write_shards
from r2r.data.samples import FilePart
from r2r.errors import DataError
from r2r.parsing import ATR_18
from r2r.pose import coco_to_openpose
from r2r.prepare import Found, Models, accuracy, only_person, prepare
from r2r.reporting.contact_sheet import overlay, write_contact_sheet
from tests.data.people_writing import BOXES, COLOURS, SIDE, keypoints, labels, picture
from tests.person_weights import write_detector, write_parser, write_pose

GREY = (220, 220, 220)
NAMED = {colour: ATR_18.index(name) for name, colour in COLOURS.items()}
LEFT, TOP = min(box[0] for box in BOXES.values()), min(box[1] for box in BOXES.values())


class Looking:
    """Models that know drawn people by their colours, and count the photos they were shown."""

    def __init__(self) -> None:
        self.photos = 0

    def detect(self, photos) -> list:
        self.photos += len(photos)
        return [self._boxes(np.array(photo)) for photo in photos]

    def _boxes(self, pixels: np.ndarray) -> list:
        shown = (pixels != GREY).any(2)
        places = ndimage.label(ndimage.binary_dilation(shown, iterations=2))[0] * shown  # a neck is not drawn
        return [(float(c.start), float(r.start), float(c.stop), float(r.stop)) for r, c in ndimage.find_objects(places)]

    def estimate(self, photos, boxes) -> list:
        return [
            np.where(keypoints()[:, 2:] > 0, keypoints() + np.array([box[0] - LEFT, box[1] - TOP, 0]), 0)
            for box in boxes
        ]

    def parse(self, crops) -> list:
        found = []
        for crop in crops:
            pixels, own = np.array(crop), np.zeros(crop.size[::-1], np.uint8)
            for colour, label in NAMED.items():
                own[(pixels == colour).all(2)] = label
            found.append(own)
        return found

    def models(self) -> Models:
        return Models(self.detect, self.estimate, self.parse, lambda photos: ["a person"] * len(photos))


def crowd() -> Image.Image:
    sheet = Image.new("RGB", (2 * SIDE, SIDE), GREY)
    for number in (0, 1):
        sheet.paste(picture(), (number * SIDE, 0))
    return sheet


@pytest.fixture
def photos(tmp_path: Path) -> dict[Path, str]:
    """Two photos of one person, one of another, and three that show what is wrong in their name."""
    drawn = {"ann/a": picture(), "ann/b": picture(8), "bob/a": picture(-6), "nobody": Image.new("RGB", (40, 30), GREY)}
    drawn["crowd"] = crowd()
    found = {}
    for name, image in drawn.items():
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        found[path] = name
    torn = tmp_path / "photos" / "torn.jpg"
    torn.write_bytes(b"\xff\xd8\xff torn")
    return found | {torn: "torn"}


def test_what_is_found_is_written_in_the_photos_own_pixels(photos: dict[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    found = prepare(photos, output, Looking().models(), batch_size=2)
    assert {person.name for person in found.persons.values()} == {"ann/a", "ann/b", "bob/a"}
    for name, shift in (("ann/a", 0), ("ann/b", 8), ("bob/a", -6)):
        drawn = labels(shift)
        with Image.open(output / "parsing" / f"{name}.png") as parsing:
            np.testing.assert_array_equal(np.array(parsing), np.where(np.isin(drawn, list(NAMED.values())), drawn, 0))
        pose = read_pose(FilePart(str(output / "pose" / f"{name}.json")), (SIDE, SIDE))
        np.testing.assert_allclose(
            pose, coco_to_openpose(keypoints() + np.where(keypoints()[:, 2:] > 0, [shift, 0, 0], 0))
        )
    problems = {path.stem: why for path, why in found.problems.items()}
    assert problems["nobody"] == "no person" and problems["crowd"].startswith("2 persons")
    assert "torn.jpg" in problems["torn"] and len(problems) == 3


def test_a_second_call_looks_at_what_is_left_alone(photos: dict[Path, str], tmp_path: Path) -> None:
    output, looking = tmp_path / "out", Looking()
    first = prepare(photos, output, looking.models())
    assert looking.photos == 5  # all but the torn one
    (output / "pose" / "ann" / "b.json").unlink()  # as if it was killed before
    again = Looking()
    second = prepare(photos, output, again.models())
    assert again.photos == 3  # that one, and the two that show no single person
    assert {p.name for p in second.persons.values()} == {p.name for p in first.persons.values()}
    (output / "pose" / "ann" / "b.json").write_text("{}")
    with pytest.raises(DataError, match="remove it and prepare it again"):
        prepare(photos, output, again.models())


def test_the_largest_of_several_can_be_meant() -> None:
    near, far, other = (0.0, 0.0, 40.0, 80.0), (50.0, 20.0, 60.0, 40.0), (50.0, 0.0, 80.0, 80.0)
    assert only_person([far, near], "one") == near  # somebody far behind does not count
    assert only_person([other, near], "largest") == near
    with pytest.raises(DataError, match="2 persons; crop to one"):
        only_person([other, near], "one")
    with pytest.raises(DataError, match="no person"):
        only_person([], "largest")


def test_shards_train_pose_transfer(photos: dict[Path, str], tmp_path: Path) -> None:
    """Photos of one folder are one person; the split holds one of the two persons out."""
    output = tmp_path / "out"
    found = prepare(photos, output, Looking().models())
    shards = write_shards(output, found.persons, "ATR_18", "folder", persons_per_shard=2)
    assert [path.name for path in shards] == ["train-0000.tar", "train-0001.tar"]
    data = ImageDataModule(output, view="pose", resolution=SIDE, batch_size=1, num_workers=0, val_fraction=0.5)
    try:
        data.setup()
        samples = [*data.train_samples, *data.val_samples]
    except DataError:  # the person with one photo alone is in training
        samples = []
    keys = {sample.key for sample in samples}
    assert keys <= {"ann_a_to_ann_b", "ann_b_to_ann_a"}
    every = ImageDataModule(output, view="pose_and_itself", resolution=SIDE, batch_size=1, num_workers=0)
    every.setup()
    entries = {sample.key: sample for sample in [*every.train_samples, *every.val_samples]}
    assert {"ann_a_to_ann_b", "bob_a_to_bob_a"} <= set(entries) and len(entries) == 5
    view = every.view(entries["ann_a_to_ann_b"], None)
    assert view["caption"].endswith("a person") and view["source_parsing"].max() > 0
    np.testing.assert_allclose(view["target_keypoints"][0, :2], keypoints()[0, :2] + [8, 0])
    images = ImageDataModule(
        output, image_member="photo.png", mask_member="garment_mask.png", num_workers=0, batch_size=1
    )
    images.setup()
    assert images.view(images.train_samples[0], None)["garment_mask"].any()
    again = write_shards(output, found.persons, "ATR_18", "file")
    assert again == [output / "train-0000.tar"] and not (output / "train-0001.tar").exists()


def test_who_is_one_person() -> None:
    assert [identity(name, "folder") for name in ("ann/a", "x/ann/a", "a")] == ["ann", "x/ann", "a"]
    assert identity("ann/a", "file") == "ann/a"


def test_the_page_shows_problems_first_and_what_was_found(photos: dict[Path, str], tmp_path: Path) -> None:
    found = prepare(photos, tmp_path / "out", Looking().models())
    page = tmp_path / "out" / "contact_sheet.html"
    write_contact_sheet(page, found.persons, found.problems, "ATR_18")
    html = page.read_text()
    order = [html.index(text) for text in ("3 of 6 photos prepared", "no person", "2 persons", "not seen: right wrist")]
    assert order[0] < order[1] and max(order[1:3]) < order[3] and html.count("data:image/jpeg") == 5
    person = found.persons[next(path for path in photos if path.name == "a.png" and path.parent.name == "ann")]
    shown = np.array(overlay(picture(), person, "ATR_18")).astype(int)
    assert (shown[2, 2] == GREY).all()  # background is as it was
    left, top, right, bottom = (int(side) for side in person.box)
    assert (shown[top, left] == 255).all() and (shown[bottom - 1, right - 1] == 255).all()
    face = region_box(
        np.where(np.isin(labels(), [ATR_18.index("face"), ATR_18.index("hair")]), 1, 0).astype(np.uint8), ["face"]
    )
    assert (shown[face[1], face[0]] == [255, 255, 0]).all()


def test_poses_are_compared_with_those_that_were_asked_for(photos: dict[Path, str], tmp_path: Path) -> None:
    found = prepare(photos, tmp_path / "out", Looking().models())
    same = accuracy(found, tmp_path / "out" / "pose")
    assert same["pck"] == same["oks"] == 1.0 and same["persons"] == 3 and same["not_found"] == 3
    path, person = next(iter(found.persons.items()))
    moved = PreparedPerson(person.name, person.keypoints + np.array([30, 0, 0]), person.labels, person.box)
    assert accuracy(Found({path: moved}), tmp_path / "out" / "pose")["pck"] == 0.0
    with pytest.raises(DataError, match="cannot read"):
        accuracy(found, tmp_path)


@pytest.mark.e2e
def test_a_folder_with_real_architectures(photos: dict[Path, str], tmp_path: Path) -> None:
    """Random weights see persons anywhere; what is read, written and told is as with trained ones."""
    given = {
        "input": tmp_path / "photos",
        "output": tmp_path / "out",
        "detector": write_detector(tmp_path / "detector"),
        "pose": write_pose(tmp_path / "pose"),
        "parser": write_parser(tmp_path / "parser"),
        "captioner": "null",
        "persons": "largest",
        "detector_threshold": 0.0,
        "device": "cpu",
        "batch_size": 4,
    }
    command = [sys.executable, "-m", "r2r.prepare", *(f"{name}={value}" for name, value in given.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3 and "1 of 6 photos could not be prepared" in done.stderr, done.stderr[-3000:]
    assert "torn.jpg" in done.stderr and "Traceback" not in done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["images"] == 5 and len(record["broken"]) == 1 and record["shards"] == 1
    for name in photos.values():
        assert (tmp_path / "out" / "parsing" / f"{name}.png").is_file() == (name != "torn")
    assert (tmp_path / "out" / "contact_sheet.html").read_text().count("data:image/jpeg") == 5
    for wrong, message in (("persons=two", "persons=two is none of"), ("label_set=ATR", "unknown label set 'ATR'")):
        done = subprocess.run([*command, wrong], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2 and message in done.stderr, done.stderr[-2000:]


def test_the_config_names_every_model() -> None:
    config = compose("prepare", ["input=a", "output=b"])
    assert config.label_set == "ATR_18" and {"detector", "pose", "parser", "captioner"} <= set(config)
