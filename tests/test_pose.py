"""Keypoints: orders that agree by name, mirror images, and skeletons that are where the keypoints are."""

import numpy as np

from r2r.pose import (
    BODY_25,
    COCO_17,
    LIMBS,
    OPENPOSE_18,
    body25_to_openpose,
    coco_to_openpose,
    draw_skeleton,
    mirrored,
    openpose_to_body25,
    openpose_to_coco,
    within,
)


def person(seed: int = 0) -> np.ndarray:
    """COCO-17 in a picture of 60 x 80, all visible."""
    points = np.random.default_rng(seed).uniform([1, 1], [59, 79], (17, 2))
    return np.column_stack([points, np.full(17, 2.0)])


def test_orders_agree_by_name() -> None:
    points = person()
    openpose = coco_to_openpose(points)
    for name in set(COCO_17):
        assert (openpose[OPENPOSE_18.index(name)] == points[COCO_17.index(name)]).all()
    assert np.allclose(openpose[1, :2], points[5:7, :2].mean(0))
    assert (openpose_to_coco(openpose) == points).all()
    assert (BODY_25[8], BODY_25[9], BODY_25[12]) == ("mid_hip", "right_hip", "left_hip") and len(BODY_25) == 25


def test_the_neck_needs_both_shoulders() -> None:
    points = person()
    points[5] = 0
    assert not coco_to_openpose(points)[1].any()
    points = person()
    points[6, 2] = 1
    assert coco_to_openpose(points)[1, 2] == 1


def test_body_25_and_back() -> None:
    openpose = coco_to_openpose(person())
    body = openpose_to_body25(openpose)
    assert (body25_to_openpose(body) == openpose).all()
    assert np.allclose(body[8, :2], openpose[[8, 11], :2].mean(0)) and not body[19:].any()
    openpose[8] = 0
    assert not openpose_to_body25(openpose)[8].any()


def test_the_mirror_swaps_sides() -> None:
    openpose = coco_to_openpose(person())
    openpose[4] = 0
    other = mirrored(openpose, 60)
    assert np.allclose(mirrored(other, 60), openpose)
    left, right = OPENPOSE_18.index("left_ankle"), OPENPOSE_18.index("right_ankle")
    assert other[left].tolist() == [60 - openpose[right, 0], openpose[right, 1], 2]
    assert not other[OPENPOSE_18.index("left_wrist")].any()


def test_keypoints_outside_are_dropped() -> None:
    points = np.array([[0.0, 0, 2], [59.9, 79, 1], [60, 1, 2], [-0.1, 1, 2], [5, 80, 2], [5, 5, 0]])
    assert within(points, 60, 80)[:, 2].tolist() == [2, 1, 0, 0, 0, 0]
    assert not within(points, 60, 80)[2:].any()


def test_a_skeleton_passes_through_its_keypoints() -> None:
    openpose = coco_to_openpose(person(3))
    openpose[4] = 0  # right wrist
    picture = draw_skeleton(openpose, 60, 80)
    assert picture.shape == (80, 60, 3) and picture.dtype == np.uint8
    for x, y, v in openpose:
        assert v == 0 or picture[int(y), int(x)].any()
    only_forearm = np.zeros((18, 3))
    only_forearm[3:5] = [[10.5, 10.5, 2], [10.5, 40.5, 1]]
    picture = draw_skeleton(only_forearm, 60, 80, thickness=3.0)
    rows, columns = np.nonzero(picture.any(axis=2))
    assert (rows.min(), rows.max()) == (9, 41) and (columns.min(), columns.max()) == (9, 11)
    assert not draw_skeleton(np.zeros((18, 3)), 60, 80).any()


def test_every_keypoint_hangs_on_a_limb() -> None:
    assert len(LIMBS) == 17 and {name for limb in LIMBS for name in limb} == set(OPENPOSE_18)
