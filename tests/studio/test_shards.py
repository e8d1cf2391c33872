"""Shards: the promised members and splits, the same bytes however they were rendered, and clear refusals."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from r2r.errors import InputError
from r2r.studio.__main__ import main, parse_overrides
from r2r.studio.shards import StudioSettings, plan_shards, write_shards

TINY = {
    "num_scenes": 2,
    "seed": 4,
    "subject": "garment",
    "resolution": 24,
    "scenes_per_shard": 1,
    "val_fraction": 0.5,
    "spp": 1,
}


@pytest.fixture
def studio() -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed")
    pytest.importorskip("trimesh", reason="trimesh is not installed")


def test_plan_puts_the_last_scenes_into_validation() -> None:
    shards = plan_shards(StudioSettings("x", 10, subject="garment", scenes_per_shard=4, val_fraction=0.3))
    assert [shard.name for shard in shards] == ["train-0000.tar", "train-0001.tar", "val-0000.tar"]
    assert [list(shard.indices) for shard in shards] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("num_scenes", [8, 25])
def test_no_person_is_in_both_splits(num_scenes: int, views: int) -> None:
    shards = plan_shards(StudioSettings("x", num_scenes, subject="person", views=views, val_fraction=0.4))
    people = [
        {index // views for shard in shards if shard.name.startswith(split) for index in shard.indices}
        for split in ("train", "val")
    ]
    assert people[0] and people[1] and not people[0] & people[1]
    assert sorted(index for shard in shards for index in shard.indices) == list(range(num_scenes))


def test_resumed_and_parallel_runs_write_the_same_bytes(studio: None, tmp_path: Path) -> None:
    straight = write_shards(StudioSettings(str(tmp_path / "a folder"), **TINY))
    expected = {path.name: path.read_bytes() for path in straight}
    broken = StudioSettings(str(tmp_path / "b"), **TINY)
    write_shards(broken, workers=2)
    (tmp_path / "b" / "val-0000.tar").rename(tmp_path / "b" / "val-0000.tar.unfinished")
    kept = (tmp_path / "b" / "train-0000.tar").stat().st_mtime_ns
    resumed = write_shards(broken)
    assert {path.name: path.read_bytes() for path in resumed} == expected
    assert (tmp_path / "b" / "train-0000.tar").stat().st_mtime_ns == kept
    assert not list((tmp_path / "b").glob("*.unfinished"))


@pytest.mark.parametrize("subject", ["garment", "person"])
def test_sample_members(studio: None, tmp_path: Path, subject: str) -> None:
    settings = StudioSettings(str(tmp_path), **{**TINY, "num_scenes": 1, "val_fraction": 1.0, "subject": subject})
    (path,) = write_shards(settings)
    with tarfile.open(path) as tar:
        members = {name.split(".", 1)[1]: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    record = json.loads(members["json"])
    promised = {"rendered.png", "photo.png", "garment_mask.png", "parsing.png", "flat.png", "flat_mask.png", "json"}
    worn = {"pose.json"} if subject == "person" else set[str]()
    second = {"flat_2.png", "flat_2_mask.png"} if len(record["garments"]) == 2 else set[str]()
    assert set(members) == promised | worn | second
    pictures = {name: Image.open(io.BytesIO(data)) for name, data in members.items() if name.endswith(".png")}
    assert {picture.size for picture in pictures.values()} == {(24, 24)}
    assert set(pictures["garment_mask.png"].tobytes()) <= {0, 255}
    assert record["seed"] == 4 and record["subject"] == subject


def test_other_settings_are_refused_in_a_used_folder(studio: None, tmp_path: Path) -> None:
    write_shards(StudioSettings(str(tmp_path), **{**TINY, "num_scenes": 1}))
    with pytest.raises(InputError, match=r"seed=5 \(there: 4\)"):
        write_shards(StudioSettings(str(tmp_path), **{**TINY, "num_scenes": 1, "seed": 5}))


def test_foreign_folder_is_refused(studio: None, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not from the studio"):
        write_shards(StudioSettings(str(tmp_path), **TINY))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["output=x", "sed=3"], "'sed=3' is not a setting"),
        (["output=x", "num_scenes"], "'num_scenes' is not a setting"),
        (["output=x", "num_scenes=many"], "num_scenes=many is not a whole number"),
        (["output=x", "num_scenes=0"], "num_scenes=0 is too small"),
        (["output=x", "val_fraction=1.5"], "val_fraction=1.5 is not a share"),
        (["output=x", "views=5"], "views=5: a person has 2 to 4 views"),
        (["output=x", "subject=cat"], "subject=cat is none of garment, person, mixed"),
        (["output=x", "layout=zip"], "layout=zip is none of shards, synfashion, viton_hd, deepfashion"),
        (["output=x", "workers=0"], "workers=0 is too small"),
        (["output=", "num_scenes=3"], "output= is empty"),
    ],
)
def test_bad_words_exit_with_one_message(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_overrides_become_settings() -> None:
    words = ["output=a=b", "num_scenes=7", "val_fraction=0.5", "workers=3", "layout=viton_hd"]
    settings, *others = parse_overrides(words)
    assert (settings.output, settings.num_scenes, settings.val_fraction) == ("a=b", 7, 0.5)
    assert others == [3, "viton_hd"]


def test_help_needs_neither_mitsuba_nor_torch() -> None:
    code = (
        "import sys; from r2r.studio.__main__ import main; code = main(['--help']);"
        "sys.exit(code or int(bool({'mitsuba', 'torch', 'trimesh'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "num_scenes" in done.stdout
