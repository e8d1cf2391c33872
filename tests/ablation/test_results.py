"""Averages over seeds against plain NumPy, verdicts that follow the scores, and what is written of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from r2r.ablation.results import (
    FAILS,
    HOLDS,
    OPEN,
    change_table,
    findings,
    judge,
    notes,
    record,
    score_table,
    seed_table,
)
from r2r.ablation.rows import Row, place, read_rows
from r2r.ablation.scenes import HeldOut
from r2r.ablation.scoring import Scores, check_columns, metrics, score
from r2r.cli import compose, user_error
from r2r.data.images import to_pil
from r2r.errors import InputError, MissingWeightsError
from r2r.metrics import Estimate
from r2r.metrics.fidelity import detail_ssim, psnr
from r2r.reporting.score_records import read_scores

COUNT, SEEDS = 6, (0, 1, 2)


def config(output: Path, *overrides: str) -> DictConfig:
    rows = ["~rows.sdedit", "~rows.no_positive", "~rows.no_positive_more", "~rows.no_negative", "~rows.both_halves"]
    claims = "claims=[{text: TAC keeps texture,after: full,before: no_tac,columns: [texture.detail,real.kid]}]"
    given = ["experiment=fashion_ablation", f"output={output}", f"seeds={list(SEEDS)}", *rows, claims]
    return compose("ablation", [*given, *overrides])


def save(pictures: Tensor, folder: Path, names: list[str]) -> Tensor:
    """Write pictures as PNG; returns them as they are read again."""
    folder.mkdir(parents=True)
    for picture, name in zip(pictures, names, strict=True):
        to_pil(picture).save(folder / f"{name}.png")
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


class Stage:
    """Pictures of every row and seed: `full` is the source with a little noise, `no_tac` with much."""

    def __init__(self, output: Path) -> None:
        random = torch.Generator().manual_seed(0)
        names, shape = [f"s{number}" for number in range(COUNT)], (COUNT, 3, 32, 32)
        self.output, self.made = output, dict[str, Tensor]()
        source = torch.rand(shape, generator=random) * 1.2 - 0.6
        self.source = save(source, output / "scenes" / "input", names)
        self.target = save(source + 0.2, output / "scenes" / "target", names)
        mask = torch.zeros(COUNT, 3, 32, 32) - 1
        mask[..., 8:24, 8:24] = 1
        save(mask, output / "scenes" / "garment", names)
        save(torch.rand(shape, generator=random) - 0.5, output / "photos", names)
        for row, noise in {"autoencoder": 0.02, "full": 0.05, "no_tac": 0.5}.items():
            for seed in SEEDS[: 1 if row == "autoencoder" else None]:
                made = source + noise * torch.randn(shape, generator=random)
                self.made[place(row, seed)] = save(made, output / place(row, seed), names)
        about = [{"look": "a" if number < 3 else "b"} for number in range(COUNT)]
        self.held_out, self.photos = HeldOut(output / "scenes", names, about), HeldOut(output / "photos", names, about)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("ablation"))


@pytest.fixture(scope="module")
def cfg(stage: Stage) -> DictConfig:
    return config(stage.output, "photos=given")


@pytest.fixture(scope="module")
def scores(stage: Stage, cfg: DictConfig) -> Scores:
    return score(cfg, read_rows(cfg), stage.held_out, stage.photos, stage.output)


def test_columns_by_id(scores: Scores) -> None:
    assert scores.titles["held_out.kid"] == "KID to held-out photos (r2r-features)"
    assert scores.titles["real.kid"] == "KID to real photos (r2r-features)"
    assert scores.titles["twin.psnr"] == "PSNR to photo twin [dB]"
    assert scores.titles["texture.detail"] == "Detail SSIM to source in garment"


def test_image_scores_are_means_over_seeds_scene_by_scene(stage: Stage, scores: Scores) -> None:
    each = np.array([psnr(stage.made[place("full", seed)], stage.target).numpy() for seed in SEEDS])
    found = scores.estimate("twin.psnr", "full")
    assert found is not None and found.n == COUNT
    assert found.value == pytest.approx(each.mean(), rel=1e-5)
    assert [one.value for one in scores.spread("twin.psnr", "full") if one] == pytest.approx(
        each.mean(1).tolist(), rel=1e-5
    )
    other = np.array([psnr(stage.made[place("no_tac", seed)], stage.target).numpy() for seed in SEEDS])
    change = scores.change("twin.psnr", "full", "no_tac")
    assert change is not None and change.value == pytest.approx((each.mean(0) - other.mean(0)).mean(), rel=1e-4)
    mask = torch.zeros(COUNT, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    inside = np.array([detail_ssim(stage.made[place("full", seed)], stage.source, mask).numpy() for seed in SEEDS])
    assert scores.estimate("texture.detail", "full").value == pytest.approx(inside.mean(), rel=1e-4)


def test_intervals_resample_scenes_not_seeds(stage: Stage, scores: Scores) -> None:
    """Seeds differ little here and scenes much: pictures of three seeds taken for 18 scenes would look surer."""
    found, spread = scores.estimate("twin.psnr", "full"), scores.spread("twin.psnr", "full")
    assert all(one.n == COUNT for one in spread if one)
    assert found.high - found.low > 0.3 * max(one.high - one.low for one in spread if one)


def test_kid_is_the_mean_over_seeds(scores: Scores) -> None:
    for column in ("held_out.kid", "real.kid"):
        single = [one.value for one in scores.spread(column, "no_tac") if one]
        assert len(single) == 3 and scores.estimate(column, "no_tac").value == pytest.approx(np.mean(single), rel=1e-6)
    assert scores.spread("real.kid", "autoencoder") == []


def test_claims_follow_the_scores(scores: Scores, cfg: DictConfig) -> None:
    (texture, about), (realism, _) = findings(scores, cfg)
    assert texture.holds is True and texture.numbers.endswith(HOLDS) and "full minus no TAC" in texture.text
    assert about["verdict"] == HOLDS and about["change"]["low"] > 0
    assert "real photos" in realism.text
    turned = config(Path("x"), "photos=given", "claims.0.after=no_tac", "claims.0.before=full")
    assert findings(scores, turned)[0][0].holds is False
    only = OmegaConf.merge(cfg, {"claims": [{**cfg.claims[0], "within": "look: a"}]})
    part = scores.only([0, 1, 2])
    (finding, about), *_ = findings(scores, only, {"look: a": part})
    assert "(look: a)" in finding.text and about["within"] == "look: a"
    assert about["change"] == findings(part, cfg)[0][1]["change"] != findings(scores, cfg)[0][1]["change"]


@pytest.mark.parametrize(
    ("low", "high", "better", "verdict"),
    [(0.1, 0.2, "higher", HOLDS), (0.1, 0.2, "lower", FAILS), (-0.2, -0.1, "lower", HOLDS), (-0.1, 0.2, "lower", OPEN)],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, better: str, verdict: str) -> None:
    assert judge(Estimate((low + high) / 2, low, high, 9), better) == verdict
    assert judge(None, better) == OPEN


def test_tables(scores: Scores) -> None:
    table = score_table(scores, "title", notes(scores, SEEDS))
    assert [row[0] for row in table.rows] == [
        "input (identity)",
        "autoencoder only",
        "full",
        "no TAC",
        "targets themselves",
    ]
    assert table.references == frozenset({0, 4})
    assert "resampled" in table.to_markdown() and "KID to real photos" in table.to_latex()
    assert [row[0] for row in change_table(scores, "full").rows] == ["input (identity)", "autoencoder only", "no TAC"]
    seeds = seed_table(scores, SEEDS)
    assert [row[0] for row in seeds.rows] == ["full", "no TAC"] and str(seeds.rows[0][-1]).count("/") == 2


def test_groups_are_scored_by_themselves(stage: Stage, scores: Scores) -> None:
    part = scores.only(stage.held_out.groups(["look"])["look: b"])
    each = np.array([psnr(stage.made[place("full", seed)], stage.target).numpy()[3:] for seed in SEEDS])
    assert part.count == 3 and part.estimate("twin.psnr", "full").value == pytest.approx(each.mean(), rel=1e-5)
    assert part.estimate("real.kid", "full") != scores.estimate("real.kid", "full")


def test_the_record_holds_every_number_and_can_be_read_beside(
    stage: Stage, scores: Scores, cfg: DictConfig, tmp_path: Path
) -> None:
    content = record(scores, cfg, {"look: a": scores.only([0, 1, 2])})
    (tmp_path / "scores.json").write_text(json.dumps(content))
    assert [row["name"] for row in read_scores(tmp_path)["rows"]][2] == "full"
    full = content["rows"][2]
    assert len(full["seeds"]["PSNR to photo twin [dB]"]) == 3 and content["groups"]["look: a"]["scenes"] == 3
    assert all("protocol" in about for about in content["columns"].values())


def test_without_photos_there_is_no_real_column(stage: Stage) -> None:
    cfg = config(stage.output)
    found = score(cfg, read_rows(cfg), stage.held_out, None, stage.output)
    assert not [column for column in found.titles if column.startswith("real")]
    assert len(findings(found, cfg)) == 1


def test_weights_that_are_missing_are_told_first(tmp_path: Path) -> None:
    with pytest.raises(InstantiationException) as raised:
        metrics(config(tmp_path, "squeezenet=nowhere.safetensors"))
    assert isinstance(user_error(raised.value), MissingWeightsError) and "nowhere.safetensors" in str(raised.value)


@pytest.mark.parametrize("override", ["claims.0.after=nothing", "claims.0.columns=[twin.psmr]"])
def test_claims_about_nothing_are_refused(tmp_path: Path, override: str) -> None:
    cfg = config(tmp_path, override)
    with pytest.raises(InputError, match=r"claims\[0\]"):
        check_columns(cfg, read_rows(cfg))


def test_a_metric_in_the_wrong_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.real\.psnr"):
        metrics(config(tmp_path, "photos=given", "+metrics.real.psnr={_target_: r2r.metrics.PSNR}"))


def test_rows_keep_their_order() -> None:
    assert list(read_rows(config(Path("x")))) == ["input", "autoencoder", "full", "no_tac"]
    assert Row("k", "n").once is False
