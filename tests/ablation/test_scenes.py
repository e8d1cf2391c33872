"""Held-out scenes on disk: which are chosen, what is written, and that other ones are refused."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from r2r.ablation.scenes import HeldOut, held_out_scenes, moved, spread
from r2r.cli import compose
from r2r.data.keypoints import read_pose
from r2r.data.pictures import Masks, Pictures
from r2r.data.samples import FilePart
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS, region_map


def config(output: Path, *overrides: str) -> DictConfig:
    fixed = [
        "experiment=fashion_ablation",
        f"output={output}",
        "num_scenes=3",
        "trade_off.num_scenes=2",
        "resolution=32",
    ]
    return compose("ablation", [*fixed, *overrides])


def test_scenes_are_written_once_and_kept(tmp_path: Path) -> None:
    first = held_out_scenes(config(tmp_path), tmp_path)
    assert len(first.names) == 3 and len(first.about) == 3
    sources, masks = Pictures(first.paths("input")), Masks(first.paths("garment"))
    assert sources[0].shape == (3, 32, 32) and masks[0].any() and not masks[0].all()
    assert (sources[0] - Pictures(first.paths("target"))[0]).abs().mean() > 0.01
    assert len(list((tmp_path / "scenes" / "some" / "input").iterdir())) == 2
    mark = first.paths("input")[0]
    Image.new("RGB", (32, 32)).save(mark)
    again = held_out_scenes(config(tmp_path), tmp_path)
    assert again.names == first.names and Pictures([mark])[0].max() == -1  # not written again


@pytest.mark.parametrize("override", ["num_scenes=4", "resolution=64", "trade_off.num_scenes=3"])
def test_other_scenes_are_refused(tmp_path: Path, override: str) -> None:
    held_out_scenes(config(tmp_path), tmp_path)
    with pytest.raises(InputError, match="other pictures"):
        held_out_scenes(config(tmp_path, override), tmp_path)


def test_half_written_scenes_are_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".scenes.partial" / "input").mkdir(parents=True)
    (tmp_path / ".scenes.partial" / "input" / "stray.png").touch()
    held_out_scenes(config(tmp_path), tmp_path)
    assert len(list((tmp_path / "scenes" / "input").iterdir())) == 3


def test_scenes_that_nothing_fits_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        held_out_scenes(config(tmp_path, "+where.category=nothing"), tmp_path)
    assert not (tmp_path / "scenes").exists()


def test_spread_takes_from_everywhere() -> None:
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread(range(4), 4) == spread(range(4), None) == spread(range(4), 9) == [0, 1, 2, 3]
    assert spread(range(4), 0) == []


def test_groups_are_fields_with_several_values(tmp_path: Path) -> None:
    about = [{"look": look, "subject": "x"} for look in "abcab"]
    held = HeldOut(tmp_path, ["1", "2", "3", "4", "5"], about)
    found = {"look: a": [0, 3], "look: b": [1, 4]}  # one scene alone has no interval
    assert held.groups(["look", "subject", "missing"]) == found


def test_scenes_of_persons_have_flat_garments_and_label_maps(tmp_path: Path) -> None:
    fixed = ["experiment=igr_studio", f"output={tmp_path}", "num_scenes=4", "resolution=64"]
    held = held_out_scenes(compose("ablation", fixed), tmp_path)
    assert len(held.names) == len(set(held.names)) == 4
    for about, parsing, mask in zip(held.about, held.paths("parsing"), held.paths("garment"), strict=True):
        with Image.open(parsing) as labels:
            known = region_map(np.array(labels), "ATR_18")
        slot = about["slot"]
        others = [REGIONS.index(name) for name in ("upper", "lower", "full") if name != slot]
        assert (known == REGIONS.index(slot)).any() and not np.isin(known, others).any()
        assert (known == REGIONS.index(slot)).mean() >= 0.01
        assert about["covered"] in ("yes", "no") and Masks([mask])[0].any()
    assert held_out_scenes(compose("ablation", fixed), tmp_path).names == held.names


def test_scenes_of_poses_show_face_and_garments_of_the_target(tmp_path: Path) -> None:
    fixed = ["experiment=truepose_studio", f"output={tmp_path}", "num_scenes=6", "resolution=64"]
    held = held_out_scenes(compose("ablation", fixed), tmp_path)
    assert len(held.names) == 6 and {each["change"] for each in held.about} <= {"large", "small"}
    for name, garment, face, parsing in zip(
        held.names, *(held.paths(k) for k in ("garment", "face", "parsing")), strict=True
    ):
        shares = [np.array(Image.open(path)).mean() / 255 for path in (garment, face)]
        assert shares[0] >= 0.01 and shares[1] >= 0.002
        assert region_map(np.array(Image.open(parsing)), "ATR_18").any()
        pose = read_pose(FilePart(str(held.folder / "poses" / f"{name}.json")), (64, 64))
        assert (pose[:, 2] > 0).sum() >= 4


def test_how_far_a_pose_moves_is_told_in_heights() -> None:
    pose = np.column_stack([np.arange(18.0), np.zeros(18), np.full(18, 2.0)])
    assert moved(pose, pose + np.array([5.0, 7.0, 0.0]), 100) == pytest.approx(0)  # the whole person went elsewhere
    lifted = pose.copy()
    lifted[0, 1] = -18.0
    assert moved(pose, lifted, 100) == pytest.approx((17 + 17 * 1) / 18 / 100)
    nobody = pose * [1, 1, 0]
    assert moved(pose, nobody, 100) == float("inf")
