"""The prepare verb: what it writes for training and translation, what it refuses, and how it goes on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from r2r.cli import compose
from r2r.data import ImageDataModule
from r2r.data.images import decode_mask, load_image
from r2r.data.keypoints import read_pose
from r2r.data.prepared import PreparedPerson, begin_folder, check_folder, region_box
from r2r.data.prepared_shards import ShardSettings, check_keys, identity, write_shards
from r2r.data.samples import FilePart
from r2r.data.shards import index_shards
from r2r.errors import DataError, InputError
from r2r.parsing import ATR_18, REGIONS
from r2r.pose import coco_to_openpose
from r2r.prepare import Found, Models, accuracy, only_person, prepare
from r2r.reporting.contact_sheet import COLOURS as COLOURS_OF
from r2r.reporting.contact_sheet import overlay, write_contact_sheet
from tests.data.people_writing import BOXES, COLOURS, SIDE, keypoints, labels, picture
from tests.person_weights import teach_detector, write_detector, write_parser, write_pose

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
    found = prepare(photos, output, Looking().models, batch_size=2)
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
    first = prepare(photos, output, looking.models)
    assert looking.photos == 5  # all but the torn one
    (output / "pose" / "ann" / "b.json").unlink()  # as if it was killed before
    again = Looking()
    second = prepare(photos, output, again.models)
    assert again.photos == 3  # that one, and the two that show no single person
    assert {p.name for p in second.persons.values()} == {p.name for p in first.persons.values()}
    (output / "pose" / "ann" / "b.json").write_text("{}")
    with pytest.raises(DataError, match="remove it and prepare it again"):
        prepare(photos, output, again.models)


def test_captions_can_be_added_later(photos: dict[Path, str], tmp_path: Path) -> None:
    output, first, again = tmp_path / "out", Looking(), Looking()
    silent = prepare(photos, output, lambda: replace(first.models(), caption=None), captions=False)
    assert {person.caption for person in silent.persons.values()} == {None}
    good = {photo: name for photo, name in photos.items() if photo in silent.persons}
    worded = prepare(good, output, again.models)
    assert again.photos == 0 and worded.changed == 3  # nothing is detected again
    assert {person.caption for person in worded.persons.values()} == {"a person"}
    known = prepare(good, output, lambda: pytest.fail("models are loaded for nothing"))
    assert known.changed == 0 and [p.caption for p in known.persons.values()] == ["a person"] * 3


def test_a_photo_that_was_replaced_is_prepared_again(photos: dict[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare(photos, output, Looking().models)
    photo = next(iter(photos))
    picture(8).resize((SIDE, SIDE)).save(photo, compress_level=0)
    (output / "masks" / "upper" / "bob" / "a.png").unlink()
    again = Looking()
    found = prepare({each: name for each, name in photos.items() if "/" in name}, output, again.models)
    assert again.photos == found.changed == 2
    upper = np.array(Image.open(output / "masks" / "upper" / "ann" / "a.png"))
    np.testing.assert_array_equal(upper > 0, labels(8) == ATR_18.index("upper-clothes"))
    assert not np.array(Image.open(output / "masks" / "full" / "ann" / "a.png")).any()


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
    found = prepare(photos, output, Looking().models)
    shards = write_shards(output, found.persons, ShardSettings(persons=2))
    assert [path.name for path in shards] == ["train-0000.tar", "train-0001.tar"]
    data = ImageDataModule(output, view="pose", resolution=SIDE, batch_size=1, num_workers=0, val_fraction=0.5)
    try:
        data.setup()
        samples = [*data.train_samples, *data.val_samples]
    except DataError:  # the person with one photo alone is in training
        samples = []
    keys = {sample.key for sample in samples}
    assert keys <= {"ann/a_to_ann/b", "ann/b_to_ann/a"}
    every = ImageDataModule(output, view="pose_and_itself", resolution=SIDE, batch_size=1, num_workers=0)
    every.setup()
    entries = {sample.key: sample for sample in [*every.train_samples, *every.val_samples]}
    assert {"ann/a_to_ann/b", "bob/a_to_bob/a"} <= set(entries) and len(entries) == 5
    view = every.view(entries["ann/a_to_ann/b"], None)
    assert view["caption"].endswith("a person") and view["source_parsing"].max() > 0
    np.testing.assert_allclose(view["target_keypoints"][0, :2], keypoints()[0, :2] + [8, 0])
    images = ImageDataModule(
        output, image_member="photo.png", mask_member="garment_mask.png", num_workers=0, batch_size=1
    )
    images.setup()
    assert images.view(images.train_samples[0], None)["garment_mask"].any()
    assert write_shards(output, found.persons, ShardSettings(persons=2)) == []  # all as it was
    again = write_shards(output, found.persons, ShardSettings(identity="file"))
    assert again == [output / "train-0000.tar"] and not (output / "train-0001.tar").exists()


def test_shards_keep_up_with_what_changes(photos: dict[Path, str], tmp_path: Path) -> None:
    """One shard for each photo here: those of other photos are not touched; each identity is in one."""
    output, each = tmp_path / "out", ShardSettings(identity="file", persons=1)
    persons = prepare(photos, output, Looking().models).persons
    assert len(write_shards(output, persons, each)) == 3
    first = next(iter(persons))
    persons[first] = persons[first].captioned("someone else")
    assert write_shards(output, persons, each) == [output / "train-0000.tar"]
    (sample,) = index_shards([str(output / "train-0000.tar")])
    assert sample.fields()["caption"] == "someone else" and sample.fields()["source"] == persons[first].name
    (output / "train-0002.tar").unlink()
    assert write_shards(output, persons, each) == [output / "train-0002.tar"]
    assert write_shards(output, persons, ShardSettings(persons=1)) == [output / f"train-{n:04d}.tar" for n in (0, 1)]
    assert [len(index_shards([str(path)])) for path in sorted(output.glob("*.tar"))] == [2, 1]
    assert not list(output.glob("*.unfinished"))


def test_large_photos_become_smaller_samples(photos: dict[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    persons = prepare(photos, output, Looking().models).persons
    write_shards(output, persons, ShardSettings(side=SIDE // 2))
    samples = {sample.key: sample for sample in index_shards([str(output / "train-0000.tar")])}
    sample, person = samples["ann/b"], next(each for each in persons.values() if each.name == "ann/b")
    for member in ("photo.png", "parsing.png", "garment_mask.png"):
        assert decode_mask(sample.part(member).read(), member).size == (SIDE // 2, SIDE // 2)
    pose = read_pose(sample.part("pose.json"), (SIDE // 2, SIDE // 2))
    np.testing.assert_allclose(pose, coco_to_openpose(person.keypoints) * [0.5, 0.5, 1])
    np.testing.assert_allclose(sample.fields()["box"], np.array(person.box) / 2)
    left, top, right, bottom = (2 * side for side in sample.fields()["face_box"])
    assert (left - 8, top, right - 8, bottom) == (27, 3, 37, 15)  # of hair and face as drawn


def test_names_that_make_one_sample_are_refused(tmp_path: Path) -> None:
    check_keys(["a/b", "a_b", "a.b/c"])
    with pytest.raises(InputError, match=r"x\.1 and x_1 would both be sample x_1; rename one"):
        check_keys(["x.1", "x_1"])
    name, photo = "n" * 120, tmp_path / "long.png"
    picture().save(photo)
    person = PreparedPerson(tmp_path, name, (SIDE, SIDE), 0, keypoints(), (0.0, 0.0, 9.0, 9.0))
    person.write(labels(), "ATR_18")
    write_shards(tmp_path, {photo: person}, ShardSettings())
    assert [sample.key for sample in index_shards([str(tmp_path / "train-0000.tar")])] == [name]
    Image.new("RGB", (9, 9)).save(photo)
    (tmp_path / "train-0000.tar").unlink()
    with pytest.raises(DataError, match=r"long\.png is not as it was prepared"):
        write_shards(tmp_path, {photo: person}, ShardSettings())


def test_results_of_other_settings_do_not_mix(tmp_path: Path) -> None:
    settings, output = {"parser": "a", "label_set": "ATR_18"}, tmp_path / "out"
    check_folder(output, settings)
    assert not output.exists()
    begin_folder(output, settings)
    check_folder(output, settings)
    with pytest.raises(InputError, match=r"other settings: label_set=LIP_20 \(there: ATR_18\)"):
        check_folder(output, settings | {"label_set": "LIP_20"})
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "train-0000.tar").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"not from r2r\.prepare"):
        check_folder(tmp_path / "studio", settings)
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "studio" / "train-0000.tar", settings)


def test_who_is_one_person() -> None:
    assert [identity(name, "folder") for name in ("ann/a", "x/ann/a", "a")] == ["ann", "x/ann", "a"]
    assert identity("ann/a", "file") == "ann/a"


def test_the_page_shows_problems_first_and_what_was_found(photos: dict[Path, str], tmp_path: Path) -> None:
    found = prepare(photos, tmp_path / "out", Looking().models)
    page = tmp_path / "out" / "contact_sheet.html"
    write_contact_sheet(page, photos, found.persons, found.problems, found.boxes, "ATR_18")
    html = page.read_text()
    order = [html.index(text) for text in ("3 of 6 photos prepared", "no person", "2 persons", "not seen: right wrist")]
    assert order[0] < order[1] and max(order[1:3]) < order[3] and html.count("data:image/jpeg") == 5
    person = found.persons[next(path for path in photos if path.name == "a.png" and path.parent.name == "ann")]
    shown = np.array(overlay(picture(), person, "ATR_18")).astype(int)
    assert (shown[2, 2] == GREY).all()  # background is as it was
    left, top, right, bottom = (int(side) for side in person.box)
    assert (shown[top, left] == [0, 255, 255]).all() and (shown[bottom - 1, right - 1] == [0, 255, 255]).all()
    face = region_box(
        np.where(np.isin(labels(), [ATR_18.index("face"), ATR_18.index("hair")]), 1, 0).astype(np.uint8), ["face"]
    )
    assert (shown[int(face[1]), int(face[0])] == [255, 255, 0]).all()
    tinted = shown[:, SIDE:].reshape(SIDE, SIDE, 3)
    for name, region in (("upper-clothes", "upper"), ("pants", "lower")):
        grey = np.array(picture().convert("L"))[labels() == ATR_18.index(name)].mean()
        expected = 0.35 * grey + 0.65 * np.array(COLOURS_OF[REGIONS.index(region)])
        np.testing.assert_allclose(tinted[labels() == ATR_18.index(name)].mean(0), expected, atol=1)
    stray = np.zeros((SIDE, SIDE), np.uint8)
    stray[20:40, 10:30] = stray[60, 60] = 1
    assert region_box(stray, ["face"]) == (10.0, 20.0, 30.0, 40.0)  # a speck elsewhere does not count
    assert region_box(0 * stray, ["face"]) is None


def test_the_page_tells_remarks_and_leaves_out_what_is_in_order(
    photos: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prepare(photos, tmp_path / "out", Looking().models, persons="largest")
    crowd, well, page = (next(p for p in photos if p.stem == "crowd"), next(iter(photos)), tmp_path / "page.html")
    everything = np.where(keypoints()[:, 2:] > 0, keypoints(), [30, 30, 2])
    found.persons[well] = replace(found.persons[well], keypoints=everything)
    headless = np.concatenate([everything[:13], np.zeros((4, 3))])
    found.persons[crowd] = replace(found.persons[crowd], keypoints=headless)
    write_contact_sheet(page, photos, found.persons, found.problems, found.boxes, "ATR_18")
    html = page.read_text()
    assert "2 persons: largest taken; not seen: knees, ankles" in html and "3 of them with a remark" in html
    assert html.index("torn") < html.index("largest taken") < html.index(">ok<")
    monkeypatch.setattr("r2r.reporting.contact_sheet.MOST", 5)
    write_contact_sheet(page, photos, found.persons, found.problems, found.boxes, "ATR_18")
    assert "1 photos are not shown" in page.read_text() and ">ok<" not in page.read_text()
    shown = np.array(overlay(crowd_picture := load_image(crowd), found.persons[crowd], "ATR_18")).astype(int)
    left, top, *_ = (int(side) for side in found.persons[crowd].others[0])
    assert (shown[top, left] == [255, 0, 0]).all() and shown.shape[:2] == (
        crowd_picture.height,
        2 * crowd_picture.width,
    )


def test_poses_are_compared_with_those_that_were_asked_for(photos: dict[Path, str], tmp_path: Path) -> None:
    found = prepare(photos, tmp_path / "out", Looking().models)
    same = accuracy(found, tmp_path / "out" / "pose")
    assert same["pck"] == same["oks"] == 1.0 and same["persons"] == 3 and same["not_found"] == 3
    path, person = next(iter(found.persons.items()))
    moved = replace(person, keypoints=person.keypoints + np.array([30, 0, 0]))
    assert accuracy(Found({path: moved}), tmp_path / "out" / "pose")["pck"] == 0.0
    with pytest.raises(DataError, match="cannot read"):
        accuracy(found, tmp_path)


@pytest.mark.e2e
def test_a_folder_with_real_architectures(photos: dict[Path, str], tmp_path: Path) -> None:
    """A detector that was taught to count these photos, and random models: files, messages and exit codes."""
    detector = write_detector(tmp_path / "detector", places=2)
    teach_detector(detector, [load_image(photo) for photo in photos if photo.stem != "torn"], [1, 1, 1, 0, 2])
    given = {
        "input": tmp_path / "photos",
        "output": tmp_path / "out",
        "detector": detector,
        "pose": write_pose(tmp_path / "pose"),
        "parser": write_parser(tmp_path / "parser"),
        "captioner": "null",
        "device": "cpu",
        "batch_size": 4,
    }
    command = [sys.executable, "-m", "r2r.prepare", *(f"{name}={value}" for name, value in given.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *overrides], capture_output=True, text=True, env=environment, check=False)

    done, output = run(), tmp_path / "out"
    assert done.returncode == 3 and "3 of 6 photos could not be prepared" in done.stderr, done.stderr[-3000:]
    assert all(f"{name}: " in done.stderr for name in ("torn.jpg", "crowd.png", "nobody.png"))
    assert "Traceback" not in done.stderr and "error: 3 of 6" in done.stderr
    record = json.loads((output / "run.json").read_text())
    assert record["images"] == 3 and len(record["broken"]) == 3 and record["shards_written"] == 1
    for name in photos.values():
        assert (output / "parsing" / f"{name}.png").is_file() == ("/" in name)
    assert (output / "contact_sheet.html").read_text().count("data:image/jpeg") == 5

    done = run("persons=largest")
    assert done.returncode == 3 and "6 photos, 3 done already" in done.stdout and "2 of 6 photos" in done.stderr
    assert "2 persons: largest taken" in (output / "contact_sheet.html").read_text()
    for name in ("torn.jpg", "nobody.png"):
        (tmp_path / "photos" / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    done = run("persons=largest", "detector_threshold=0.9")
    assert done.returncode == 0 and "4 photos, 4 done already" in done.stdout and "nothing new" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == times
    wrong = {"persons=two": "persons=two is none of", "keypoint_threshold=0.1": "results of other settings: keypoint_"}
    for override, message in wrong.items():
        done = run(override)
        assert done.returncode == 2 and message in done.stderr, done.stderr[-2000:]


def test_the_config_names_every_model() -> None:
    config = compose("prepare", ["input=a", "output=b"])
    assert config.label_set == "ATR_18" and {"detector", "pose", "parser", "captioner"} <= set(config)
