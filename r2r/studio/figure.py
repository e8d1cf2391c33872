"""A dressed person as meshes: body and clothes at rest, posed together, cloth kept outside of the legs."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from r2r.pose import COCO_17
from r2r.studio import body as bodies
from r2r.studio.body import Girth
from r2r.studio.dressing import wear
from r2r.studio.head import hair_parts, head_of, head_parts
from r2r.studio.people import Arm, Body, Person, Pose
from r2r.studio.skeleton import SIDES, Points, Skeleton, pose_skeleton, rest_joints, rise
from r2r.studio.surfaces import Part
from r2r.studio.wardrobe import Garment
from r2r.studio.worn import EASE, Worn, hidden_above

TUCKED = ("t-shirt", "shirt", "tank top")
"""Tops that are worn inside of a skirt."""


@dataclass(frozen=True)
class Figure:
    """Posed meshes, and the joints in the order of COCO_17; metres, feet at about y = 0, facing +z.

    x runs to the picture's right, so the person's left is at positive x.
    """

    parts: list[Part]
    joints: Float[np.ndarray, "17 3"]


def build_figure(person: Person, garments: tuple[Garment, ...]) -> Figure:
    """Pose and dress a person; `garments` are (upper, lower), (full,), or one of them."""
    body = person.body
    worn = _dress(body, garments)
    outside = _envelope(bodies.torso_girth(body), worn)
    pose = _cleared(body, person.pose, outside)
    skeleton = pose_skeleton(body, pose)
    parts = [
        part
        for pieces in (_skin(body, worn, outside, skeleton), _cloth(body, garments, worn, skeleton))
        for part in pieces
    ]
    return Figure(_merged(parts), _joints(body, skeleton))


def _dress(body: Body, garments: tuple[Garment, ...]) -> list[Worn]:
    """What is worn beneath comes first in dressing, the result is in the order of `garments`."""
    under = bodies.torso_girth(body)
    skirt = any(garment.category == "skirt" for garment in garments)
    worn: dict[int, Worn] = {}
    for index in sorted(range(len(garments)), key=lambda i: garments[i].slot != "lower"):
        garment = garments[index]
        tucked = skirt and garment.category in TUCKED
        worn[index] = wear(garment, body, bodies.torso_girth(body) if tucked else under, tucked)
        if garment.slot == "lower":
            under = _over(under, worn[index].outside, 0.6 * body.stature)
    hems = [item.end for item in worn.values() if item.end is not None]
    if hems:
        worn = {i: hidden_above(item, hems[0]) if garments[i].slot == "lower" else item for i, item in worn.items()}
    return [worn[index] for index in range(len(garments))]


def _over(inner: Girth, outer: Girth, top: float) -> Girth:
    """The larger of both below the height `top`, and softly the inner one above."""
    y = np.linspace(min(inner.y[0], outer.y[0]), inner.y[-1], 320)
    share = 1 - rise(y, top - 0.03, top + 0.08)
    return Girth(y, *(a + share * np.maximum(b - a, 0) for a, b in zip(inner.at(y), outer.at(y), strict=True)))


def _envelope(girth: Girth, worn: list[Worn]) -> Girth:
    """What the arms must stay out of."""
    y = np.linspace(min(girth.y[0], *(item.outside.y[0] for item in worn)), girth.y[-1], 200)
    sizes = np.stack([girth.at(y)] + [item.outside.at(y) for item in worn]).max(0)
    return Girth(y, *sizes)


def _cleared(body: Body, pose: Pose, outside: Girth) -> Pose:
    """The pose with arms moved away from the body until forearms and hands are outside of it."""
    for side, sign in SIDES.items():
        for _ in range(14):
            arm: Arm = getattr(pose, f"{side}_arm")
            deepest, forward = _depth(body, pose, outside, side, sign)
            if deepest <= 0:
                break
            step = min(4.0, 1.0 + 40 * deepest)
            moved = replace(arm, swing=arm.swing + step) if forward else replace(arm, spread=arm.spread + step)
            pose = replace(pose, left_arm=moved) if side == "left" else replace(pose, right_arm=moved)
    return pose


def _depth(body: Body, pose: Pose, outside: Girth, side: str, sign: int) -> tuple[float, bool]:
    """How far the arm is inside of `outside` in metres, and whether it is in front of the body."""
    skeleton, rest, s = pose_skeleton(body, pose), rest_joints(body), body.stature
    elbow, wrist = rest[f"{side} elbow"], rest[f"{side} wrist"]
    tip = wrist + (wrist - elbow) / np.linalg.norm(wrist - elbow) * 0.085 * s
    points = np.concatenate([np.linspace(elbow, wrist, 6)[1:], np.linspace(wrist, tip, 4)[1:]])
    thick = np.array([0.03, 0.03, 0.028, 0.026, 0.022, 0.016, 0.014, 0.01]) * s
    points = skeleton.deform(points, f"{side} arm")
    y = np.linspace(outside.y[0], outside.y[-1], 40)
    axis = skeleton.deform(np.stack([0 * y, y, 0 * y], 1), "torso")
    order = np.argsort(axis[:, 1])
    x, z = (points[:, i] - np.interp(points[:, 1], axis[order, 1], axis[order, i]) for i in (0, 2))
    half, front, back = outside.at(np.interp(points[:, 1], axis[order, 1], y[order]))
    scale = np.hypot(x / (half + thick), z / (np.where(z >= 0, front, back) + thick))
    inside = (1 - scale) * np.minimum(half, front)
    return float(inside.max()), bool(z[-1] > 0.6 * front[-1] or pose.kind == "folded")


def _skin(body: Body, worn: list[Worn], outside: Girth, skeleton: Skeleton) -> list[Part]:
    """Whatever of the body the clothes leave bare, with hair and shoes."""
    neck = [item.neck for item in worn if item.neck]
    sleeve = max((item.sleeve for item in worn if item.sleeve), default=None)
    hem = min((item.hem for item in worn if item.hem), default=0.5 * body.stature)
    skirted = not any(cloth.region.endswith("trouser") for item in worn for cloth in item.cloths)
    head = head_of(body)
    half, low = neck[0] if neck else (1.0, 0.6 * body.stature)
    torso = bodies.torso_skin(body, min(low - 0.03, (0.74 if sleeve is None else 0.8) * body.stature))
    if sleeve is not None:
        keep = (np.abs(torso.vertices[:, 0])[torso.faces] < half + 0.03).any(1)
        torso = replace(torso, faces=torso.faces[keep])
    pieces = [("vest" if sleeve is None else "torso", torso)]
    pieces += [("head", part) for part in head_parts(head)]
    behind = float(outside.at(np.array([0.72 * body.stature]))[2][0])
    pieces += [("hair", part) for part in hair_parts(head, behind)]
    for side in SIDES:
        start = -1.0 if sleeve is None else sleeve - 0.045
        pieces.append((f"{side} arm", bodies.arm_skin(body, side, start)))
        pieces += [(f"{side} arm", part) for part in bodies.hand(body, side)]
        top = 0.44 * body.stature if skirted else min(hem + 0.05, 0.46 * body.stature)
        pieces.append((f"{side} leg", bodies.leg_skin(body, side, top)))
        pieces += [(f"{side} leg", part) for part in bodies.shoe(body, side)]
    return [replace(part, vertices=skeleton.deform(part.vertices, region)) for region, part in pieces]


def _cloth(body: Body, garments: tuple[Garment, ...], worn: list[Worn], skeleton: Skeleton) -> list[Part]:
    """Posed clothes; what hangs from the torso is kept outside of the legs and of the trousers on them."""
    parts = []
    columns = _columns(body, worn, skeleton)
    for index, item in enumerate(worn):
        ease = EASE[garments[index].category]
        for cloth in item.cloths:
            points = skeleton.deform(cloth.part.vertices, cloth.region)
            if cloth.region in ("torso", "vest") and cloth.part.material != "button":
                points = columns.keep_out(points, ease + cloth.lift)
            parts.append(replace(cloth.part, vertices=points, garment=index))
    return parts


@dataclass(frozen=True)
class Columns:
    """How far from the axis through the hips the legs reach: `reach` by height `y` and angle, in the pose."""

    centre: Float[np.ndarray, "2"]
    y: Float[np.ndarray, " rows"]
    reach: Float[np.ndarray, "rows cols"]

    def keep_out(self, points: Points, ease: float) -> Points:
        """Points pushed outwards, level, until they are `ease` metres outside of the legs."""
        rows, cols = self.reach.shape
        offset = points[:, [0, 2]] - self.centre
        distance = np.hypot(*offset.T)
        column = np.mod(np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi), 1.0) * cols
        row = np.clip((points[:, 1] - self.y[0]) / (self.y[1] - self.y[0]), 0, rows - 1.001)
        i, j = row.astype(int), column.astype(int) % cols
        u, v = row - i, column - np.floor(column)
        right = (j + 1) % cols
        lower = self.reach[i, j] * (1 - v) + self.reach[i, right] * v
        upper = self.reach[i + 1, j] * (1 - v) + self.reach[i + 1, right] * v
        least = lower * (1 - u) + upper * u
        least = np.where(least > 0, least + ease, 0.0)
        factor = np.maximum(1.0, least / np.maximum(distance, 1e-6))
        moved = points.copy()
        moved[:, [0, 2]] = self.centre + offset * factor[:, None]
        return moved


def _columns(body: Body, worn: list[Worn], skeleton: Skeleton) -> Columns:
    """The convex outline of both legs at every height, and below what sticks out the cloth hangs straight down."""
    s, rows, cols = body.stature, 64, 48
    y = np.linspace(0.0, 0.53 * s, rows)
    angle = np.arange(cols) * 2 * np.pi / cols
    direction = np.stack([np.cos(angle), np.sin(angle)])
    height = np.linspace(0.05, 0.5, 40) * s
    radius = bodies.leg_radius(body, height) * (1 - 0.25 * rise(height, 0.465 * s, 0.51 * s))
    covered = [cloth.part for item in worn for cloth in item.cloths if cloth.region == "left trouser"]
    if covered:
        radius = np.maximum(radius, _widths(covered[0], height, 0.052 * s))
    centre = skeleton.joint("pelvis")[[0, 2]]
    reach = np.zeros((rows, cols))
    for side, sign in SIDES.items():
        middle = np.stack([np.full_like(height, sign * 0.052 * s), height, bodies.leg_forward(body, height)], 1)
        posed = skeleton.deform(middle, f"{side} trouser")
        order = np.argsort(posed[:, 1])
        at = np.stack([np.interp(y, posed[order, 1], posed[order, i]) for i in (0, 2)], 1)
        wide = np.interp(y, posed[order, 1], radius[order], right=0.0)
        support = (at - centre) @ direction + wide[:, None]
        reach = np.maximum(reach, np.where((wide > 0)[:, None], support, 0.0))
    for row in range(rows - 2, -1, -1):
        reach[row] = np.maximum(reach[row], reach[row + 1] - 0.25 * (y[1] - y[0]))
    return Columns(centre, y, reach)


def _widths(part: Part, height: Float[np.ndarray, " n"], axis: float) -> Float[np.ndarray, " n"]:
    """Largest distance from the leg's axis of a trouser leg at rest, around each height; 0 below its hem."""
    y = part.vertices[:, 1]
    away = np.hypot(part.vertices[:, 0] - axis, part.vertices[:, 2])
    near = [away[np.abs(y - h) < 0.012] for h in height]
    limit = 0.47 / 0.05 * height[0]
    return np.array([float(a.max()) if len(a) and h < limit else 0.0 for a, h in zip(near, height, strict=True)])


def _joints(body: Body, skeleton: Skeleton) -> Float[np.ndarray, "17 3"]:
    marks = head_of(body).landmarks()
    points = []
    for name in COCO_17:
        if name in marks:
            points.append(skeleton.deform(marks[name][None], "head")[0])
        else:
            points.append(skeleton.joint(name.replace("_", " ")))
    return np.stack(points)


def _merged(parts: list[Part]) -> list[Part]:
    """One mesh per material, label and garment."""
    groups: dict[tuple[str, str, int], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.material, part.label, part.garment), []).append(part)
    return [_joined(group) for group in groups.values()]


def _joined(group: list[Part]) -> Part:
    starts = np.cumsum([0] + [len(part.vertices) for part in group[:-1]])
    return replace(
        group[0],
        vertices=np.concatenate([part.vertices for part in group]),
        faces=np.concatenate([part.faces + start for part, start in zip(group, starts, strict=True)]),
        uv=np.concatenate([part.uv for part in group]),
    )
