"""Tops, coats and dresses on a body at rest: a bodice around the torso and sleeves around the arms."""

from dataclasses import dataclass

import numpy as np

from r2r.studio import garments as flat
from r2r.studio.body import Girth, Line, arm_radius, outward, torso_girth
from r2r.studio.garments import FRONT, TURN, GarmentShape
from r2r.studio.people import Body
from r2r.studio.skeleton import arm_axes, rest_joints, rise, smooth
from r2r.studio.surfaces import Grid, Part, Tube, grid_part, ramp
from r2r.studio.worn import EASE, WAIST, Cloth, Worn, creases, eased, grade, joined_folds, resampled, trimmed, tube_mesh


def _shoulder_line(body: Body, ease: float, sleeved: bool) -> tuple[Line, Line]:
    """Height of the cloth over the shoulders by distance from the middle: (x rising, y falling)."""
    girth, joint = torso_girth(body), rest_joints(body)["left shoulder"]
    upper = girth.y > 0.768 * body.stature
    x = np.linspace(0.03 * body.stature, joint[0] + 0.027 * body.stature, 200)
    order = np.argsort(girth.half[upper])
    y = np.interp(x, girth.half[upper][order], girth.y[upper][order], right=0.76 * body.stature)
    if sleeved:
        radius = float(arm_radius(body, np.array([0.01 * body.stature]))[0])
        y = np.maximum(
            y, joint[1] + np.sqrt(np.maximum(radius**2 - (x - joint[0]) ** 2, 0)) - 1.0 * (x < joint[0] - radius)
        )
    y = np.maximum.accumulate(y[::-1])[::-1] + ease - 1e-4 * np.arange(len(x))
    return x, y


@dataclass(frozen=True)
class Bodice:
    """How the flat torso's points become points around the body; see `place`."""

    shape: GarmentShape
    flat: Tube
    sides: Girth
    line: tuple[Line, Line]
    hem: float
    tip: float

    @property
    def shoulder(self) -> float:
        """Half width of the flat garment's shoulders."""
        return float(self.flat.place(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))[0][0, 0])

    @property
    def neck(self) -> float:
        """Half width of the worn neck hole."""
        return self.shape.neck_width / self.shoulder * self.tip

    def over(self, x: Line) -> Line:
        """Height of the shoulder line at a distance from the middle."""
        return np.interp(x, *self.line)

    def above(self, x: float) -> float:
        """Height of the shoulder line at one distance from the middle."""
        return float(self.over(np.array([x]))[0])

    def half(self, y: Line) -> Line:
        """Half width of the silhouette: the sides, and above the shoulders' tips the shoulder line."""
        top = self.above(self.tip)
        sides = self.sides.at(y)[0]
        blend = rise(y, top - 0.13, top)
        return np.where(y < top, sides * (1 - blend) + self.tip * blend, np.interp(-y, -self.line[1], self.line[0]))

    def place(self, cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        """x, y, z at rest of the flat torso's point (angle, t)."""
        one = np.ones_like(t)
        level = self.flat.place(cos, sin, t)[1]
        shoulder = self.flat.place(cos, sin, one)[1]
        high = self.above(self.neck)
        scale = (high - self.hem) / self.shape.length
        across = np.abs(cos) * self.tip
        mend = np.where(across >= self.neck, self.over(across) - (high - scale * (self.shape.length - shoulder)), 0.0)
        y = high - scale * (self.shape.length - level) + mend * t**2
        side = self.hem + t * (self.above(self.tip) - self.hem)
        x = cos * self.half(side)
        _, front, back = self.sides.at(y)
        share = np.abs(x) / np.maximum(self.half(y), np.abs(x) + 1e-9)
        # Without a sleeve the cloth stands off the skin up to the armhole and then dives under.
        power = 2.0 if self.shape.sleeve_length > 0 else 2.0 + 1.4 * ramp(y, self.hem + 0.7 * (high - self.hem), high)
        inside = np.maximum(1 - share**power, 0) ** (1 / power)
        return x, y, np.where(sin >= 0, front, -back) * inside


def wear_top(shape: GarmentShape, body: Body, under: Girth, tucked: bool) -> Worn:
    """A top, coat or dress over what is `under` it; `tucked`, it ends inside of the waistband."""
    rng = np.random.default_rng(shape.fold_seed)
    plain = flat.torso_tube(shape, rng)
    s, sleeved, ease = grade(body), shape.sleeve_length > 0, EASE[shape.category]
    line = _shoulder_line(body, ease, sleeved)
    joint = float(rest_joints(body)["left shoulder"][0])
    width = float(plain.place(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))[0][0, 0]) * s
    tip = min(width, joint + (0.024 if sleeved else -0.004) * body.stature)
    high = float(np.interp(shape.neck_width * tip / (width / s), *line))
    hem = min(high - shape.length * s, (WAIST - 0.045) * body.stature)
    low = resampled(under, min(hem, float(under.y[0])))
    ease = ease + 0.5 * shape.fold_height * rise(-low.y, -0.62 * body.stature, -0.58 * body.stature)
    t = np.clip((low.y - hem) / (float(np.interp(tip, *line)) - hem), 0, 1)[:, None]
    around = 4.3 * s * plain.place(np.ones_like(t), np.zeros_like(t), t)[0][:, 0]
    most = 0.3 if shape.category in ("dress", "coat") else 0.06
    sides = eased(low, around, ease, most)
    if tucked:
        held = smooth((WAIST * body.stature + 0.05 - low.y) / 0.06)[:, None] * np.ones(1)
        tight = low.grown(np.full_like(low.y, 0.004))
        sides = Girth(
            low.y, *(a * (1 - held[:, 0]) + b * held[:, 0] for a, b in zip(_sizes(sides), _sizes(tight), strict=True))
        )
    bodice = Bodice(shape, plain, sides, line, hem, tip)
    tube = Tube(bodice.place, plain.cloth, plain.folds, plain.pleats, lambda t: 1 - 0.8 * ramp(t, 0.8, 0.97))
    sleeves = {side: _sleeve(shape, body, rng, side) for side in (-1, 1)} if sleeved else {}
    depth = shape.neck_depth * (high - hem) / shape.length
    return Worn(
        _cloths(shape, tube, sleeves, bodice, (WAIST - 0.03) * body.stature if tucked else None),
        sides,
        sleeve=_reach(shape, body) if sleeved else None,
        hem=hem if shape.category in ("dress", "coat") else None,
        neck=(bodice.neck, high - depth),
        end=None if tucked else hem,
    )


def _sizes(girth: Girth) -> tuple[Line, Line, Line]:
    return girth.half, girth.front, girth.back


def _cloths(
    shape: GarmentShape, torso: Tube, sleeves: dict[int, Tube], bodice: Bodice, cut: float | None
) -> list[Cloth]:
    """Body, sleeves and what is sewn on; `cut` is the height below which a tucked top is not seen."""
    axis = np.array([0.0, (bodice.hem + bodice.above(bodice.tip)) / 2, 0.0])
    arms = {1: "left arm", -1: "right arm"}
    parts = [(tube_mesh(torso, 90, 88, 1.25), 0.0)]
    half = np.arcsin(min(shape.neck_width / bodice.shoulder, 1.0))
    cloths = []
    if shape.category in ("shirt", "coat"):
        sewn = flat.shirt_details(torso, [])
        parts += [(part, 0.004) for part in sewn]
    else:
        for middle, low in ((FRONT, 0.968), (-FRONT, 0.975)):
            parts.append((torso.patch((middle - half, middle + half), (low, 1.0), 0.003, size=(5, 48)), 0.003))
    if shape.category == "dress":
        parts.append((torso.patch(TURN, (0.55, 0.58), 0.004, size=(6, 80)), 0.004))
    if shape.category in ("sweater", "hoodie"):
        parts.append((torso.patch(TURN, (0.0, 0.07), 0.004, size=(6, 80)), 0.004))
    if shape.category == "hoodie":
        parts.append((torso.patch((FRONT - 0.75, FRONT + 0.75), (0.1, 0.36), 0.008, "fabric", (12, 24)), 0.006))
        parts.append((_hood(bodice), 0.0))
    for part, lift in parts:
        centre = None if part.material == "trim" and part is parts[-1][0] and shape.category == "hoodie" else axis
        cloths.append(Cloth(outward(part, centre), "torso" if sleeves else "vest", lift))
    if cut is not None:
        cloths = [trimmed(cloth, cut) for cloth in cloths]
    for side, sleeve in sleeves.items():
        cloths.append(Cloth(outward(tube_mesh(sleeve, 48, 32)), arms[side]))
        wide = 0.1 if shape.category in ("shirt", "coat") else 0.05
        cuff = sleeve.patch(TURN, (0.0, wide), 0.003, "fabric" if wide > 0.05 else "trim", (5, 32))
        cloths.append(Cloth(outward(cuff), arms[side]))
    return cloths


def _hood(bodice: Bodice) -> Part:
    """A soft roll from the collar bones over the shoulders, heaviest behind the neck."""
    turn = np.linspace(-0.24 * np.pi, 1.24 * np.pi, 40)[:, None]
    ring = np.linspace(0, 2 * np.pi, 16, endpoint=False)[None, :]
    behind = smooth((1 + np.sin(turn)) / 2)
    y = bodice.above(bodice.neck)
    back = float(bodice.sides.at(np.array([y]))[2][0])
    radius = (0.016 + 0.026 * behind) * np.sqrt(np.clip(1 - ((turn - np.pi / 2) / (0.745 * np.pi)) ** 6, 0, 1))
    reach = bodice.neck * (1.0 + 0.12 * behind) + radius * np.cos(ring)
    x, z = reach * np.cos(turn), -(np.sin(turn) * (back + 0.028)) - 0.012 - radius * np.cos(ring) * np.sin(turn)
    high = y - 0.004 - 0.05 * smooth(-1.4 * np.sin(turn)) - 0.012 * behind + 1.15 * radius * np.sin(ring)
    zero = np.zeros(np.broadcast_shapes(x.shape, z.shape, high.shape))
    points = np.stack(np.broadcast_arrays(x + zero, high + zero, z + zero), -1)
    return grid_part(points, zero, zero, closed=True, material="trim")


def _reach(shape: GarmentShape, body: Body) -> float:
    """Where the sleeve ends, in metres from the shoulder joint."""
    return min(0.006 * body.stature + shape.sleeve_length * grade(body), 0.328 * body.stature)


def _sleeve(shape: GarmentShape, body: Body, rng: np.random.Generator, side: int) -> Tube:
    plain, ease = flat.sleeve_tube(shape, rng, side), EASE[shape.category]
    down, across = arm_axes(side)
    forward = np.array([0.0, 0.0, 1.0])
    joint = rest_joints(body)["left shoulder" if side == 1 else "right shoulder"]
    start, end = -0.012 * body.stature, _reach(shape, body)

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        reach = start + (1 - t) * (end - start)
        bare = arm_radius(body, reach) + ease
        ends = [np.stack(plain.place(sign * np.ones_like(t), np.zeros_like(t), t)[:2], -1) for sign in (1.0, -1.0)]
        loose = np.linalg.norm(ends[0] - ends[1], axis=-1) * grade(body) / np.pi
        cap = np.sqrt(np.clip(1 - ((t - 0.86) / 0.14 * (t > 0.86)) ** 2, 0.0, 1.0))
        slack = np.clip(2 * (loose - bare), 0.0, 0.05) * ramp(1 - t, 0.0, 0.25)
        outer, inner = (bare + 0.3 * slack) * cap, (bare + 0.7 * slack) * cap
        point = joint + reach[..., None] * down + ((outer - inner) / 2 + (outer + inner) / 2 * cos)[..., None] * across
        point = point + ((outer + inner) / 2 * sin)[..., None] * forward
        return point[..., 0], point[..., 1], point[..., 2]

    elbow = 1 - (rest_elbow(body) - start) / (end - start)
    folds = plain.folds
    if elbow > 0.05:
        own = np.random.default_rng([shape.fold_seed, 1])  # leaves the flat garment's draws alone
        folds = joined_folds(folds, creases(own, (side * 0.53, (elbow - 0.5) * shape.sleeve_length + 0.12), shape))
    return Tube(place, plain.cloth, folds, plain.pleats, plain.calm)


def rest_elbow(body: Body) -> float:
    """Distance from the shoulder joint to the elbow."""
    at = rest_joints(body)
    return float(np.linalg.norm(at["left elbow"] - at["left shoulder"]))
