"""Bones of a body at rest, and the bends that pose everything hung on them.

At rest the legs are straight down and the arms 45 degrees off. A pose is a list of partial rotations from the tips to
the root: each turns a point about a joint by its angle times the point's weight in [0, 1], which depends on where
the point was at rest. Skin and cloth share the weights, so that what encloses a limb at rest encloses it bent.
Metres; x is the picture's right (the person's left), y up, z towards the camera; `side` is 1 for the person's left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from r2r.studio.people import Arm, Body, Leg, Pose

Points = Float[np.ndarray, "... 3"]
Weight = Float[np.ndarray, "..."]
Matrix = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]

SIDES = {"left": 1, "right": -1}
UPPER_ARM, FOREARM, HAND = 0.172, 0.145, 0.105
"""Lengths as shares of the stature (Drillis and Contini 1966, the upper arm from the joint)."""


@dataclass(frozen=True)
class Bend:
    """A turn by `angle` radians about `axis` through `centre`, as far as `weight` of the resting point says."""

    centre: Vector
    axis: Vector
    angle: float
    weight: Callable[[Points], Weight]

    def __call__(self, points: Points, rest: Points) -> Points:
        """The turned points (Rodrigues)."""
        if abs(self.angle) < 1e-9:
            return points
        angle = (self.angle * self.weight(rest))[..., None]
        arm = points - self.centre
        along = (arm @ self.axis)[..., None] * self.axis
        return (
            self.centre + arm * np.cos(angle) + np.cross(self.axis, arm) * np.sin(angle) + along * (1 - np.cos(angle))
        )


def rest_joints(body: Body) -> dict[str, Vector]:
    """Joints at rest, the sole at y = 0."""
    s = body.stature
    at: dict[str, tuple[float, float, float] | Vector] = {
        "pelvis": (0.0, 0.53, 0.0), "lumbar": (0.0, 0.605, 0.0), "chest": (0.0, 0.7, 0.0),
        "neck": (0.0, 0.852, -0.004), "head": (0.0, 0.888, 0.004),
    }  # fmt: skip
    shoulder = 0.095 + 0.007 * body.build + 0.005 * body.shoulders
    for name, side in SIDES.items():
        down = np.array([side, -1.0, 0.0]) / np.sqrt(2)
        top = np.array([side * shoulder, 0.787, -0.004])
        at[f"{name} shoulder"], at[f"{name} elbow"] = top, top + UPPER_ARM * down
        at[f"{name} wrist"] = top + (UPPER_ARM + FOREARM) * down
        at[f"{name} hip"] = (side * 0.052, 0.52, 0.0)
        at[f"{name} knee"] = (side * 0.052, 0.282, 0.004)
        at[f"{name} ankle"] = (side * 0.052, 0.042, -0.006)
    return {name: np.array(place) * s for name, place in at.items()}


def arm_axes(side: int) -> tuple[Vector, Vector]:
    """Unit vectors at rest along the arm and across it, upwards and outwards."""
    return np.array([side, -1.0, 0.0]) / np.sqrt(2), np.array([side, 1.0, 0.0]) / np.sqrt(2)


@dataclass(frozen=True)
class Skeleton:
    """Where a body's joints are at rest, and what a pose does to points around them."""

    rest: dict[str, Vector]
    chains: dict[str, list[Bend]]
    lift: Vector

    def deform(self, points: Points, region: str) -> Points:
        """Points at rest, posed; `region`: torso, vest (heeds no arm), head, hair, or a side's arm, leg or trouser."""
        posed = points
        for bend in self.chains[region]:
            posed = bend(posed, points)
        return posed + self.lift

    def joint(self, name: str) -> Vector:
        """The place of a joint in the pose."""
        region = {"neck": "torso", "head": "head"}.get(name, "torso")
        for limb, parts in {"arm": ("elbow", "wrist", "shoulder"), "trouser": ("hip", "knee", "ankle")}.items():
            if name.split()[-1] in parts:
                region = f"{name.split()[0]} {limb}"
        return self.deform(self.rest[name][None], region)[0]


def pose_skeleton(body: Body, pose: Pose) -> Skeleton:
    """The bends of a pose; the lower foot stands on y = 0, the other one reaches down with its toes."""
    rest = rest_joints(body)
    drops = {"left": 0.0, "right": 0.0}
    level = _chains(body, pose, rest, drops)
    soles = {side: _lowest(body, Skeleton(rest, level, np.zeros(3)), side) for side in SIDES}
    floor = min(soles.values())
    for side, low in soles.items():
        drops[side] = float(np.arcsin(np.clip((low - floor) / (0.125 * body.stature), 0.0, 0.6)))
    chains = _chains(body, pose, rest, drops)
    bare = Skeleton(rest, chains, np.zeros(3))
    feet = [bare.joint(f"{side} ankle") for side in SIDES]
    pelvis = bare.joint("pelvis")
    centre = 0.5 * (pelvis + (feet[0] + feet[1]) / 2)
    lift = -np.array([centre[0], min(_lowest(body, bare, side) for side in SIDES), centre[2]])
    return Skeleton(rest, chains, lift)


def _lowest(body: Body, skeleton: Skeleton, side: str) -> float:
    x, s = SIDES[side] * 0.052, body.stature
    sole = np.array([[x, 0.0, -0.04], [x, 0.0, 0.085], [x + 0.02, 0, 0.06], [x - 0.02, 0, 0.06]]) * s
    return float(skeleton.deform(sole, f"{side} leg")[:, 1].min())


def _chains(body: Body, pose: Pose, rest: dict[str, Vector], drops: dict[str, float]) -> dict[str, list[Bend]]:
    s = body.stature
    root_turn = about("y", pose.hips_turn) @ about("z", pose.hips_roll)
    root = [_bend(rest["pelvis"], root_turn, _everything)]
    half = about("y", pose.twist / 2) @ about("z", pose.tilt / 2) @ about("x", pose.lean / 2)
    spine = [
        _bend(rest["chest"], half, height(0.65 * s, 0.76 * s)),
        _bend(rest["lumbar"], half, height(0.56 * s, 0.65 * s)),
    ]
    stiff_spine = [_bend(rest["chest"], half, _everything), _bend(rest["lumbar"], half, _everything)]
    look = about("y", pose.head_turn / 2) @ about("z", pose.head_tilt / 2) @ about("x", pose.head_nod / 2)
    neck = [_bend(rest[n], look, height(a * s, b * s)) for n, a, b in (("head", 0.865, 0.905), ("neck", 0.835, 0.875))]
    stiff_neck = [_bend(rest[n], look, _everything) for n in ("head", "neck")]
    loose_neck = [_bend(rest[n], look, height(0.8 * s, 0.9 * s)) for n in ("head", "neck")]
    arms = {side: _arm(rest, side, getattr(pose, f"{side}_arm"), s) for side in SIDES}
    shoulders = [_shrug(rest, side, getattr(pose, f"{side}_arm"), s) for side in SIDES]
    chains = {
        "torso": [*neck, *shoulders, *spine, *root],
        "vest": [*neck, *spine, *root],
        "head": [*stiff_neck, *stiff_spine, *root],
        "hair": [*loose_neck, *stiff_spine, *root],
    }
    for side in SIDES:
        leg = _leg(rest, side, getattr(pose, f"{side}_leg"), s)
        world = root_turn @ leg_turn(getattr(pose, f"{side}_leg"), SIDES[side])
        chains[f"{side} arm"] = [*arms[side], *stiff_spine, *root]
        foot = _bend(rest[f"{side} ankle"], _level(world, drops[side]), height(0.075 * s, 0.045 * s))
        chains[f"{side} trouser"] = [*leg, *spine, *root]
        chains[f"{side} leg"] = [foot, *leg, *spine, *root]
    return chains


def arm_turn(arm: Arm, side: int) -> Matrix:
    """The shoulder's rotation, from the rest pose."""
    down, _ = arm_axes(side)
    twist = rodrigues(down, np.deg2rad(side * arm.twist))
    return about("x", -arm.swing) @ about("z", side * (arm.spread - 45.0)) @ twist


def leg_turn(leg: Leg, side: int) -> Matrix:
    """Hip and knee together, from the rest pose."""
    return _hip_turn(leg, side) @ about("x", leg.knee)


def _hip_turn(leg: Leg, side: int) -> Matrix:
    return about("x", -leg.swing) @ about("z", side * leg.spread) @ about("y", side * leg.turn)


def _arm(rest: dict[str, Vector], side: str, arm: Arm, s: float) -> list[Bend]:
    sign = SIDES[side]
    down, _ = arm_axes(sign)
    hinge = np.cross(down, [0.0, 0.0, 1.0])
    elbow, wrist = rest[f"{side} elbow"], rest[f"{side} wrist"]
    return [
        Bend(wrist, np.array([0.0, 0.0, -sign]), np.deg2rad(arm.wrist), along(wrist, down, 0.02 * s)),
        Bend(elbow, down, np.deg2rad(sign * arm.turn), along(elbow + 0.07 * s * down, down, 0.07 * s)),
        Bend(elbow, hinge, np.deg2rad(arm.elbow), along(elbow, down, 0.036 * s)),
        _bend(rest[f"{side} shoulder"], arm_turn(arm, sign), along(rest[f"{side} shoulder"], down, 0.04 * s)),
    ]


def _shrug(rest: dict[str, Vector], side: str, arm: Arm, s: float) -> Bend:
    """How the torso's skin and cloth around the shoulder follow the arm."""
    down, across = arm_axes(SIDES[side])
    joint = rest[f"{side} shoulder"]
    beyond, above = along(joint, down, 0.04 * s), along(joint - 0.045 * s * across, across, 0.022 * s)
    return _bend(joint, arm_turn(arm, SIDES[side]), lambda points: beyond(points) * above(points))


def _leg(rest: dict[str, Vector], side: str, leg: Leg, s: float) -> list[Bend]:
    hip, knee = rest[f"{side} hip"], rest[f"{side} knee"]

    def groin(points: Points) -> Weight:
        """Grows downwards from a line that rises from the crotch to the outer hip."""
        line = (0.475 + 0.9 * np.clip(np.abs(points[..., 0]) / s, 0.0, 0.1)) * s
        return smooth((line - points[..., 1]) / (0.085 * s))

    return [
        _bend(knee, about("x", leg.knee), height(knee[1] + 0.04 * s, knee[1] - 0.04 * s)),
        _bend(hip, _hip_turn(leg, SIDES[side]), groin),
    ]


def _level(world: Matrix, drop: float) -> Matrix:
    """What the ankle adds so that the foot lies flat, turned as the leg is, its toes `drop` radians lower."""
    toes = world[:, 2]
    flat = about("y", np.rad2deg(np.arctan2(toes[0], toes[2]))) @ about("x", np.rad2deg(drop))
    return world.T @ flat


def _bend(centre: Vector, turn: Matrix, weight: Callable[[Points], Weight]) -> Bend:
    """The partial rotation whose whole is `turn`."""
    angle = float(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0)))
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    length = float(np.linalg.norm(axis))
    return Bend(centre, axis / length if length > 1e-9 else np.array([1.0, 0.0, 0.0]), angle, weight)


def about(axis: str, degrees: float) -> Matrix:
    """Rotation about a coordinate axis."""
    return rodrigues(np.eye(3)["xyz".index(axis)], np.deg2rad(degrees))


def rodrigues(axis: Vector, angle: float) -> Matrix:
    """Rotation by `angle` radians about a unit vector."""
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def smooth(x: Weight) -> Weight:
    """Smoothstep of [0, 1]."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def rise(x: Weight, low: float, high: float) -> Weight:
    """Smoothly from 0 at `low` to 1 at `high`."""
    return smooth((x - low) / (high - low))


def height(low: float, high: float) -> Callable[[Points], Weight]:
    """0 at height `low`, 1 at `high`."""
    return lambda points: rise(points[..., 1], low, high)


def along(centre: Vector, axis: Vector, reach: float) -> Callable[[Points], Weight]:
    """0 before and 1 after the plane through `centre`, soft by `reach` metres on both sides."""
    return lambda points: smooth(0.5 + 0.5 * ((points - centre) @ axis) / reach)


def _everything(points: Points) -> Weight:
    return np.ones(points.shape[:-1])
