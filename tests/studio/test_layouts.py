"""Shards on disk in other data sets' layouts, read back by the adapters: the same people, garments and keypoints."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2r.data import ImageDataModule
from r2r.errors import DataError, InputError
from r2r.studio.layouts import export_layout
from tests.data.people_writing import SIDE, write_people
from tests.data.shard_writing import write_studio


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_people(tmp_path / "shards")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def module(root: Path, **options) -> ImageDataModule:
    data = ImageDataModule(root, batch_size=1, num_workers=0, caption_dropout=0.0, **options)
    data.setup()
    return data


def items(data: ImageDataModule, val: bool = False) -> list[dict]:
    return [data.view(sample, None) for sample in (data.val_samples if val else data.train_samples)]


@pytest.mark.parametrize("layout", ["synfashion", "viton_hd", "deepfashion"])
def test_exports_are_the_same_every_time(shards: Path, tmp_path: Path, layout: str) -> None:
    count = export_layout(shards, layout, tmp_path / "a")
    (tmp_path / ".b.unfinished").mkdir()
    (tmp_path / ".b.unfinished" / "rest of a killed export").touch()
    assert export_layout(shards, layout, tmp_path / "b") == count == {"synfashion": 8}.get(layout, 7)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert export_layout(shards, layout, tmp_path / "a") == count
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert not list(tmp_path.glob(".*"))


def test_viton_hd_comes_back(shards: Path, tmp_path: Path) -> None:
    export_layout(shards, "viton_hd", tmp_path / "viton")
    assert {path.name for path in (tmp_path / "viton" / "train").iterdir()} == {
        "image", "cloth", "cloth-mask", "image-parse-v3", "openpose_json",
    }  # fmt: skip
    size = [SIDE, SIDE * 3 // 4]
    again = module(tmp_path / "viton", layout="viton_hd", view="restoration", resolution=size)
    straight = module(shards, view="restoration", resolution=size)
    assert [len(again.train_samples), len(again.val_samples)] == [5, 2]
    for val in (False, True):
        originals = [item for item in items(straight, val) if item["slot"] == "upper"]
        for old, new in zip(originals, items(again, val), strict=True):
            assert torch.equal(old["parsing"], new["parsing"]) and torch.equal(old["garment_mask"], new["garment_mask"])
            assert (old["person"] - new["person"]).abs().mean() < 0.05  # JPEG
            assert new["slot"] == "upper" and new["flat_mask"].any()
            assert new["flat"][:, new["flat_mask"][0]].mean(1)[0] > 0.4 > new["flat"][:, new["flat_mask"][0]].mean(1)[1]
    poses = module(tmp_path / "viton", layout="viton_hd", view="restoration", resolution=size).train_samples
    content = json.loads(poses[0].parts["pose.json"].read())
    assert len(content["people"][0]["pose_keypoints_2d"]) == 75


def test_viton_hd_pairs_by_file_name_not_by_the_second_column(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "viton"
    export_layout(shards, "viton_hd", root)
    rows = [line.split() for line in (root / "train_pairs.txt").read_text().splitlines()]
    assert {a for a, _ in rows} == {b for _, b in rows} and all(a != b for a, b in rows)
    for sample in module(root, layout="viton_hd", view="restoration", resolution=16).train_samples:
        assert sample.parts["photo.png"].name.replace("/image/", "/cloth/") == sample.parts["flat.png"].name
    (root / "train_pairs.txt").write_text("00001_00.jpg 00000_00.jpg\n00003_00.jpg 00001_00.jpg\n")
    listed = module(root, layout="viton_hd", view="restoration", resolution=16).train_samples
    assert [sample.key for sample in listed] == ["train/image/00001_00.jpg", "train/image/00003_00.jpg"]


def test_viton_hd_without_duplicates_lists_and_older_names(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "viton"
    export_layout(shards, "viton_hd", root)
    for old, new in (("image-parse-v3", "image-parse"), ("openpose_json", "openpose-json")):
        (root / "train" / old).rename(root / "train" / new)
    (root / "train_pairs.txt").unlink()
    unwanted = {"train": {"duplicates": ["00000_00.jpg"], "leaked": ["00004_00.jpg"]}, "test": {"duplicates": []}}
    (root / "vitonhd_duplicate_filenames.json").write_text(json.dumps(unwanted))
    data = module(root, layout="viton_hd", view="restoration", resolution=16)
    assert [sample.key[-12:] for sample in data.train_samples] == [f"0000{i}_00.jpg" for i in (1, 2, 3)]
    (root / "train" / "cloth" / "00001_00.jpg").unlink()
    with pytest.raises(DataError, match=r"cannot read .*cloth/00001_00\.jpg"):
        module(root, layout="viton_hd", view="restoration", resolution=16)
    (root / "train" / "image-parse").rename(root / "train" / "labels")
    with pytest.raises(DataError, match="has no image-parse-v3 or image-parse"):
        module(root, layout="viton_hd", view="restoration", resolution=16)
    (root / "train" / "labels").rename(root / "train" / "image-parse")
    (root / "vitonhd_duplicate_filenames.json").write_text("[]")
    with pytest.raises(DataError, match=r"broken list of duplicates: .*vitonhd_duplicate_filenames\.json"):
        module(root, layout="viton_hd", view="restoration", resolution=16)


def test_deepfashion_comes_back(shards: Path, tmp_path: Path) -> None:
    export_layout(shards, "deepfashion", tmp_path / "fashion")
    again = module(tmp_path / "fashion", layout="deepfashion", view="pose", resolution=[256, 176])
    straight = module(shards, view="pose", resolution=[256, 176])
    assert [len(again.train_samples), len(again.val_samples)] == [8, 2]
    assert again.train_samples[0].identity() == "-id00000000"
    for val in (False, True):
        for old, new in zip(items(straight, val), items(again, val), strict=True):
            for end in ("source", "target"):
                assert (old[f"{end}_pose"][:, :2] - new[f"{end}_pose"][:, :2]).abs().max() <= 1
                assert torch.equal(old[f"{end}_pose"][:, 2] > 0, new[f"{end}_pose"][:, 2] > 0)
            assert torch.equal(old["source_parsing"], new["source_parsing"])
            assert (old["source"] - new["source"]).abs().mean() < 0.05
    doubled = module(tmp_path / "fashion", layout="deepfashion", view="pose_and_itself", resolution=[256, 176])
    assert len(doubled.train_samples) == 8 + 5
    itself = items(doubled)[-1]
    assert torch.equal(itself["source"], itself["target"])


def test_deepfashion_files_are_as_pose_transfer_code_reads_them(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "fashion"
    export_layout(shards, "deepfashion", root)
    with (root / "fasion-resize-annotation-train.csv").open() as file:
        rows = list(csv.DictReader(file, delimiter=":"))
    names = (root / "train.lst").read_text().split()
    assert [row["name"] for row in rows] == names and names[0] == "fashionWOMENT_Shirtid0000000001_1front.jpg"
    down, right = json.loads(rows[0]["keypoints_y"]), json.loads(rows[0]["keypoints_x"])
    assert (down[0], right[0]) == (int(11.5 * 4), int(32.5 * 4) - 40)  # nose: y is not x
    assert (down[4], right[4]) == (-1, -1)  # right wrist
    assert (root / "fasion-resize-pairs-train.csv").read_text().startswith("from,to\n")
    with Image.open(root / "train_highres" / names[0]) as picture:
        assert picture.size == (176, 256)


def test_deepfashion_in_other_spelling_and_square(shards: Path, tmp_path: Path) -> None:
    root = tmp_path / "fashion"
    export_layout(shards, "deepfashion", root)
    expected = items(module(root, layout="deepfashion", view="pose", resolution=[256, 176]))[0]
    for path in root.glob("fasion-*.csv"):
        path.rename(path.with_name(path.name.replace("fasion", "fashion")))
    for split in ("train", "test"):
        for path in (root / f"{split}_highres").iterdir():
            square = Image.new("RGB", (256, 256), "white")
            square.paste(Image.open(path), (40, 0))
            square.save(path)
        (root / f"{split}_highres").rename(root / split)
    for path in (root / "parsing").iterdir():
        path.unlink()
    (root / "parsing").rmdir()
    found = items(module(root, layout="deepfashion", view="pose", resolution=[256, 176]))[0]
    assert torch.allclose(found["source_pose"], expected["source_pose"]) and "source_parsing" not in found
    pairs = root / "fashion-resize-pairs-train.csv"
    pairs.write_text(pairs.read_text() + "one.jpg,two.jpg\n")
    with pytest.raises(DataError, match=r"one\.jpg is in a pair but has no keypoints in .*annotation-train\.csv"):
        module(root, layout="deepfashion", view="pose")
    pairs.write_text("a,b\n")
    with pytest.raises(DataError, match=r"begins with 'a,b', not with 'from,to'"):
        module(root, layout="deepfashion", view="pose")


def test_synfashion_comes_back(shards: Path, tmp_path: Path) -> None:
    export_layout(shards, "synfashion", tmp_path / "syn")
    data = module(tmp_path / "syn", layout="synfashion", resolution=SIDE)
    assert [len(data.train_samples), len(data.val_samples)] == [6, 2]
    assert sorted({item["caption"] for item in items(data)}) == ["shirt", "t-shirt"]


def test_dresscode_is_read(tmp_path: Path) -> None:
    place = tmp_path / "lower_body"
    labels = np.zeros((32, 24), np.uint8)
    labels[10:20, 5:15] = 6
    for folder in ("images", "label_maps", "keypoints"):
        (place / folder).mkdir(parents=True)
    for number in ("000001", "000002"):
        for kind, colour in ((0, "grey"), (1, "white")):
            Image.new("RGB", (24, 32), colour).save(place / "images" / f"{number}_{kind}.jpg")
        Image.fromarray(labels).save(place / "label_maps" / f"{number}_4.png")
    (place / "train_pairs.txt").write_text("000001_0.jpg\t000001_1.jpg\n\n")
    (place / "test_pairs_paired.txt").write_text("000002_0.jpg\t000002_1.jpg\n")
    data = module(tmp_path, layout="dresscode", view="restoration", resolution=[32, 24])
    (item,) = items(data)
    assert item["slot"] == "lower" and item["garment_mask"].sum() == 100 and "flat_mask" not in item
    assert [sample.key for sample in data.val_samples] == ["lower_body/images/000002_0.jpg"]
    (place / "train_pairs.txt").write_text("000001_0.jpg\n")
    with pytest.raises(DataError, match=r"train_pairs\.txt: '000001_0\.jpg' is not a line of 2 names"):
        module(tmp_path, layout="dresscode", view="restoration")


@pytest.mark.parametrize("layout", ["viton_hd", "dresscode", "deepfashion"])
def test_other_folders_are_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"check data\.root and data\.layout"):
        module(tmp_path, layout=layout, view="restoration")


def test_bad_exports(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout=zip is unknown; use one of synfashion, viton_hd, deepfashion"):
        export_layout(shards, "zip", tmp_path / "out")
    with pytest.raises(DataError, match=r"no train-\*\.tar or val-\*\.tar in"):
        export_layout(tmp_path, "viton_hd", tmp_path / "out")
    export_layout(shards, "viton_hd", tmp_path / "out")
    with pytest.raises(InputError, match=r"output=.*out holds something else"):
        export_layout(shards, "deepfashion", tmp_path / "out")
    with pytest.raises(DataError, match="no scene fits layout=viton_hd; it shows persons"):
        export_layout(write_studio(tmp_path / "old"), "viton_hd", tmp_path / "none")
    assert not list(tmp_path.glob(".none*"))
    shard = next(shards.glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"broken or truncated shard: .*train-0000\.tar"):
        export_layout(shards, "viton_hd", tmp_path / "broken")
