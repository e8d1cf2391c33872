"""People and poses are the same for the same seed, within sensible limits, and everything there is occurs."""

import numpy as np
import pytest

from r2r.studio.people import (
    HAIR_STYLES,
    POSES,
    SHOES,
    Pose,
    mirrored,
    sample_body,
    sample_outfit,
    sample_pose,
)
from r2r.studio.wardrobe import CATEGORIES


@pytest.mark.parametrize("sample", [sample_body, sample_pose, sample_outfit])
def test_same_seed_gives_the_same(sample) -> None:
    first, second = (sample(np.random.default_rng(7)) for _ in range(2))
    assert first == second
    assert first != sample(np.random.default_rng(8))


def test_every_style_occurs() -> None:
    bodies = [sample_body(np.random.default_rng([1, i])) for i in range(150)]
    assert {body.hair_style for body in bodies} == set(HAIR_STYLES)
    assert {body.shoe_kind for body in bodies} == set(SHOES)
    assert all(1.5 <= body.stature <= 1.95 and -1 <= body.build <= 1 for body in bodies)
    darkness = [sum(body.skin) for body in bodies]
    assert min(darkness) < 0.7 and max(darkness) > 2.4


def test_every_pose_and_category_occurs() -> None:
    assert {sample_pose(np.random.default_rng([2, i])).kind for i in range(120)} == set(POSES)
    outfits = [sample_outfit(np.random.default_rng([3, i])) for i in range(200)]
    assert {garment.category for outfit in outfits for garment in outfit} == set(CATEGORIES)
    assert {tuple(garment.slot for garment in outfit) for outfit in outfits} == {("upper", "lower"), ("full",)}


def test_colours_are_colours() -> None:
    for i in range(20):
        colours = sample_body(np.random.default_rng([4, i])).colours
        assert {"skin", "hair", "eye", "lip", "shoe", "sole"} <= set(colours)
        assert all(0 <= value <= 1 for colour in colours.values() for value in colour)


def test_mirroring_twice_changes_nothing() -> None:
    pose = sample_pose(np.random.default_rng(3))
    assert mirrored(mirrored(pose)) == pose
    assert mirrored(Pose()) == Pose()
