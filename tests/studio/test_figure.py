"""A figure stands where and as its pose says, is labelled and clothed, and wears the flat garment's cloth."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from r2r.parsing import ATR_18
from r2r.pose import COCO_17
from r2r.studio.body import arm_radius, leg_radius, leg_rings
from r2r.studio.figure import Figure, build_figure
from r2r.studio.garments import build_garment
from r2r.studio.head import hair_parts, head_of
from r2r.studio.people import HAIR_STYLES, Arm, Leg, Person, Pose, sample_body, sample_outfit, sample_pose
from r2r.studio.skeleton import SIDES, arm_axes, pose_skeleton, rest_joints
from r2r.studio.surfaces import Part
from r2r.studio.wardrobe import CATEGORIES, SLOTS, Garment, sample_garment

MIRROR = np.array([-1.0, 1.0, 1.0])
BENDS = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]


def someone(seed: int) -> tuple[Person, tuple[Garment, ...]]:
    rng = np.random.default_rng([9, seed])
    return Person(sample_body(rng), sample_pose(rng)), sample_outfit(rng)


def outfit(category: str, seed: int = 0) -> tuple[Garment, ...]:
    rng = np.random.default_rng([10, seed])
    garment = sample_garment(rng, category)
    others = {"upper": "trousers", "lower": "t-shirt"}
    if garment.slot == "full":
        return (garment,)
    other = sample_garment(rng, others[garment.slot])
    return (garment, other) if garment.slot == "upper" else (other, garment)


@cache
def figure_of(seed: int) -> Figure:
    return build_figure(*someone(seed))


@cache
def dressed(category: str) -> Figure:
    return build_figure(Person(someone(3)[0].body, Pose()), outfit(category))


def joint(figure: Figure, name: str) -> np.ndarray:
    return figure.joints[COCO_17.index(name)]


def cloth_of(figure: Figure, index: int = 0) -> Part:
    return next(p for p in figure.parts if p.material == "fabric" and p.garment == index)


def test_same_person_gives_the_same_meshes() -> None:
    first, second = build_figure(*someone(1)), figure_of(1)
    assert (first.joints == second.joints).all()
    assert all((a.vertices == b.vertices).all() for a, b in zip(first.parts, second.parts, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_parts_are_clean_and_labelled(seed: int) -> None:
    (person, garments), figure = someone(seed), figure_of(seed)
    for part in figure.parts:
        assert np.isfinite(part.vertices).all()
        assert part.faces.min() >= 0 and part.faces.max() < len(part.vertices)
        assert part.uv.min() >= 0 and part.uv.max() <= 1
        assert part.label in ATR_18
        worn = part.material in ("fabric", "trim", "button")
        assert worn or part.material in person.body.colours
        assert not worn or part.label == garments[part.garment].label
    labels = {part.label for part in figure.parts}
    assert {"face", "left-arm", "right-arm", "left-shoe", "right-shoe"} <= labels
    assert {garment.label for garment in garments} <= labels
    assert sum(len(part.faces) for part in figure.parts) < 90_000


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_is_on_the_head(style: str) -> None:
    head = head_of(replace(someone(2)[0].body, hair_style=style))
    hair = hair_parts(head, 0.15)
    assert bool(hair) == (style != "bald")
    marks = head.landmarks()
    for part in hair:
        points = part.vertices[np.unique(part.faces)]
        assert part.label == part.material == "hair"
        assert points[:, 1].max() > marks["left_eye"][1] - 0.01
        assert np.linalg.norm(points - head.centre, axis=1).max() < 0.8
        over_the_face = (np.abs(points[:, 0]) < 0.05) & (np.abs(points[:, 1] - marks["nose"][1]) < 0.02)
        assert (points[over_the_face, 2] < head.centre[2]).all()


@pytest.mark.parametrize("seed", range(4))
def test_figure_stands_on_the_floor(seed: int) -> None:
    person, figure = someone(seed)[0], figure_of(seed)
    low = min(part.vertices[:, 1].min() for part in figure.parts if part.label.endswith("shoe"))
    high = max(part.vertices[:, 1].max() for part in figure.parts if part.label == "face")
    assert abs(low) < 0.02
    assert 0.9 * person.body.stature < high < 1.02 * person.body.stature


def test_symmetric_pose_has_symmetric_joints() -> None:
    person, garments = someone(4)
    figure = build_figure(Person(person.body, Pose()), garments)
    for name in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        left, right = joint(figure, f"left_{name}"), joint(figure, f"right_{name}")
        assert left[0] > 0 > right[0]
        np.testing.assert_allclose(left, right * MIRROR, atol=1e-9)
    assert joint(figure, "nose")[2] > joint(figure, "left_eye")[2] > joint(figure, "left_ear")[2]


@pytest.mark.parametrize("seed", range(4))
def test_posing_keeps_the_lengths_of_limbs(seed: int) -> None:
    figure, rest = figure_of(seed), rest_joints(someone(seed)[0].body)
    for side in SIDES:
        for upper, lower in BENDS:
            length = np.linalg.norm(joint(figure, f"{side}_{upper}") - joint(figure, f"{side}_{lower}"))
            assert length == pytest.approx(np.linalg.norm(rest[f"{side} {upper}"] - rest[f"{side} {lower}"]), abs=1e-9)


def test_angles_mean_what_they_say() -> None:
    """An arm spread by 90 degrees is level, a bent elbow points forwards, a swung leg steps forwards."""
    body = someone(0)[0].body
    pose = Pose(left_arm=Arm(spread=90.0, elbow=0.0), right_arm=Arm(spread=0.0, elbow=90.0), left_leg=Leg(swing=30.0))
    skeleton = pose_skeleton(body, pose)
    level = skeleton.joint("left wrist") - skeleton.joint("left shoulder")
    assert level[0] > 0.4 and abs(level[1]) < 1e-6
    forwards = skeleton.joint("right wrist") - skeleton.joint("right elbow")
    assert forwards[2] > 0.2 and abs(forwards[1]) < 1e-6
    assert skeleton.joint("left knee")[2] > skeleton.joint("right knee")[2] + 0.1


@pytest.mark.parametrize("category", CATEGORIES)
def test_cloth_in_front_looks_forwards(category: str) -> None:
    garments = outfit(category)
    index = next(i for i, garment in enumerate(garments) if garment.category == category)
    part = cloth_of(dressed(category), index)
    corners = part.vertices[part.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(1)
    front = middle[:, 2] > np.quantile(middle[:, 2], 0.9)
    assert (normal[front, 2] > 0).mean() > 0.9


def room(skin: np.ndarray, cloth: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How much farther from a bone (start to end) than each point of skin the cloth in its direction is."""
    bone = (end - start) / np.linalg.norm(end - start)
    across = np.cross(bone, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    frame = np.stack([bone, across, np.cross(bone, across)], 1)
    ours, theirs = (skin - start) @ frame, (cloth - start) @ frame
    theirs = theirs[(theirs[:, 0] > -0.02) & (np.hypot(theirs[:, 1], theirs[:, 2]) < 0.17)]
    turn = [np.arctan2(points[:, 2], points[:, 1]) for points in (ours, theirs)]
    angle = np.abs(np.mod(turn[0][:, None] - turn[1][None] + np.pi, 2 * np.pi) - np.pi)
    near = np.hypot(ours[:, :1] - theirs[None, :, 0], 0.08 * angle).argmin(1)
    return np.hypot(theirs[near, 1], theirs[near, 2]) - np.hypot(ours[:, 1], ours[:, 2])


@pytest.mark.parametrize("seed", range(2))
def test_clothes_enclose_the_limbs(seed: int) -> None:
    """Skin of shins and forearms, posed, lies inside of trouser legs and sleeves."""
    rng = np.random.default_rng([11, seed])
    body, pose = sample_body(rng), Pose(left_leg=Leg(20.0, 4.0, 8.0, 15.0), left_arm=Arm(15.0, 10.0, 10.0, 40.0))
    figure = build_figure(Person(body, pose), (sample_garment(rng, "sweater"), sample_garment(rng, "trousers")))
    skeleton, turn = pose_skeleton(body, pose), np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rest = rest_joints(body)
    shin = leg_rings(body, "left", y := np.linspace(0.1, 0.24, 5) * body.stature, leg_radius(body, y), 12)
    shin = skeleton.deform(shin.reshape(-1, 3), "left leg")
    reach = np.linspace(0.22, 0.28, 4)[:, None] * body.stature
    down, up = arm_axes(1)
    ring = np.cos(turn)[:, None] * up + np.sin(turn)[:, None] * np.array([0.0, 0.0, 1.0])
    skin = rest["left shoulder"] + reach[..., None] * down + arm_radius(body, reach)[..., None] * ring[None]
    skin = skeleton.deform(skin.reshape(-1, 3), "left arm")
    covers = [(skin, 0, "elbow", "wrist"), (shin, 1, "knee", "ankle")]
    for points, index, start, end in covers:
        ends = [skeleton.joint(f"left {name}") for name in (start, end)]
        cloth = cloth_of(figure, index).vertices
        assert (room(points, cloth[cloth[:, 0] > 0], *ends) > 0).mean() > 0.95


@pytest.mark.parametrize("category", [name for name, slot in SLOTS.items() if slot != "lower"])
def test_worn_and_flat_cloth_share_coordinates(category: str) -> None:
    """The worn garment covers the same piece of the atlas; the middle of the cloth is the middle of the chest."""
    garments = outfit(category)
    worn, flat = cloth_of(dressed(category)), build_garment(garments[0].shape)
    flat_uv = np.concatenate([part.uv for part in flat if part.material == "fabric"])
    for function in (np.min, np.max):
        np.testing.assert_allclose(function(worn.uv, axis=0), function(flat_uv, axis=0), atol=0.02)


def test_chest_print_is_in_front_and_not_mirrored() -> None:
    figure = dressed("t-shirt")
    part = cloth_of(figure)
    x, y = (part.uv[:, 0] - 0.5) * 1.6, (0.5 - part.uv[:, 1]) * 1.6
    print_area = (np.abs(x) < 0.12) & (np.abs(y - 0.08) < 0.05) & (part.vertices[:, 2] > 0)
    assert print_area.sum() > 40
    points = part.vertices[print_area]
    assert np.corrcoef(x[print_area], points[:, 0])[0, 1] > 0.95
    assert np.corrcoef(y[print_area], points[:, 1])[0, 1] > 0.95
    assert points[:, 1].max() < joint(figure, "left_shoulder")[1]
    assert points[:, 1].min() > joint(figure, "left_hip")[1] + 0.15
