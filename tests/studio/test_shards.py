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

TINY = {"num_scenes": 2, "seed": 4, "resolution": 24, "scenes_per_shard": 1, "val_fraction": 0.5, "spp": 1}


@pytest.fixture
def studio() -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed")
    pytest.importorskip("trimesh", reason="trimesh is not installed")


def test_plan_puts_the_last_scenes_into_validation() -> None:
    shards = plan_shards(StudioSettings("x", num_scenes=10, scenes_per_shard=4, val_fraction=0.3))
    assert [shard.name for shard in shards] == ["train-0000.tar", "train-0001.tar", "val-0000.tar"]
    assert [list(shard.indices) for shard in shards] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


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


def test_sample_members(studio: None, tmp_path: Path) -> None:
    path = write_shards(StudioSettings(str(tmp_path), **{**TINY, "num_scenes": 1, "val_fraction": 1.0}))[0]
    with tarfile.open(path) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert [name.split(".", 1)[1] for name in members] == ["rendered.png", "photo.png", "garment_mask.png", "json"]
    assert path.name == "val-0000.tar" and len({name.split(".", 1)[0] for name in members}) == 1
    rendered, photo, mask, record = members.values()
    assert Image.open(io.BytesIO(rendered)).size == Image.open(io.BytesIO(photo)).size == (24, 24)
    assert set(Image.open(io.BytesIO(mask)).convert("L").tobytes()) == {0, 255}
    assert json.loads(record)["seed"] == 4


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
        (["output=x", "workers=0"], "workers=0 is too small"),
        (["num_scenes=3"], "output is missing"),
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
    settings, workers = parse_overrides(["output=a=b", "num_scenes=7", "val_fraction=0.5", "workers=3"])
    assert (settings.output, settings.num_scenes, settings.val_fraction, workers) == ("a=b", 7, 0.5, 3)


def test_help_needs_neither_mitsuba_nor_torch() -> None:
    code = (
        "import sys; from r2r.studio.__main__ import main; code = main(['--help']);"
        "sys.exit(code or int(bool({'mitsuba', 'torch', 'trimesh'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "num_scenes" in done.stdout
