"""Pairs measured by hand, the reasons for leaving some out, and the file that keeps the measures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r2r.data import Curation, ImageDataModule
from r2r.data.curation import difference_hash, measure, occlusion
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS

UPPER, SKIN, HAIR, LOWER = (REGIONS.index(name) for name in ("upper", "skin", "hair", "lower"))
GOOD = {"area": 0.1, "occlusion": 0.0, "colour": 1.0, "person_hash": "a", "flat_hash": "b"}


def item(colour: tuple[float, float, float] = (1, -1, -1), worn: tuple[float, float, float] = (1, -1, -1)) -> Any:
    """A garment of one colour on the middle of a grey picture, and flat before white."""
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, 10:30, 10:30] = True
    person, flat = torch.zeros(3, 40, 40), torch.ones(3, 40, 40)
    person[:, mask[0]] = torch.tensor(worn, dtype=torch.float32)[:, None]
    flat[:, mask[0]] = torch.tensor(colour, dtype=torch.float32)[:, None]
    return {"person": person, "flat": flat, "garment_mask": mask, "parsing": mask.to(torch.uint8) * UPPER}


def test_measures_of_a_plain_pair() -> None:
    measured = measure(item())
    assert measured["area"] == 0.25 and measured["occlusion"] == 0 and measured["colour"] == 0
    red_and_green = measure(item(worn=(-1, 1, -1)))["colour"]
    assert red_and_green > 100  # a of sRGB's red is 80, of its green -86
    assert measure(item() | {"flat_mask": torch.ones(1, 40, 40, dtype=torch.bool)})["colour"] > 10  # white counts then
    darker = measure(item(colour=(0, -1, -1)))["colour"]
    assert darker < red_and_green / 2


def test_an_arm_across_a_garment_covers_it() -> None:
    regions = np.zeros((100, 100), np.uint8)
    regions[20:80, 20:80] = UPPER
    assert occlusion(regions == UPPER, regions) == 0
    regions[48:52, 20:80] = SKIN
    assert occlusion(regions == UPPER, regions) == pytest.approx(4 / 60, abs=0.005)
    regions[20:80, 85:95] = HAIR  # beside it
    assert occlusion(regions == UPPER, regions) == pytest.approx(4 / 60, abs=0.005)
    regions[40:48, 40:48] = LOWER  # no part of the person covers it like hair, skin and bags do
    assert occlusion(regions == UPPER, regions) == pytest.approx(4 / 60, abs=0.005)
    assert occlusion(regions == 99, regions) == 1


def test_hashes_know_pictures_again() -> None:
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    smooth = torch.nn.functional.interpolate(picture[None, :, :8, :8], size=64, mode="bilinear")[0]
    assert difference_hash(smooth) == difference_hash(smooth * 0.9) != difference_hash(smooth.flip(2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({}, None), ({"area": 0.01}, "too small"), ({"occlusion": 0.5}, "covered"), ({"colour": 40}, "of another colour")],
)
def test_what_is_wrong_with_a_pair(change: dict[str, float], reason: str | None) -> None:
    assert Curation().verdicts([GOOD | change]) == [reason]


def test_the_first_of_duplicates_stays() -> None:
    other = GOOD | {"flat_hash": "c"}
    assert Curation().verdicts([GOOD, other, GOOD]) == [None, None, "duplicates"]
    assert Curation(drop_duplicates=False).verdicts([GOOD, GOOD]) == [None, None]


def test_training_sees_the_good_pairs_and_measures_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "measures.csv"

    def pairs(**thresholds: float) -> ImageDataModule:
        curation = Curation(str(file), **thresholds)
        data = ImageDataModule(view="restoration", num_workers=0, batch_size=2, resolution=64, curation=curation)
        data.setup("fit")
        return data

    whole = ImageDataModule(view="restoration", num_workers=0, batch_size=2, resolution=64)
    whole.setup("fit")
    with caplog.at_level("INFO", logger="r2r.data.curation"):
        some = pairs(min_area=0.05)
    assert 0 < len(some.train_samples) < len(whole.train_samples) and "too small" in caplog.text
    assert len(some.val_samples) == len(whole.val_samples)
    for sample in some.train_samples:
        assert some.view(sample, None)["garment_mask"].float().mean() >= 0.05
    stamp = file.stat().st_mtime_ns
    assert len(pairs(min_area=0.0, max_occlusion=1.0, max_colour=1e9, drop_duplicates=False).train_samples) == len(
        whole.train_samples
    )
    assert file.stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="none of"):
        pairs(min_area=1.0)
    file.write_text("something\n")
    with pytest.raises(DataError, match="no measures of pairs"):
        pairs()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"max_occlusion=2"):
        Curation(max_occlusion=2.0)
    with pytest.raises(InputError, match=r"data\.curation is for"):
        ImageDataModule(view="pairs", curation=Curation())
