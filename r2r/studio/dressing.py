"""Clothes on a body at rest, cut from the same numbers as the flat garment and with its cloth coordinates.

Every tube runs over the same angle and height as its flat twin (`garments.py`), so a stripe or a print lies at the same
place of the cloth; only where the cloth is in space differs: around the body, no tighter than the cut allows.
"""

from dataclasses import dataclass, replace

import numpy as np

from r2r.studio import garments as flat
from r2r.studio.body import Girth, Line, arm_radius, leg_forward, leg_radius, outward
from r2r.studio.garments import FRONT, TURN, GarmentShape
from r2r.studio.people import Body
from r2r.studio.skeleton import arm_axes, rest_joints, smooth
from r2r.studio.surfaces import Folds, Grid, Part, Tube, ball, ramp
from r2r.studio.wardrobe import Garment

EASE = {
    "t-shirt": 0.010, "shirt": 0.011, "sweater": 0.015, "hoodie": 0.017, "tank top": 0.007, "coat": 0.022,
    "dress": 0.008, "trousers": 0.008, "shorts": 0.009, "skirt": 0.008,
}  # fmt: skip
"""Least distance from skin to cloth in metres."""
GRADE = 1.74
"""Stature that the flat garments fit; others wear them in proportion."""
WAIST = 0.605
"""Height of the waistband as a share of the stature."""


@dataclass(frozen=True)
class Cloth:
    """A part of a garment at rest, the region of the skeleton it moves with, and its distance from others beneath."""

    part: Part
    region: str
    lift: float = 0.0


@dataclass(frozen=True)
class Worn:
    """A garment on the body at rest.

    `outside` is its envelope; skin of an arm below `sleeve` metres from the shoulder and of a leg below `hem` (a height)
    shows, as does the chest within `neck` (half width, lowest height).
    """

    cloths: list[Cloth]
    outside: Girth
    sleeve: float | None = None
    hem: float | None = None
    neck: tuple[float, float] | None = None


def wear(garment: Garment, body: Body, under: Girth, tucked: bool = False) -> Worn:
    """The garment over what is `under` it; a `tucked` top ends inside the waistband."""
    build = {"trousers": _trousers, "shorts": _trousers, "skirt": _skirt}.get(garment.category)
    worn = build(garment.shape, body, under) if build else _top(garment.shape, body, under, tucked)
    cloths = [replace(c, part=replace(c.part, label=garment.label)) for c in worn.cloths]
    return replace(worn, cloths=cloths)


def _grade(body: Body) -> float:
    return body.stature / GRADE


def _eased(under: Girth, around: Line, least: float, most: float) -> Girth:
    """The sections of cloth of circumference `around`, at least `least` and at most `most` outside of `under`."""
    ease = np.clip((around - under.around) / (2 * np.pi), least, most)
    kernel = np.hanning(15) / np.hanning(15).sum()
    return under.grown(np.maximum(np.convolve(np.pad(ease, 7, mode="edge"), kernel, mode="valid"), least))


def _resampled(girth: Girth, low: float) -> Girth:
    """The same sections from the height `low` (below the crotch: those of the crotch) upwards."""
    y = np.linspace(low, girth.y[-1], 300)
    return Girth(y, *girth.at(y))


def _shoulder_line(body: Body, ease: float, sleeved: bool) -> tuple[Line, Line]:
    """Height of the cloth over the shoulders by distance from the middle: (x rising, y falling)."""
    girth, joint = _body_girth(body), rest_joints(body)["left shoulder"]
    upper = girth.y > 0.768 * body.stature
    x = np.linspace(0.03 * body.stature, joint[0] + 0.027 * body.stature, 200)
    order = np.argsort(girth.half[upper])
    y = np.interp(x, girth.half[upper][order], girth.y[upper][order], right=0.76 * body.stature)
    if sleeved:
        radius = float(arm_radius(body, np.array(0.01 * body.stature)))
        y = np.maximum(
            y, joint[1] + np.sqrt(np.maximum(radius**2 - (x - joint[0]) ** 2, 0)) - 1.0 * (x < joint[0] - radius)
        )
    y = np.maximum.accumulate(y[::-1])[::-1] + ease - 1e-4 * np.arange(len(x))
    return x, y


def _body_girth(body: Body) -> Girth:
    from r2r.studio.body import torso_girth

    return torso_girth(body)


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

    def over(self, x: Grid) -> Grid:
        """Height of the shoulder line at a distance from the middle."""
        return np.interp(x, *self.line)

    def half(self, y: Grid) -> Grid:
        """Half width of the silhouette: the sides, and above the shoulders' tips the shoulder line."""
        top = float(self.over(np.array(self.tip)))
        sides = self.sides.at(y)[0]
        blend = ramp(y, top - 0.13, top)
        return np.where(y < top, sides * (1 - blend) + self.tip * blend, np.interp(-y, -self.line[1], self.line[0]))

    def place(self, cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        """x, y, z at rest of the flat torso's point (angle, t)."""
        one = np.ones_like(t)
        level = self.flat.place(cos, sin, t)[1]
        shoulder = self.flat.place(cos, sin, one)[1]
        high = float(self.over(np.array(self.neck)))
        scale = (high - self.hem) / self.shape.length
        across = np.abs(cos) * self.tip
        mend = np.where(across >= self.neck, self.over(across) - (high - scale * (self.shape.length - shoulder)), 0.0)
        y = high - scale * (self.shape.length - level) + mend * t**2
        side = self.hem + t * (float(self.over(np.array(self.tip))) - self.hem)
        x = cos * self.half(side)
        _, front, back = self.sides.at(y)
        inside = np.sqrt(np.maximum(1 - (x / np.maximum(self.half(y), np.abs(x) + 1e-9)) ** 2, 0))
        return x, y, np.where(sin >= 0, front, -back) * inside


def _top(shape: GarmentShape, body: Body, under: Girth, tucked: bool) -> Worn:
    rng = np.random.default_rng(shape.fold_seed)
    plain = flat._torso(shape, rng)
    s, sleeved, ease = _grade(body), shape.sleeve_length > 0, EASE[shape.category]
    line = _shoulder_line(body, ease, sleeved)
    joint = float(rest_joints(body)["left shoulder"][0])
    width = float(plain.place(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))[0][0, 0]) * s
    tip = min(width, joint + (0.024 if sleeved else -0.004) * body.stature)
    high = float(np.interp(shape.neck_width * tip / (width / s), *line))
    hem = min(high - shape.length * s, (WAIST - 0.045) * body.stature)
    low = _resampled(under, min(hem, float(under.y[0])))
    t = np.clip((low.y - hem) / (float(np.interp(tip, *line)) - hem), 0, 1)[:, None]
    around = 4.3 * s * plain.place(np.ones_like(t), np.zeros_like(t), t)[0][:, 0]
    most = 0.3 if shape.category in ("dress", "coat") else 0.06
    sides = _eased(low, around, ease, most)
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
    )


def _sizes(girth: Girth) -> tuple[Line, Line, Line]:
    return girth.half, girth.front, girth.back


def _mesh(tube: Tube, rows: int, cols: int, dense_top: float = 1.0) -> Part:
    """The whole tube; rows crowd towards its upper end as `dense_top` grows."""
    from r2r.studio.surfaces import grid_part

    angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)
    t = 1 - (1 - np.linspace(0, 1, rows)) ** dense_top
    grid = np.broadcast_arrays(angle[None, :], t[:, None])
    return grid_part(*tube.points(grid[0], grid[1]), closed=True, material="fabric")


def _cloths(
    shape: GarmentShape, torso: Tube, sleeves: dict[int, Tube], bodice: Bodice, cut: float | None
) -> list[Cloth]:
    """Body, sleeves and what is sewn on; `cut` is the height below which a tucked top is not seen."""
    axis = np.array([0.0, (bodice.hem + bodice.over(np.array(bodice.tip))) / 2, 0.0])
    arms = {1: "left arm", -1: "right arm"}
    parts = [(_mesh(torso, 90, 88, 1.25), 0.0)]
    half = np.arcsin(min(shape.neck_width / bodice.shoulder, 1.0))
    cloths = []
    if shape.category in ("shirt", "coat"):
        sewn = flat._shirt_details(torso, [])
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
        cloths.append(Cloth(outward(part, axis), "torso", lift))
    if cut is not None:
        cloths = [_trimmed(cloth, cut) for cloth in cloths]
    for side, sleeve in sleeves.items():
        cloths.append(Cloth(outward(_mesh(sleeve, 48, 32)), arms[side]))
        wide = 0.1 if shape.category in ("shirt", "coat") else 0.05
        cuff = sleeve.patch(TURN, (0.0, wide), 0.003, "fabric" if wide > 0.05 else "trim", (5, 32))
        cloths.append(Cloth(outward(cuff), arms[side]))
    return cloths


def _trimmed(cloth: Cloth, cut: float) -> Cloth:
    part = cloth.part
    keep = (part.vertices[:, 1][part.faces] > cut).all(1)
    return replace(cloth, part=replace(part, faces=part.faces[keep]))


def _hood(bodice: Bodice) -> Part:
    y = float(bodice.over(np.array(bodice.neck)))
    back = float(bodice.sides.at(np.array(y - 0.03))[2])
    return ball((0.0, y - 0.035, -back - 0.012), (0.105, 0.075, 0.042), "trim")


def _reach(shape: GarmentShape, body: Body) -> float:
    """Where the sleeve ends, in metres from the shoulder joint."""
    return min(0.006 * body.stature + shape.sleeve_length * _grade(body), 0.328 * body.stature)


def _sleeve(shape: GarmentShape, body: Body, rng: np.random.Generator, side: int) -> Tube:
    plain, ease = flat._sleeve(shape, rng, side), EASE[shape.category]
    down, across = arm_axes(side)
    forward = np.array([0.0, 0.0, 1.0])
    joint = (
        rest_joints(body)["left" if side == 1 else "right"]
        if False
        else rest_joints(body)["left shoulder" if side == 1 else "right shoulder"]
    )
    start, end = -0.012 * body.stature, _reach(shape, body)

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        reach = start + (1 - t) * (end - start)
        bare = arm_radius(body, reach) + ease
        ends = [np.stack(plain.place(sign * np.ones_like(t), np.zeros_like(t), t)[:2], -1) for sign in (1.0, -1.0)]
        loose = np.linalg.norm(ends[0] - ends[1], axis=-1) * _grade(body) / np.pi
        cap = np.sqrt(np.clip(1 - ((t - 0.86) / 0.14 * (t > 0.86)) ** 2, 0.0, 1.0))
        slack = np.clip(2 * (loose - bare), 0.0, 0.05) * ramp(1 - t, 0.0, 0.25)
        outer, inner = (bare + 0.3 * slack) * cap, (bare + 0.7 * slack) * cap
        point = joint + reach[..., None] * down + ((outer - inner) / 2 + (outer + inner) / 2 * cos)[..., None] * across
        point = point + ((outer + inner) / 2 * sin)[..., None] * forward
        return point[..., 0], point[..., 1], point[..., 2]

    elbow = 1 - (rest_elbow(body) - start) / (end - start)
    folds = plain.folds
    if elbow > 0.05:
        folds = _joined(folds, _creases(rng, (side * 0.53, (elbow - 0.5) * shape.sleeve_length + 0.12), shape))
    return Tube(place, plain.cloth, folds, plain.pleats, plain.calm)


def rest_elbow(body: Body) -> float:
    """Distance from the shoulder joint to the elbow."""
    at = rest_joints(body)
    return float(np.linalg.norm(at["left elbow"] - at["left shoulder"]))


def _creases(rng: np.random.Generator, centre: tuple[float, float], shape: GarmentShape, count: int = 5) -> Folds:
    """Folds across a limb where it bends."""
    size = rng.uniform(0.010, 0.018, count)
    return Folds(
        centre=np.stack([centre[0] + rng.normal(0, 0.03, count), centre[1] + np.linspace(-0.05, 0.05, count)], 1),
        angle=rng.normal(0, 0.25, count),
        width=size,
        length=rng.uniform(0.03, 0.07, count),
        height=0.7 * shape.fold_height * rng.uniform(0.6, 1.2, count),
    )


def _joined(*folds: Folds) -> Folds:
    names = ("centre", "angle", "width", "length", "height")
    return Folds(*(np.concatenate([getattr(fold, name) for fold in folds]) for name in names))


def _trousers(shape: GarmentShape, body: Body, under: Girth) -> Worn:
    rng, s = np.random.default_rng(shape.fold_seed), _grade(body)
    waist = WAIST * body.stature
    hem = max(waist - shape.length * s, 0.022 * body.stature)
    ease = EASE[shape.category]
    plain = {side: flat._leg(shape, rng, side) for side in (-1, 1)}
    low = _resampled(under, float(under.y[0]))
    t = np.clip((low.y - hem) / (waist - hem), 0, 1)[:, None]
    around = 4.1 * s * np.abs(plain[1].place(np.ones_like(t), np.zeros_like(t), t)[0][:, 0])
    sides = _eased(low, around, ease, 0.022)
    cloths = []
    band = 1 - 0.04 / shape.length
    for side, region in ((-1, "right trouser"), (1, "left trouser")):
        tube = _leg(shape, body, plain[side], sides, (hem, waist), side)
        knee = (rest_joints(body)["left knee"][1] - hem) / (waist - hem)
        if knee > 0.05:
            centre = (side * 0.13, (float(knee) - 0.5) * shape.length)
            tube = replace(tube, folds=_joined(tube.folds, _creases(rng, centre, shape)))
        cloths.append(Cloth(outward(_mesh(tube, 84, 44)), region))
        cloths.append(Cloth(outward(tube.patch(TURN, (band, 1.0), 0.004, "trim", (5, 56))), region))
    point = np.array([0.008, waist - 0.02 * s, float(sides.at(np.array(waist))[1]) + 0.006])
    button = ball((float(point[0]), float(point[1]), float(point[2])), (0.009, 0.009, 0.004))
    cloths.append(Cloth(outward(button), "torso"))
    return Worn(cloths, sides, hem=hem)


def trouser_radius(shape: GarmentShape, body: Body, plain: Tube, y: Grid, ends: tuple[float, float]) -> Grid:
    """Radius of a trouser leg at heights y."""
    t = np.clip((y - ends[0]) / (ends[1] - ends[0]), 0, 1)
    outer, inner = (plain.place(sign * np.ones_like(t), np.zeros_like(t), t)[0] for sign in (1.0, -1.0))
    loose = np.abs(outer - inner) * _grade(body) / np.pi
    return np.maximum(np.minimum(loose, 0.068 * body.stature), leg_radius(body, y) + EASE[shape.category])


def _leg(shape: GarmentShape, body: Body, plain: Tube, sides: Girth, ends: tuple[float, float], side: int) -> Tube:
    crotch, axis = 0.462 * body.stature, 0.052 * body.stature

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        y = ends[0] + t * (ends[1] - ends[0])
        radius = trouser_radius(shape, body, plain, y, ends)
        half, front, back = sides.at(y)
        joined = ramp(y, crotch - 0.01, crotch + 0.075)
        mix = (1 + cos) / 2
        hips = np.where(sin >= 0, front, -back) * np.sqrt(np.maximum(1 - mix**2, 0))
        x = joined * half * mix + (1 - joined) * (axis + radius * cos)
        z = joined * hips + (1 - joined) * (leg_forward(body, y) + radius * sin)
        return side * x, y, z

    calm = lambda t: 1 - ramp(t, 0.88, 0.97)  # noqa: E731
    return Tube(place, plain.cloth, plain.folds, plain.pleats, calm)


def _skirt(shape: GarmentShape, body: Body, under: Girth) -> Worn:
    rng, s = np.random.default_rng(shape.fold_seed), _grade(body)
    waist, hem = WAIST * body.stature, 0.0
    hem = max(waist - shape.length * s, 0.03 * body.stature)
    wide = 0.19 * shape.fit * shape.waist, 0.21 * shape.fit * shape.flare

    def half_width(t: Grid) -> Grid:
        return flat.curve(t, [-0.15, 0.55, 1.0], [wide[1] * 1.05, sum(wide) / 2 + 0.015, wide[0]])

    low = _resampled(under, min(hem, float(under.y[0])))
    t = np.clip((low.y - hem) / (waist - hem), 0, 1)
    sides = _eased(low, 4.3 * s * half_width(t), EASE["skirt"] + 0.006, 0.2)

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        sag = 0.02 * (1 - t) * (cos**2 - 0.4 * (sin > 0))
        y = hem + t * (waist - hem) + sag * s
        half, front, back = sides.at(y)
        return cos * half, y, np.where(sin >= 0, front, back) * sin

    def cloth(angle: Grid, t: Grid) -> tuple[Grid, Grid]:
        return flat._unrolled(angle) * 1.15 * half_width(t), (t - 0.5) * shape.length

    folds = flat._folds(rng, 8, (0.0, -0.1), (0.2, shape.length * 0.4), (np.pi / 2, 0.2), shape)
    tube = Tube(place, cloth, folds, flat._pleats(shape, rng, 0.95), lambda t: 1 - ramp(t, 0.85, 0.97))
    band = tube.patch(TURN, (1 - 0.04 / shape.length, 1.0), 0.004, "trim", (6, 88))
    axis = np.array([0.0, (hem + waist) / 2, 0.0])
    cloths = [Cloth(outward(_mesh(tube, 64, 120), axis), "torso"), Cloth(outward(band, axis), "torso", 0.004)]
    return Worn(cloths, sides, hem=hem)
