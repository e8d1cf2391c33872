"""The evaluate verb: folders in, scores with protocols out; whatever does not fit is said before any work."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image, ImageFilter

from r2r.cli import compose
from r2r.data.images import load_image, to_tensor
from r2r.data.pictures import Pictures
from r2r.errors import DataError, InputError, MissingWeightsError
from r2r.evaluate import evaluate
from r2r.metrics import ssim
from r2r.provenance import write_json

SIDE = 24
WRITTEN = {"scores.json", "table.csv", "table.md", "table.tex", "per_image.csv", "run.json"}


def picture(seed: int, side: int = SIDE) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


def blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def write(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    for name, image in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Five sources, true twins, two methods, garment masks and photos of other names."""
    names = ["a", "b", "more/c", "d", "e"]
    sources = {name: picture(index) for index, name in enumerate(names)}
    write(tmp_path / "source", {f"{name}.png": image for name, image in sources.items()})
    write(tmp_path / "sharp", {f"{name}.png": blurred(image, 0.5) for name, image in sources.items()})
    write(tmp_path / "soft", {f"{name}.webp": blurred(image, 2.0) for name, image in sources.items()})
    write(tmp_path / "twins", {f"{n}.png": Image.eval(i, lambda v: min(255, v + 20)) for n, i in sources.items()})
    write(tmp_path / "photos", {f"{index}.jpg": picture(100 + index, 32) for index in range(6)})
    garment = Image.new("L", (SIDE, SIDE))
    garment.paste(255, (6, 6, 18, 18))
    write(tmp_path / "garment", {f"{name}.png": garment for name in [*names, "unused"]})
    return tmp_path


def config(folders: Path, *overrides: str) -> DictConfig:
    places = [f"source={folders / 'source'}", f"output={folders / 'out'}", f"cache_dir={folders / 'cache'}"]
    return compose("evaluate", [*places, *overrides])


def methods(folders: Path) -> list[str]:
    return [f"outputs.sharp={folders / 'sharp'}", f"outputs.soft={folders / 'soft'}"]


def test_everything_is_written_with_its_protocol(folders: Path) -> None:
    masks = f"masks.garment={folders / 'garment'}"
    comparison = evaluate(config(folders, *methods(folders), f"target={folders / 'twins'}", masks))
    out = folders / "out"
    assert {path.name for path in out.iterdir()} == WRITTEN
    scores = json.loads((out / "scores.json").read_text())
    assert [(row["name"], row["kind"]) for row in scores["rows"]] == [
        *[("input", "identity"), ("sharp", "method"), ("soft", "method"), ("target vs target", "floor")]
    ]
    assert list(scores["columns"])[:3] == ["KID to target (r2r-features)", "SSIM to source", "PSNR to source [dB]"]
    assert "SSIM to source in garment" in scores["columns"] and "SSIM to target in background" in scores["columns"]
    for about in scores["columns"].values():
        assert about["protocol"]["torch"] and about["protocol"]["region"] == about["region"]
    kid = scores["columns"]["KID to target (r2r-features)"]["protocol"]
    assert (kid["num_outputs"], kid["num_target"], kid["same-scene pairs"]) == (5, 5, "left out")
    values = {row["name"]: {c: v and float(v["value"]) for c, v in row["scores"].items()} for row in scores["rows"]}
    assert values["input"]["SSIM to source"] == pytest.approx(1.0, abs=1e-4)
    assert values["target vs target"]["SSIM to target"] == pytest.approx(1.0, abs=1e-4)
    assert values["sharp"]["SSIM to source"] > values["soft"]["SSIM to source"]
    with (out / "per_image.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "sharp"]
    assert [row["key"] for row in rows] == ["a", "b", "d", "e", "more/c"]
    files = [Pictures([folders / kind / "more" / "c.png"])[0][None] for kind in ("sharp", "source")]
    assert float(rows[-1]["SSIM to source"]) == pytest.approx(ssim(*files).item(), abs=1e-6)
    with (out / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["Images"] for row in table] == list(values)
    assert set(comparison.columns) < set(table[0])
    assert "## In garment" in (out / "table.md").read_text() and "**" in (out / "table.md").read_text()
    assert (out / "table.tex").read_text().count(r"\toprule") == len(comparison.tables("Scores"))
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "done" and record["images"] == 5 and record["config"]["metrics"]["kid"]["seed"] == 0


def test_a_single_folder_without_target(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = evaluate(config(folders, f"outputs={folders / 'sharp'}"))
    assert list(comparison.methods) == ["input", "sharp"]
    assert comparison.titles() == ["SSIM to source", "PSNR to source [dB]"]
    assert "5 images of 1 method(s); no target" in capsys.readouterr().out


def test_a_target_of_its_own(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos of other names, number and size: realism by KID alone."""
    comparison = evaluate(config(folders, *methods(folders), f"target={folders / 'photos'}"))
    assert comparison.titles() == ["KID to target (r2r-features)", "SSIM to source", "PSNR to source [dB]"]
    assert "same-scene pairs" not in comparison.protocols()["KID to target (r2r-features)"]
    assert comparison.floor("KID to target (r2r-features)").n == 3
    assert "target of 6 other images" in capsys.readouterr().out


def test_twins_can_be_taken_as_a_set(folders: Path) -> None:
    comparison = evaluate(config(folders, *methods(folders), f"target={folders / 'twins'}", "paired=false"))
    assert "SSIM to target" not in comparison.columns


def test_features_are_read_from_the_cache(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*methods(folders), f"target={folders / 'photos'}"]
    first = evaluate(config(folders, *arguments))
    assert len(list((folders / "cache").glob("r2r-features-*.safetensors"))) == 4
    monkeypatch.setattr("r2r.metrics.backbones.Backbone.__call__", lambda *_: pytest.fail("computed again"))
    column = "KID to target (r2r-features)"
    again = evaluate(config(folders, *arguments))
    assert [again.estimate(column, name) for name in again.methods] == [
        first.estimate(column, name) for name in first.methods
    ]


def test_no_cache(folders: Path) -> None:
    evaluate(config(folders, *methods(folders), f"target={folders / 'photos'}", "cache_dir=null"))
    assert not (folders / "cache").exists()


def test_earlier_evaluations_stand_beside(folders: Path) -> None:
    """The same target shares its columns; another one has columns of its own."""
    target, first, second = f"target={folders / 'photos'}", folders / "first", folders / "second"
    evaluate(config(folders, f"outputs={folders / 'soft'}", target, f"output={first}"))
    evaluate(config(folders, f"outputs={folders / 'soft'}", f"target={folders / 'twins'}", f"output={second}"))
    places = [f"beside.first={first}", f"beside.second={second}"]
    evaluate(config(folders, f"outputs={folders / 'sharp'}", target, *places))
    text = (folders / "out" / "table.md").read_text().split("## Beside earlier evaluations")[1]
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("|")}
    assert [title.replace("\N{NO-BREAK SPACE}", " ") for title in lines["Images"][1:4]] == [
        *["KID to target (r2r-features) #1 ↓", "SSIM to source ↑", "PSNR to source [dB] ↑"]
    ]
    kids = [index for index, title in enumerate(lines["Images"]) if title.startswith("KID")]
    filled = {
        name: [lines[name][index] != "–" for index in kids] for name in ("now: sharp", "first: soft", "second: soft")
    }
    assert filled == {"now: sharp": [True, False], "first: soft": [True, False], "second: soft": [False, True]}
    with pytest.raises(InputError, match=r"no scores\.json in .*photos"):
        evaluate(config(folders, f"outputs={folders / 'sharp'}", f"beside.x={folders / 'photos'}"))


def test_costs_and_settings_come_from_the_run(folders: Path) -> None:
    work = {"images": 5, "seconds": 10.0, "unet_sample_evals": 100, "peak_memory_gb": 1.5}
    write_json(folders / "sharp" / "run.json", {**work, "config": {"strength": 0.3, "output": "elsewhere"}})
    comparison = evaluate(config(folders, *methods(folders)))
    assert comparison.costs().rows == [["sharp", 20.0, 2.0, 1.5], ["soft", None, None, None]]
    scores = json.loads((folders / "out" / "scores.json").read_text())
    assert scores["rows"][1]["settings"] == {"strength": 0.3}
    assert scores["rows"][1]["costs"] == {"evals": 20.0, "seconds": 2.0, "memory_gb": 1.5}
    with (folders / "out" / "table.csv").open() as file:
        assert [row["Seconds per image"] for row in csv.DictReader(file)] == ["", "2.0", ""]


def test_two_images_suffice_and_one_is_refused_with_the_way_out(folders: Path) -> None:
    for kind in ("source", "sharp", "twins"):
        for name in ("d.png", "e.png", "more/c.png"):
            (folders / kind / name).unlink()
    arguments = [f"outputs={folders / 'sharp'}", f"target={folders / 'twins'}"]
    assert evaluate(config(folders, *arguments)).estimate("KID to target (r2r-features)", "sharp").n == 2
    for kind in ("source", "sharp", "twins"):
        (folders / kind / "b.png").unlink()
    one = config(folders, *arguments, f"output={folders / 'one'}")
    with pytest.raises(InputError, match=r"got 1 and 1 images.*leave it out: '~metrics\.kid'"):
        evaluate(one)
    assert not (folders / "one").exists()
    comparison = evaluate(config(folders, *arguments, f"output={folders / 'one'}", "~metrics.kid"))
    assert comparison.estimate("SSIM to target", "sharp").n == 1


def test_grey_deep_and_transparent_images(folders: Path) -> None:
    grey = picture(0).convert("L")
    grey.save(folders / "sharp" / "a.png")
    Image.fromarray(np.asarray(picture(1).convert("L"), dtype=np.uint16) * 257).save(folders / "sharp" / "b.png")
    picture(3).convert("RGBA").save(folders / "sharp" / "d.png")
    measured = evaluate(config(folders, f"outputs={folders / 'sharp'}")).methods["sharp"].per_image["SSIM to source"]
    source = Pictures([folders / "source" / f"{name}.png" for name in "abd"])
    as_rgb = [to_tensor(image.convert("RGB")) for image in (grey, picture(1).convert("L"), picture(3))]
    expected = [ssim(image[None], source[index][None]).item() for index, image in enumerate(as_rgb)]
    assert measured[:3] == pytest.approx(expected, abs=1e-5)


def test_unequal_sizes_are_an_error_or_resized(folders: Path) -> None:
    blurred(picture(0, 48), 0.5).save(folders / "sharp" / "a.png")
    arguments = [f"outputs={folders / 'sharp'}", f"target={folders / 'twins'}", f"masks.garment={folders / 'garment'}"]
    with pytest.raises(InputError, match=r"sharp/a\.png is 48x48, but .*source/a\.png is 24x24.*resize=reference"):
        evaluate(config(folders, *arguments))
    assert not (folders / "out").exists()
    comparison = evaluate(config(folders, *arguments, "resize=reference"))
    expected = load_image(folders / "sharp" / "a.png").resize((24, 24), Image.Resampling.LANCZOS)
    expected.save(folders / "sharp" / "a.png")
    alike = evaluate(config(folders, *arguments))
    for column in ("SSIM to source", "SSIM to target in garment"):
        assert comparison.methods["sharp"].per_image[column] == alike.methods["sharp"].per_image[column]
        assert "Lanczos" in comparison.protocols()[column]["sizes made equal"]
        assert comparison.protocols()[column] != alike.protocols()[column]


def test_missing_images_are_an_error_or_left_out(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "soft" / "a.webp").unlink()
    arguments = [*methods(folders), f"target={folders / 'photos'}"]
    with pytest.raises(InputError, match=r"source has 1 \(a\).*missing=skip"):
        evaluate(config(folders, *arguments))
    assert not (folders / "out").exists()
    comparison = evaluate(config(folders, *arguments, "missing=skip"))
    assert comparison.scenes.keys == ["b", "d", "e", "more/c"]
    assert json.loads((folders / "out" / "scores.json").read_text())["left_out"] == {
        "source": ["a"],
        "outputs.sharp": ["a"],
    }
    assert "Left out, not in every folder: source 1 (a)" in capsys.readouterr().out


def _nothing(folders: Path) -> list[str]:
    return []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_nothing, "no outputs; give outputs=FOLDER"),
        (lambda f: [f"outputs={f / 'nowhere'}"], "no such folder: .*nowhere"),
        (lambda f: [f"outputs={f / 'photos'}"], r"no name is in every folder: source has 5 \(a, b, d, e, more/c\)"),
        (lambda f: [f"outputs={f / 'sharp'}", f"target={f / 'photos'}", "paired=true"], "no name is in every folder"),
        (lambda f: [f"outputs={f / 'sharp'}", "paired=true"], "paired=true without a target"),
        (lambda f: [f"outputs={f / 'sharp'}", "paired=maybe"], "paired=maybe is none of auto, true, false"),
        (lambda f: [f"outputs={f / 'sharp'}", "missing=no"], "missing=no is none of error, skip"),
        (lambda f: [f"outputs={f / 'sharp'}", "resize=no"], "resize=no is none of error, reference"),
        (lambda f: [f"outputs={f / 'sharp'}", f"output={f / 'sharp'}"], "one of the folders to be read"),
        (lambda f: [f"outputs={f / 'sharp'}", f"output={f / 'source' / 'a.png' / 'x'}"], "cannot write to"),
        (lambda f: [f"outputs={f / 'sharp'}", "~metrics.ssim", "~metrics.psnr"], "nothing to score"),
        (lambda f: [f"outputs={f / 'sharp'}", "device=cuda:7"], "device=cuda:7"),
        (
            lambda f: [f"outputs={f / 'sharp'}", "+metrics.m._target_=r2r.metrics.MSSSIM"],
            r"176 px.*leave this metric out \(~metrics\.m\)",
        ),
        (
            lambda f: [f"outputs={f / 'sharp'}", f"target={f / 'twins'}", "metrics.kid.backend=torch-fidelity"],
            "subsets of 1000 .*metrics.kid.subset_size=5",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    folders: Path, prepare: Callable[[Path], list[str]], message: str
) -> None:
    with pytest.raises(Exception, match=message) as error:
        evaluate(config(folders, *prepare(folders)))
    assert isinstance(error.value, InputError) and error.value.exit_code == 2
    assert not (folders / "out").exists()


def test_runs_that_are_no_outputs_are_explained(folders: Path) -> None:
    (folders / "run" / "samples").mkdir(parents=True)
    with pytest.raises(InputError, match=r"training run.*python -m r2r\.translate .*model=.*run/export"):
        evaluate(config(folders, f"outputs={folders / 'run'}"))
    (folders / "sweep" / "strength_0.3" / "tac_0.9").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds a sweep; give a cell of it: outputs\.r2r=.*strength_S/tac_R"):
        evaluate(config(folders, f"outputs.r2r={folders / 'sweep'}"))


def test_missing_weights_are_named(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folders / "torch"))
    weights = f"metrics.lpips.weights={folders / 'alexnet.pth'}"
    with pytest.raises(Exception, match=r"alexnet\.pth") as error:
        evaluate(
            config(folders, f"outputs={folders / 'sharp'}", "metrics=paper", "~metrics.kid", "~metrics.fid", weights)
        )
    assert isinstance(error.value.__cause__, MissingWeightsError)


def test_a_broken_image_leaves_nothing(folders: Path) -> None:
    path = folders / "sharp" / "e.png"
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(DataError, match=r"e\.png"):
        evaluate(config(folders, f"outputs={folders / 'sharp'}"))
    assert not (folders / "out").exists()


@pytest.mark.parametrize("group", ["default", "squeezenet", "torchvision", "paper", "full"])
def test_every_group_of_scores_names_what_exists(group: str) -> None:
    from hydra.utils import get_object

    cfg = compose("evaluate", ["source=x", "outputs=y", f"metrics={group}"])
    assert cfg.metrics
    assert any("KID" in str(score["_target_"]) for score in cfg.metrics.values())
    for score in cfg.metrics.values():
        assert callable(get_object(score["_target_"]))
        assert "backbone" not in score or callable(get_object(score.backbone["_target_"]))


@pytest.mark.e2e
def test_command_line(folders: Path) -> None:
    """Methods and regions are named freely; one message and the exit code for an error; nothing of Hydra's left."""
    place = folders / "my results"
    arguments = ["source=source", "target=twins", "outputs.r2r=sharp", "outputs.cut=soft", "masks.hair=garment"]
    call = [sys.executable, "-m", "r2r.evaluate", *arguments, f'output="{place}"', "cache_dir=null", "device=cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    before = {path.name for path in folders.iterdir()}
    done = subprocess.run(call, capture_output=True, text=True, cwd=folders, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folders.iterdir()} - before == {"my results"}
    assert {path.name for path in place.iterdir()} == WRITTEN
    for part in ("target vs target", "In hair", "Change against r2r", str(place / "scores.json")):
        assert part in done.stdout
    wrong = subprocess.run(
        [*call, "missing=never"], capture_output=True, text=True, cwd=folders, env=environment, check=False
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: missing=never") and "Traceback" not in wrong.stderr
