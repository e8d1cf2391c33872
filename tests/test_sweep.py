"""The sweep verb: a grid of folders, resumable, split over processes, scored and drawn."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from r2r.cli import compose
from r2r.data import folders
from r2r.errors import DataError, InputError
from r2r.sweep import resume, sweep

CELLS = {f"strength_{s}/tac_{r}" for s in ("0.2", "0.4") for r in ("0", "0.9")}


def write_pictures(folder: Path, count: int = 3, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = torch.randint(0, 256, (24, 32, 3), generator=torch.Generator().manual_seed(seed + index)).byte()
        Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "renders")


def config(renders: Path, output: Path, model: Path, *overrides: str) -> DictConfig:
    quick = "num_inference_steps=10", "device=cpu", "strength=[0.2,0.4]", "tac_ratio=[0,0.9]", "~metrics.kid"
    return compose("sweep", [f"input={renders}", f"output={output}", f"model={model}", *quick, *overrides])


def cells(output: Path) -> dict[str, set[str]]:
    places = (path.relative_to(output) for path in output.glob("strength_*/tac_*/*.png"))
    found: dict[str, set[str]] = {}
    for place in places:
        found.setdefault(place.parent.as_posix(), set()).add(place.name)
    return found


def test_every_cell_is_written_scored_and_drawn(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    out, target = tmp_path / "out", write_pictures(tmp_path / "photos", seed=10)
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(3):
        Image.new("L", (32, 24), 255).save(masks / f"{index}.png")
    sweep(config(renders, out, sd_folder, f"target={target}", f"masks.garment={masks}", "num_figures=1"))
    assert cells(out) == {cell: {"0.png", "1.png", "2.png"} for cell in CELLS}
    record = json.loads((out / "run.json").read_text())
    inversion, source_rows = 3, 2  # of 4 steps; TAC 0.9 of 0.4 injects 3, the first of them in vain
    targets = 2 * (
        (3 + 2) + 1
    )  # at 0.4 two walks part after the first step; at 0.2 one step, before any injection counts
    assert record["images"] == 3 and record["unet_sample_evals"] == 3 * (inversion + source_rows + targets)
    scores = {(c["strength"], c["tac_ratio"]): c["scores"] for c in record["cells"]}
    assert len(scores) == 4 and record["protocols"].keys() == record["better"].keys()
    assert scores[0.2, 0.0]["SSIM to source in garment"]["value"] == pytest.approx(
        scores[0.2, 0.0]["SSIM to source"]["value"], abs=1e-6
    )
    rows = list(csv.reader((out / "cells.csv").read_text().splitlines()))
    assert [row[0] for row in rows[2:6]] == [f"strength {s}, TAC ratio {r}" for s in (0.2, 0.4) for r in (0, 0.9)]
    with Image.open(out / "figure_1.png") as figure, Image.open(out / "heat_maps.png") as maps:
        assert figure.width > 2 * 160 and maps.width > 200
    assert not (out / "figure_2.png").exists()


def test_goes_on_where_it_was_killed(
    renders: Path, tmp_path: Path, sd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted within the second image: what was finished stays, the rest is done, and equals a straight run."""
    out, straight, written = tmp_path / "out", tmp_path / "straight", []
    save = folders.save_png

    def save_some(image: Image.Image, target: Path) -> None:
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(target)
        save(image, target)

    monkeypatch.setattr(folders, "save_png", save_some)
    with pytest.raises(KeyboardInterrupt):
        sweep(config(renders, out, sd_folder, "max_rows=1"))
    assert sum(map(len, cells(out).values())) == 6 and not (out / "run.json").exists()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("strength_*/tac_*/0.png")}
    monkeypatch.setattr(folders, "save_png", save)
    assert resume(out) == 0
    assert json.loads((out / "run.json").read_text())["images"] == 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps and len(stamps) == 4
    assert resume(out) == 0  # nothing is left to do, and nothing of the record is lost
    assert json.loads((out / "run.json").read_text())["images"] == 2
    sweep(config(renders, straight, sd_folder, "max_rows=1"))
    for path in straight.glob("strength_*/tac_*/*.png"):
        assert path.read_bytes() == (out / path.relative_to(straight)).read_bytes()


def test_a_broken_image_is_reported_at_the_end(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    (renders / "1.png").write_bytes((renders / "0.png").read_bytes()[:100])
    with pytest.raises(DataError, match=r"(?s)1 of 3 images.*1\.png"):
        sweep(config(renders, tmp_path / "out", sd_folder))
    assert cells(tmp_path / "out") == {cell: {"0.png", "2.png"} for cell in CELLS}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strength=[0.2,1.2]", "strength=1.2"),
        ("tac_ratio=[]", "at least one"),
        ("strength=[much]", "not a list of numbers"),
        ("inversion_order=released", "ascending"),
        ("max_rows=0", "max_rows=0"),
        ("devices=0", "devices=0"),
        ("input=/nonexistent", "/nonexistent"),
        ("target=/nonexistent", "/nonexistent"),
        ("model=/nonexistent", "/nonexistent"),
    ],
)
def test_bad_input_writes_no_picture(
    renders: Path, tmp_path: Path, sd_folder: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sweep(config(renders, tmp_path / "out", sd_folder, override))
    assert not list(tmp_path.glob("out/strength_*"))


def test_one_image_has_no_distance_of_sets(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    target = write_pictures(tmp_path / "photos", seed=10)
    cfg = config(renders / "0.png", tmp_path / "out", sd_folder, f"target={target}")
    backbone = {"_target_": "r2r.models.feature_net.backbone"}
    cfg.metrics = {"kid": {"_target_": "r2r.metrics.KID", "backbone": backbone}}
    with pytest.raises(InputError, match=r"two images in each set, got 1 and 3 .*~metrics\.kid"):
        sweep(cfg)
    assert not list(tmp_path.glob("out/strength_*"))


def test_other_settings_need_another_folder(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    sweep(config(renders, tmp_path / "out", sd_folder))
    with pytest.raises(InputError, match=r"seed=1 \(there: 0\)"):
        sweep(config(renders, tmp_path / "out", sd_folder, "seed=1"))
    sweep(config(renders, tmp_path / "out", sd_folder, "max_rows=5"))
    with pytest.raises(InputError, match="holds no sweep"):
        resume(tmp_path / "renders")


def test_the_experiment_composes() -> None:
    cfg = compose("sweep", ["experiment=fashion_rig", "input=a", "output=b"])
    assert cfg.strength == [0.1, 0.3, 0.5, 0.7, 0.9] and cfg.guidance_scale == 7.5


@pytest.mark.e2e
def test_two_processes_share_the_images(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    """The command line, in a folder with a space: the same pictures as one process writes."""
    output = tmp_path / "out put"
    arguments = [f"input={renders}", f"output={output}", f"model={sd_folder}", "num_inference_steps=10", "device=cpu"]
    arguments += ["strength=[0.2,0.4]", "tac_ratio=[0,0.9]", "~metrics.kid", "devices=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "r2r.sweep", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads((output / "run.json").read_text())["parts"]
    assert [part["images"] for part in parts] == [2, 1]
    assert not list(output.glob(".part*"))
    sweep(config(renders, tmp_path / "one", sd_folder, "max_rows=1"))
    for path in (tmp_path / "one").glob("strength_*/tac_*/*.png"):
        pixels = [
            torch.frombuffer(bytearray(Image.open(each).tobytes()), dtype=torch.uint8).int()
            for each in (path, output / path.relative_to(tmp_path / "one"))
        ]
        assert (pixels[0] - pixels[1]).abs().max() <= 1
