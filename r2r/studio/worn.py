"""What all clothes on a body at rest share: their parts, how far they stand off, and what is hidden."""

from dataclasses import dataclass, replace

import numpy as np

from r2r.studio.body import Girth, Line
from r2r.studio.garments import GarmentShape
from r2r.studio.people import Body
from r2r.studio.surfaces import Folds, Part, Tube, grid_part, ramp

EASE = {
    "t-shirt": 0.010, "shirt": 0.011, "sweater": 0.015, "hoodie": 0.017, "tank top": 0.009, "coat": 0.022,
    "dress": 0.009, "trousers": 0.008, "shorts": 0.009, "skirt": 0.008,
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

    `outside` is its envelope. Skin shows on an arm beyond `sleeve` metres from the shoulder, on a leg below the height
    `hem`, on the chest within `neck` (half width, lowest height). `end` is the hem of a top that hangs over the waist.
    """

    cloths: list[Cloth]
    outside: Girth
    sleeve: float | None = None
    hem: float | None = None
    neck: tuple[float, float] | None = None
    end: float | None = None


def grade(body: Body) -> float:
    """How much larger than the flat garment the worn one is."""
    return body.stature / GRADE


def eased(under: Girth, around: Line, least: Line | float, most: float) -> Girth:
    """The sections of cloth of circumference `around`, at least `least` and at most `most` outside of `under`."""
    ease = np.clip((around - under.around) / (2 * np.pi), least, most)
    kernel = np.hanning(15) / np.hanning(15).sum()
    return under.grown(np.maximum(np.convolve(np.pad(ease, 7, mode="edge"), kernel, mode="valid"), least))


def resampled(girth: Girth, low: float) -> Girth:
    """The same sections from the height `low` (below the crotch: those of the crotch) upwards."""
    y = np.linspace(low, girth.y[-1], 300)
    return Girth(y, *girth.at(y))


def trimmed(cloth: Cloth, low: float, high: float = np.inf) -> Cloth:
    """Without the faces outside of these heights."""
    part = cloth.part
    y = part.vertices[:, 1][part.faces]
    return replace(cloth, part=replace(part, faces=part.faces[((y > low) & (y < high)).all(1)]))


def hidden_above(worn: Worn, hem: float) -> Worn:
    """Drawn in at the hem of the garment over it, and without what that hides."""
    cloths = [_squeezed(trimmed(cloth, -np.inf, hem + 0.07), hem) for cloth in worn.cloths]
    return replace(worn, cloths=[cloth for cloth in cloths if len(cloth.part.faces)])


def _squeezed(cloth: Cloth, hem: float) -> Cloth:
    points = cloth.part.vertices
    narrow = 1 - 0.07 * ramp(points[:, 1:2], hem - 0.01, hem + 0.05)
    return replace(
        cloth, part=replace(cloth.part, vertices=points * np.concatenate([narrow, 0 * narrow + 1, narrow], 1))
    )


def tube_mesh(tube: Tube, rows: int, cols: int, dense_top: float = 1.0) -> Part:
    """The whole tube; rows crowd towards its upper end as `dense_top` grows."""
    angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)
    t = 1 - (1 - np.linspace(0, 1, rows)) ** dense_top
    grid = np.broadcast_arrays(angle[None, :], t[:, None])
    return grid_part(*tube.points(grid[0], grid[1]), closed=True, material="fabric")


def creases(rng: np.random.Generator, centre: tuple[float, float], shape: GarmentShape, count: int = 5) -> Folds:
    """Folds across a limb where it bends."""
    size = rng.uniform(0.010, 0.018, count)
    return Folds(
        centre=np.stack([centre[0] + rng.normal(0, 0.03, count), centre[1] + np.linspace(-0.05, 0.05, count)], 1),
        angle=rng.normal(0, 0.25, count),
        width=size,
        length=rng.uniform(0.03, 0.07, count),
        height=0.7 * shape.fold_height * rng.uniform(0.6, 1.2, count),
    )


def joined_folds(*folds: Folds) -> Folds:
    """All of them."""
    names = ("centre", "angle", "width", "length", "height")
    return Folds(*(np.concatenate([getattr(fold, name) for fold in folds]) for name in names))
