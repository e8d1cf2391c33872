"""Parsing, masks and keypoints agree with each other and with the geometry they were made from."""

import numpy as np
import pytest

from r2r.parsing import ATR_18
from r2r.pose import COCO_17
from r2r.studio.scene import Scene, sample_scene
from r2r.studio.stage import build_stage
from r2r.studio.truth import look, pose_record

SIZE = 96
CLOTHED = {"upper-clothes", "dress", "pants", "skirt"}
PLACES = {
    "nose": {"face"},
    "eye": {"face", "hair", "sunglasses"},
    "ear": {"face", "hair"},
    "shoulder": CLOTHED | {"left-arm", "right-arm", "hair"},
    "elbow": CLOTHED | {"left-arm", "right-arm"},
    "wrist": CLOTHED | {"left-arm", "right-arm"},
    "hip": CLOTHED | {"left-arm", "right-arm"},
    "knee": CLOTHED | {"left-leg", "right-leg"},
    "ankle": CLOTHED | {"left-leg", "right-leg", "left-shoe", "right-shoe"},
}
"""Regions in which a seen keypoint may lie."""


@pytest.fixture(autouse=True)
def studio() -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed")
    pytest.importorskip("trimesh", reason="trimesh is not installed")


def near(parsing: np.ndarray, x: float, y: float) -> set[str]:
    """Regions in the pixel of a keypoint and the eight around it."""
    row, column = int(y), int(x)
    window = parsing[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    return {ATR_18[number] for number in np.unique(window)}


def test_seen_keypoints_lie_in_their_regions() -> None:
    seen = 0
    for index in range(12):
        stage = build_stage(sample_scene(12, index, "person"))
        truth = look(stage, SIZE)
        for name, (x, y, v) in zip(COCO_17, pose_record(stage, truth)["coco_17"], strict=True):
            assert v in (0, 1, 2) and (v == 0) == (x == y == 0)
            if v == 2:
                assert near(truth.parsing, x, y) & PLACES[name.split("_")[-1]], (index, name)
                seen += 1
    assert seen > 80


def test_projection_is_that_of_the_camera() -> None:
    """The pixels of a part lie where its vertices are projected to."""
    stage = build_stage(sample_scene(12, 0, "garment"))
    points = stage.project(np.concatenate([part.vertices for part in stage.parts]), SIZE)
    rows, columns = np.nonzero(look(stage, SIZE).subject)
    assert columns.min() == pytest.approx(points[:, 0].min(), abs=1.5)
    assert columns.max() + 1 == pytest.approx(points[:, 0].max(), abs=1.5)
    assert rows.min() == pytest.approx(points[:, 1].min(), abs=1.5)
    assert rows.max() + 1 == pytest.approx(points[:, 1].max(), abs=1.5)


def test_masks_equal_their_labels() -> None:
    for index, subject in ((0, "garment"), (0, "person"), (4, "person")):
        scene = sample_scene(12, index, subject)
        truth = look(build_stage(scene), SIZE)
        for number, garment in enumerate(scene.garments):
            labelled = truth.parsing == ATR_18.index(garment.label)
            assert (truth.garment_mask(number) == labelled).all()
        assert truth.garment_mask().any()
        assert (truth.subject == (truth.parsing != 0)).all()


def test_left_is_the_persons_left() -> None:
    """Facing the camera, the left shoulder is at the picture's right; from behind it is at its left."""
    for index in range(30):
        scene = sample_scene(13, index, "person")
        x = {name: x for name, (x, _, _) in zip(COCO_17, _joints(scene), strict=True)}
        if abs(scene.view.yaw) < 30:
            assert x["left_hip"] > x["right_hip"]
        elif abs(scene.view.yaw) > 150:
            assert x["left_hip"] < x["right_hip"]


def _joints(scene: Scene) -> np.ndarray:
    stage = build_stage(scene)
    return stage.project(stage.joints, SIZE)
