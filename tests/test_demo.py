"""The demo: its training runs are those of the train verb, its claims follow the scores, and it runs end to end."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from r2r.cli import compose
from r2r.demo import AUTOENCODER, INPUT, R2R, TWIN, WITHOUT_TAC, demo, findings, flat, training_jobs
from r2r.errors import DataError
from r2r.metrics import KID, PSNR, SSIM, Backbone
from r2r.reporting import Comparison, Outputs, Scenes

FAST = [
    "positive.trainer.max_steps=2",
    "negative.trainer.max_steps=2",
    "positive.data.batch_size=2",
    "negative.data.batch_size=2",
    "translation.num_inference_steps=10",
    "num_scenes=3",
    "num_floor_photos=4",
]


def test_flat_overrides_survive_hydra() -> None:
    settings = {"paths": {"output_dir": 'a folder, with=odd "signs"'}, "trainer": {"max_steps": 3}, "resume": None}
    cfg = compose("train", flat(settings))
    assert cfg.paths.output_dir == 'a folder, with=odd "signs"'
    assert cfg.trainer.max_steps == 3
    assert cfg.resume is None


def test_training_runs_follow_the_experiments() -> None:
    cfg = compose("demo", ["paths.output_dir=out put", "seed=7", "negative.task.optimizer.lr=0.5"])
    positive, negative = (compose("train", job) for job in training_jobs(cfg).values())
    assert (positive.name, negative.name) == ("fashion_dki", "fashion_negative")
    assert (positive.model.pretrained, negative.model.pretrained) == ("tiny", "out put/positive/export")
    assert positive.data.image_member == "photo.png"
    assert negative.data.image_member == "rendered.png"
    assert negative.task.optimizer.lr == 0.5
    assert positive.seed == negative.seed == 7
    assert positive.trainer.max_steps == cfg.positive.trainer.max_steps


@pytest.mark.parametrize("better", [True, False])
def test_verdicts_follow_the_scores(better: bool) -> None:
    rendered = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
    photo = rendered + 0.3
    blurred = torch.nn.functional.avg_pool2d(photo, 3, 1, 1)
    good, bad = photo - 0.05, blurred if better else rendered - 0.2
    images = {AUTOENCODER: rendered, WITHOUT_TAC: bad if better else good, R2R: good if better else bad}
    scenes = Scenes(
        [str(index) for index in range(8)],
        list(rendered),
        list(photo),
        paired=True,
        masks={"garment": list(torch.ones(8, 1, 24, 24, dtype=torch.bool))},
        twin_name=TWIN,
        target_name="photos",
    )
    scores = {"kid": KID(Backbone("r2r-features", lambda images: images.mean((2, 3)))), "ssim": SSIM(), "psnr": PSNR()}
    methods = [Outputs(name, list(made)) for name, made in images.items()]
    verdicts = [finding.holds for finding in findings(Comparison(scenes, methods, scores, identity=INPUT))]
    assert verdicts == [better, better, better, None, None, None, None]


@pytest.mark.e2e
def test_runs_end_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "out put"
    command = [sys.executable, "-m", "r2r.demo", f'paths.output_dir="{folder}"', *FAST]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert str(folder / "index.html") in done.stdout
    assert "KID to photos" in re.sub(r"\s+", " ", done.stdout)
    rows = list(csv.DictReader((folder / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["Images"] for row in rows] == [INPUT, "autoencoder only", WITHOUT_TAC, R2R, "other photos"]
    assert list(rows[0])[1::3] == [
        *["KID to photos (r2r-features)", "SSIM to source in garment", "PSNR to photo twin [dB]"],
        *["SSIM to photo twin", "U-Net evals per image"],
    ]
    assert float(rows[0]["SSIM to source in garment"]) == pytest.approx(1.0)
    assert 0 < float(rows[3]["U-Net evals per image"]) <= 60
    assert len((folder / "per_image.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3 * 4
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "done"
    assert len(record["findings"]) == 7
    assert len(list((folder / "r2r").glob("*.png"))) == 3
    with Image.open(folder / "grid.png") as grid:
        assert grid.width > grid.height
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "fashion_negative" in page
    assert not re.search(r"(src|href)=.http", page)


def test_unknown_key_is_one_message() -> None:
    command = [sys.executable, "-m", "r2r.demo", "translation.strenght=0.4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "strenght" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_few_scenes_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two at least"):
        demo(compose("demo", [f"paths.output_dir={tmp_path / 'out'}", "num_scenes=1"]))
    assert not (tmp_path / "out").exists()
