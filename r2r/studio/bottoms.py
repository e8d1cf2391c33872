"""Trousers, shorts and skirts on a body at rest: from the waist down, around each leg or around both."""

from dataclasses import replace

import numpy as np

from r2r.studio import garments as flat
from r2r.studio.body import Girth, Line, leg_forward, leg_radius, outward
from r2r.studio.garments import TURN, GarmentShape
from r2r.studio.people import Body
from r2r.studio.skeleton import rest_joints
from r2r.studio.surfaces import Grid, Tube, ball, ramp
from r2r.studio.worn import EASE, WAIST, Cloth, Worn, creases, eased, grade, joined_folds, resampled, tube_mesh


def wear_trousers(shape: GarmentShape, body: Body, under: Girth) -> Worn:
    """Trousers or shorts: two tubes that meet in the middle above the crotch, with waistband and button."""
    rng, s = np.random.default_rng(shape.fold_seed), grade(body)
    waist = WAIST * body.stature
    hem = max(waist - shape.length * s, 0.022 * body.stature)
    ease = EASE[shape.category]
    plain = {side: flat.leg_tube(shape, rng, side) for side in (-1, 1)}
    low = resampled(under, float(under.y[0]))
    t = np.clip((low.y - hem) / (waist - hem), 0, 1)[:, None]
    around = 4.1 * s * np.abs(plain[1].place(np.ones_like(t), np.zeros_like(t), t)[0][:, 0])
    sides = eased(low, around, ease, 0.022)
    cloths = []
    band = 1 - 0.04 / shape.length
    for side, region in ((-1, "right trouser"), (1, "left trouser")):
        tube = _leg(shape, body, plain[side], sides, (hem, waist), side)
        knee = (rest_joints(body)["left knee"][1] - hem) / (waist - hem)
        if knee > 0.05:
            centre = (side * 0.13, (float(knee) - 0.5) * shape.length)
            tube = replace(
                tube,
                folds=joined_folds(tube.folds, creases(np.random.default_rng([shape.fold_seed, 1]), centre, shape)),
            )
        cloths.append(Cloth(outward(tube_mesh(tube, 84, 44)), region))
        cloths.append(Cloth(outward(tube.patch(TURN, (band, 1.0), 0.004, "trim", (5, 56))), region))
    reach = 0.052 * body.stature + trouser_radius(shape, body, plain[1], low.y, (hem, waist))
    thigh = low.y < 0.5 * body.stature
    outside = Girth(
        low.y,
        np.where(thigh, np.maximum(sides.half, reach), sides.half) + 0.6 * shape.fold_height,
        sides.front + 0.6 * shape.fold_height,
        sides.back + 0.6 * shape.fold_height,
    )
    point = np.array([0.008, waist - 0.02 * s, float(sides.at(np.array([waist]))[1][0]) + 0.006])
    button = ball((float(point[0]), float(point[1]), float(point[2])), (0.009, 0.009, 0.004))
    cloths.append(Cloth(outward(button), "torso"))
    return Worn(cloths, outside, hem=hem)


def trouser_radius(shape: GarmentShape, body: Body, plain: Tube, y: Line, ends: tuple[float, float]) -> Line:
    """Radius of a trouser leg at heights y."""
    t = np.clip((y - ends[0]) / (ends[1] - ends[0]), 0, 1).reshape(-1, 1)
    outer, inner = (plain.place(sign * np.ones_like(t), np.zeros_like(t), t)[0] for sign in (1.0, -1.0))
    loose = np.abs(outer - inner).reshape(y.shape) * grade(body) / np.pi
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


def wear_skirt(shape: GarmentShape, body: Body, under: Girth) -> Worn:
    """A skirt, hanging from the waist; the pose keeps it outside of the legs (`figure.Columns`)."""
    rng, s = np.random.default_rng(shape.fold_seed), grade(body)
    waist = WAIST * body.stature
    hem = max(waist - shape.length * s, 0.03 * body.stature)
    wide = 0.19 * shape.fit * shape.waist, 0.21 * shape.fit * shape.flare

    def half_width(t: Grid) -> Grid:
        return flat.curve(t, [-0.15, 0.55, 1.0], [wide[1] * 1.05, sum(wide) / 2 + 0.015, wide[0]])

    low = resampled(under, min(hem, float(under.y[0])))
    t = np.clip((low.y - hem) / (waist - hem), 0, 1)[:, None]
    sides = eased(low, 4.3 * s * half_width(t)[:, 0], EASE["skirt"] + 0.006, 0.2)

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        sag = 0.02 * (1 - t) * (cos**2 - 0.4 * (sin > 0))
        y = hem + t * (waist - hem) + sag * s
        half, front, back = sides.at(y)
        return cos * half, y, np.where(sin >= 0, front, back) * sin

    def cloth(angle: Grid, t: Grid) -> tuple[Grid, Grid]:
        return flat.unrolled(angle) * 1.15 * half_width(t), (t - 0.5) * shape.length

    folds = flat.random_folds(rng, 8, (0.0, -0.1), (0.2, shape.length * 0.4), (np.pi / 2, 0.2), shape)
    tube = Tube(place, cloth, folds, flat.pleating(shape, rng, 0.95), lambda t: 1 - ramp(t, 0.85, 0.97))
    band = tube.patch(TURN, (1 - 0.04 / shape.length, 1.0), 0.004, "trim", (6, 88))
    axis = np.array([0.0, (hem + waist) / 2, 0.0])
    cloths = [Cloth(outward(tube_mesh(tube, 64, 120), axis), "torso"), Cloth(outward(band, axis), "torso", 0.004)]
    return Worn(cloths, sides, hem=hem)
