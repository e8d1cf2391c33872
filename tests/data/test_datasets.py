"""Layouts and captions: what is found where, and in which words."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2r.data import ImageDataModule
from r2r.data.captions import CaptionRule
from r2r.data.datasets import find_samples, hold_out
from r2r.data.samples import LoadedPart, Sample
from r2r.errors import DataError
from tests.data.shard_writing import png, write_images, write_shard


def captions(root: Path, layout: str = "folder", **options) -> dict[str, str]:
    rule = CaptionRule("a {caption}", "something")
    train, val = find_samples(root, layout, val_fraction=0.0, **options)
    return {sample.key: rule(sample) for sample in [*train, *val]}


def test_caption_sources_of_a_folder(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "deep/b.png", "c.png"])
    assert captions(tmp_path) == {"a.png": "something", "c.png": "something", "deep/b.png": "something"}
    (tmp_path / "a.txt").write_text("Red Shirt\n")
    assert captions(tmp_path)["a.png"] == "a red shirt"
    lines = [{"file_name": "a.png", "text": "skirt"}, {"file_name": "deep/b.png", "text": "coat"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert captions(tmp_path) == {"a.png": "a skirt", "c.png": "something", "deep/b.png": "a coat"}
    (tmp_path / "captions.json").write_text(json.dumps({"c.png": "hat"}))
    assert captions(tmp_path) == {"a.png": "a red shirt", "c.png": "a hat", "deep/b.png": "something"}
    (tmp_path / "own.json").write_text(json.dumps({"c.png": "cap"}))
    assert captions(tmp_path, captions=tmp_path / "own.json")["c.png"] == "a cap"


def test_splits_of_a_folder_may_bring_their_own_metadata(tmp_path: Path) -> None:
    write_images(tmp_path, ["train/a.png", "val/b.png"])
    (tmp_path / "val" / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "dress"}')
    train, val = find_samples(tmp_path, "folder")
    assert [s.key for s in train] == ["train/a.png"]
    assert [(s.key, s.caption) for s in val] == [("val/b.png", "dress")]


def test_caption_sources_of_a_shard(tmp_path: Path) -> None:
    parts = {"a": {"jpg": b"", "json": b'{"caption": "Dress"}'}, "b": {"jpg": b"", "txt": b"Coat "}, "c": {"jpg": b""}}
    write_shard(tmp_path / "train-0.tar", parts)
    assert captions(tmp_path, "shards") == {"a": "a dress", "b": "a coat", "c": "something"}
    (tmp_path / "captions.json").write_text(json.dumps({"a": "robe"}))
    assert captions(tmp_path, "shards")["a"] == "a robe"


@pytest.mark.parametrize(("name", "text"), [("captions.json", "[1"), ("captions.json", "[]"), ("metadata.jsonl", "{}")])
def test_broken_caption_files_are_named(tmp_path: Path, name: str, text: str) -> None:
    write_images(tmp_path, ["a.png"])
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"broken caption file: .*{name}"):
        captions(tmp_path)
    with pytest.raises(DataError, match=r"cannot read caption file .*gone\.json"):
        captions(tmp_path, captions="gone.json")


def test_broken_json_members_are_named() -> None:
    for data, message in ((b"{", "broken JSON: x.json"), (b"[]", "not a JSON object: x.json")):
        with pytest.raises(DataError, match=message):
            CaptionRule()(Sample("x", {"json": LoadedPart("x.json", data)}))


def test_synfashion_categories_are_captions(tmp_path: Path) -> None:
    write_images(tmp_path, ["half skirt/1.png", "trench_coat/project/2.png", "loose.png"])
    assert captions(tmp_path, "synfashion") == {
        "half skirt/1.png": "a half skirt",
        "trench_coat/project/2.png": "a trench coat",
        "loose.png": "something",
    }


def test_face_synthetics_masks_are_the_foreground(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 15, 255]] * 4, dtype=np.uint8)
    for i in range(2):
        Image.new("RGB", (4, 4), "white").save(tmp_path / f"{i:06d}.png")
        Image.fromarray(labels).save(tmp_path / f"{i:06d}_seg.png")
        (tmp_path / f"{i:06d}_ldmks.txt").write_text("1 2\n")
    data = ImageDataModule(
        tmp_path, "face_synthetics", resolution=4, batch_size=1, num_workers=0, mask_member="seg.png", val_fraction=0.0
    )
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert len(data.train_samples) == 2
    assert batch["garment_mask"][0, 0, 0].tolist() == [False, True, True, False]
    (tmp_path / "000001_seg.png").unlink()
    data = ImageDataModule(tmp_path, "face_synthetics", resolution=4, batch_size=1, mask_member="seg.png")
    with pytest.raises(DataError, match=r"cannot read .*000001_seg\.png"):
        data.setup()


def test_a_pattern_of_local_shards(tmp_path: Path) -> None:
    for split, shard in (("train", 0), ("train", 1), ("val", 0)):
        write_shard(tmp_path / f"{split}-{shard}.tar", {f"{split}{shard}": {"png": png(shard)}})
    write_shard(tmp_path / "val-1.tar", {"val1": {"png": png(1)}})
    train, val = find_samples(f"{tmp_path}/{{split}}-{{0..1}}.tar", "shards")
    assert [s.key for s in train] == ["train0", "train1"]
    assert [s.key for s in val] == ["val0", "val1"]
    with pytest.raises(DataError, match=r"no \{split\} in data.root"):
        find_samples(f"{tmp_path}/train-0.tar", "shards")


def test_hold_out_keeps_something_on_both_sides() -> None:
    samples = [Sample(str(i), {}) for i in range(10)]
    for count, held in ((1, 0), (2, 1), (10, 1)):
        train, val = hold_out(samples[:count], 0.05)
        assert (len(train), len(val)) == (count - held, held)
    assert hold_out(samples, 0.0) == (samples, [])
    grown = [*samples, Sample("new", {})]
    kept = {s.key for s in hold_out(grown, 0.3)[1]} - {"new"}
    assert kept <= {s.key for s in hold_out(samples, 0.3)[1]} | {"new"}
