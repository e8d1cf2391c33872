"""The translate verb: a folder in, a folder out, resumable, and honest about what it could not read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import save_file

from r2r.cli import CONF, compose
from r2r.data.folders import find_jobs
from r2r.data.images import load_image, to_tensor
from r2r.errors import DataError, InputError
from r2r.models.gan import BridgeGenerator, PathGenerator, ResnetGenerator, save_generator
from r2r.translate import translate


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    """Four images of two sizes, one of them in a folder below, one truncated."""
    folder = tmp_path / "renders"
    (folder / "more").mkdir(parents=True)
    for index, (name, size) in enumerate({"a.png": (32, 24), "b.jpg": (32, 24), "more/c.png": (21, 35)}.items()):
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(index)).byte()
        Image.fromarray(pixels.numpy()).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


def config(renders: Path, output: Path, model: Path, *overrides: str) -> DictConfig:
    quick = "num_inference_steps=10", "device=cpu"
    return compose("translate", [f"input={renders}", f"output={output}", f"model={model}", *quick, *overrides])


def test_a_folder_is_translated_and_gone_on_with(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"(?s)1 of 4 images.*broken\.png"):
        translate(config(renders, out, sd_folder))
    results = {str(path.relative_to(out)): load_image(path).size for path in out.rglob("*.png")}
    assert results == {"a.png": (32, 24), "b.png": (32, 24), "more/c.png": (21, 35)}
    record = json.loads((out / "run.json").read_text())
    assert record["images"] == 3 and record["seconds"] > 0 and record["versions"]["diffusers"]
    per_image = 2 + 2 * 2 + 1  # int(10 * 0.3) = 3 nominal steps, 2 effective; 1 source row
    assert record["unet_sample_evals"] == 3 * per_image
    stamp = (out / "a.png").stat().st_mtime_ns
    (renders / "broken.png").unlink()
    (out / "b.png").unlink()
    translate(config(renders, out, sd_folder))
    assert (out / "b.png").is_file() and (out / "a.png").stat().st_mtime_ns == stamp
    assert json.loads((out / "run.json").read_text())["images"] == 1


def test_results_do_not_depend_on_the_batch(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    (renders / "broken.png").unlink()
    pixels = []
    for size in (1, 3):
        translate(config(renders, tmp_path / str(size), sd_folder, f"batch_size={size}"))
        pixels.append(
            torch.frombuffer(bytearray(load_image(tmp_path / str(size) / "a.png").tobytes()), dtype=torch.uint8)
        )
    assert (pixels[0].int() - pixels[1].int()).abs().max() <= 1


def test_a_negative_embedding_changes_the_result(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    (renders / "broken.png").unlink()
    save_file(
        {"<rendered>": torch.randn(2, 24, generator=torch.Generator().manual_seed(0))}, tmp_path / "n.safetensors"
    )
    translate(config(renders, tmp_path / "with", sd_folder, f"negative_embedding={tmp_path / 'n.safetensors'}"))
    translate(config(renders, tmp_path / "without", sd_folder))
    assert (tmp_path / "with" / "a.png").read_bytes() != (tmp_path / "without" / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strength=1.2", "strength=1.2"),
        ("tac_ratio=-1.0", "tac_ratio=-1"),
        ("inject=none", "inject='none'"),
        ("batch_size=0", "batch_size=0"),
        ("model=/nonexistent", "/nonexistent"),
        ("negative_embedding=/nonexistent", "/nonexistent"),
        ("input=/nonexistent", "/nonexistent"),
    ],
)
def test_bad_input_writes_nothing(renders: Path, tmp_path: Path, sd_folder: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        translate(config(renders, tmp_path / "out", sd_folder, override))
    assert not (tmp_path / "out").exists()


def test_jobs_are_checked(renders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="inside"):
        find_jobs(renders, renders / "out")
    (renders / "a.jpg").write_bytes((renders / "b.jpg").read_bytes())
    with pytest.raises(InputError, match=r"both become .*a\.png"):
        find_jobs(renders, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        find_jobs(tmp_path / "empty", tmp_path / "out")


def test_every_setting_of_the_translator_is_in_the_config(renders: Path, tmp_path: Path) -> None:
    from dataclasses import fields

    from r2r.tasks.image_translation import TranslationSettings

    cfg = config(renders, tmp_path, tmp_path)
    assert {field.name: field.default for field in fields(TranslationSettings)} == {
        field.name: cfg[field.name] for field in fields(TranslationSettings)
    } | {"num_inference_steps": 50}
    assert (CONF / "translate" / "translate.yaml").is_file()


@pytest.mark.e2e
def test_command_line(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    """Exit code 3 with one message for the broken image, 0 once it is gone; Hydra leaves nothing behind."""
    arguments = [f"input={renders}", f"output={tmp_path / 'out'}", f"model={sd_folder}", "num_inference_steps=10"]
    call = [sys.executable, "-m", "r2r.translate", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 3 and "broken.png" in done.stderr and "Traceback" not in done.stderr
    (renders / "broken.png").unlink()
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0 and "3 done already" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"renders", "out"}


@pytest.mark.parametrize(
    "network", [ResnetGenerator(4, num_blocks=1), PathGenerator(4), BridgeGenerator(4, num_timesteps=2)]
)
def test_a_trained_generator_translates(network: torch.nn.Module, renders: Path, tmp_path: Path) -> None:
    (renders / "broken.png").unlink()
    model = tmp_path / "export"
    model.mkdir()
    save_generator(network, model)
    pictures = []
    for size in (1, 2):
        out = tmp_path / f"out_{size}"
        translate(config(renders, out, model, "task=generator", f"batch_size={size}"))
        pictures.append([to_tensor(load_image(path)) for path in sorted(out.rglob("*.png"))])
    evals = 3 * (2 if isinstance(network, BridgeGenerator) else 1)
    assert json.loads((out / "run.json").read_text())["generator_sample_evals"] == evals
    for alone, together in zip(*pictures, strict=True):
        assert (alone - together).abs().max() <= 2 / 255


def test_generators_refuse_what_they_cannot_do(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    with pytest.raises(Exception, match="no export of cut, fastcut, santa or unsb"):
        translate(config(renders, tmp_path / "out", sd_folder, "task=generator"))
    model = tmp_path / "export"
    model.mkdir()
    save_generator(ResnetGenerator(4), model)
    with pytest.raises(Exception, match=r"num_evals=2 must lie in \[1, 1\]"):
        translate(config(renders, tmp_path / "out", model, "task=generator", "task.num_evals=2"))


def test_a_reference_is_learned_once_for_a_folder(renders: Path, tmp_path: Path, sd_folder: Path) -> None:
    (renders / "broken.png").unlink()
    out = tmp_path / "out"
    quick = ["task=vct", "task.num_inference_steps=2", "task.null_text.num_inner_steps=1", "task.concept.steps=2"]
    with pytest.raises(InputError, match="reference=PHOTO"):
        translate(config(renders, out, sd_folder, *quick))
    quick += [f"reference={renders / 'a.png'}"]
    translate(config(renders, out, sd_folder, *quick))
    first = json.loads((out / "run.json").read_text())
    before = (out / "concept.safetensors").stat().st_mtime_ns
    picture = (out / "a.png").read_bytes()
    (out / "a.png").unlink()
    translate(config(renders, out, sd_folder, *quick))
    assert (out / "concept.safetensors").stat().st_mtime_ns == before
    assert (out / "a.png").read_bytes() == picture
    again = json.loads((out / "run.json").read_text())
    assert first["learning_sample_evals"] > 0 == again["learning_sample_evals"]
    assert first["unet_sample_evals"] == first["images"] * again["unet_sample_evals"] > 0
    (out / "a.png").unlink()
    with pytest.raises(InputError, match="concept"):
        translate(config(renders, out, sd_folder, *quick[:-1], f"reference={renders / 'b.jpg'}"))
