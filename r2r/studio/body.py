"""The size and the skin of a body at rest: torso, limbs, hands and shoes as lofted tubes around the bones.

Lengths in metres, in the frame of `skeleton.py`. Tables hold shares of the stature, for feminine and masculine builds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from r2r.studio.people import Body
from r2r.studio.skeleton import FOREARM, UPPER_ARM, arm_axes, rest_joints
from r2r.studio.surfaces import Part, grid_part

Line = Float[np.ndarray, "..."]
Ring = Float[np.ndarray, "rows cols 3"]

# height, then half width, front and back (feminine), half width, front and back (masculine)
TORSO = np.array([
    (0.440, 0.098, 0.050, 0.058, 0.092, 0.050, 0.056), (0.480, 0.105, 0.054, 0.068, 0.096, 0.054, 0.063),
    (0.515, 0.105, 0.055, 0.070, 0.097, 0.056, 0.064), (0.570, 0.094, 0.056, 0.058, 0.091, 0.058, 0.056),
    (0.617, 0.076, 0.053, 0.047, 0.085, 0.058, 0.050), (0.680, 0.081, 0.060, 0.052, 0.091, 0.062, 0.055),
    (0.730, 0.088, 0.074, 0.057, 0.099, 0.066, 0.061), (0.768, 0.092, 0.064, 0.059, 0.104, 0.062, 0.062),
    (0.793, 0.096, 0.050, 0.056, 0.106, 0.052, 0.060), (0.806, 0.094, 0.042, 0.051, 0.103, 0.044, 0.056),
    (0.816, 0.084, 0.037, 0.046, 0.092, 0.040, 0.051), (0.826, 0.068, 0.033, 0.042, 0.075, 0.037, 0.047),
    (0.837, 0.050, 0.030, 0.037, 0.056, 0.034, 0.042), (0.848, 0.037, 0.029, 0.033, 0.043, 0.034, 0.037),
    (0.862, 0.031, 0.030, 0.029, 0.036, 0.035, 0.033), (0.905, 0.030, 0.036, 0.026, 0.035, 0.038, 0.030),
])  # fmt: skip
# distance from the shoulder along the arm, radius
ARM = np.array([
    (-0.0245, 0.002), (-0.021, 0.013), (-0.012, 0.0212), (0.004, 0.0258), (0.03, 0.0275), (0.06, 0.0270), (0.1, 0.0250),
    (0.15, 0.0225), (0.172, 0.0220), (0.2, 0.0232), (0.22, 0.0226), (0.26, 0.0188), (0.3, 0.0155), (0.32, 0.0147),
    (0.335, 0.0145),
])  # fmt: skip
# height, radius, how far forward
LEG = np.array([
    (0.03, 0.0190, -0.006), (0.06, 0.0172, -0.006), (0.09, 0.0180, -0.006), (0.13, 0.0230, -0.009),
    (0.19, 0.0318, -0.011), (0.225, 0.0312, -0.009), (0.26, 0.0285, -0.001), (0.285, 0.0298, 0.003),
    (0.32, 0.0335, 0.002), (0.38, 0.0420, 0.0), (0.44, 0.0490, 0.0), (0.475, 0.0515, -0.002), (0.52, 0.0515, -0.004),
])  # fmt: skip


def spline(x: Line, knots: Line, values: Line) -> Line:
    """A smooth curve through the knots (cubic Hermite with centred slopes), constant outside."""
    x = np.clip(x, knots[0], knots[-1])
    slope = np.gradient(values, knots)
    i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    step = knots[i + 1] - knots[i]
    t = (x - knots[i]) / step
    rise = values[i + 1] - values[i]
    cubic = slope[i] * step * t * (1 - t) ** 2 - slope[i + 1] * step * t**2 * (1 - t)
    return values[i] + rise * t * t * (3 - 2 * t) + cubic


@dataclass(frozen=True)
class Girth:
    """Horizontal sections of something around the torso: half width, front and back at rising heights `y`."""

    y: Line
    half: Line
    front: Line
    back: Line

    def at(self, y: Line) -> tuple[Line, Line, Line]:
        """Half width, front and back (both positive) at heights y."""
        return np.interp(y, self.y, self.half), np.interp(y, self.y, self.front), np.interp(y, self.y, self.back)

    def grown(self, ease: Line) -> "Girth":
        """Wider by `ease` at every height, all around."""
        return Girth(self.y, self.half + ease, self.front + ease, self.back + ease)

    @property
    def around(self) -> Line:
        """Circumference of every section (Ramanujan, for the mean depth)."""
        a, b = self.half, (self.front + self.back) / 2
        return np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b)))


def torso_girth(body: Body) -> Girth:
    """The body's own sections, from the crotch to the top of the neck."""
    mix = (body.build + 1) / 2
    y, table = TORSO[:, 0], (1 - mix) * TORSO[:, 1:4] + mix * TORSO[:, 4:7]
    bump = {name: np.exp(-(((y - at) / 0.05) ** 2)) for name, at in (("hips", 0.5), ("waist", 0.63), ("chest", 0.76))}
    wide = (
        1 + 0.05 * body.hips * bump["hips"] + 0.05 * body.waist * bump["waist"] + 0.04 * body.shoulders * bump["chest"]
    )
    soft = np.exp(-(((y - 0.6) / 0.1) ** 2))
    fat = 1 + 0.07 * body.girth * (0.4 + 0.6 * soft)
    table = table * wide[:, None] * fat[:, None]
    table[:, 1] *= 1 + 0.1 * max(body.girth, 0.0) * soft
    fine = np.linspace(y[0], y[-1], 320)
    half, front, back = (spline(fine, y, table[:, i]) * body.stature for i in range(3))
    return Girth(fine * body.stature, half, front, back)


def arm_radius(body: Body, distance: Line) -> Line:
    """Radius of the arm at a distance from the shoulder joint."""
    size = body.stature * (0.97 + 0.07 * body.build + 0.06 * body.girth)
    return spline(distance / body.stature, ARM[:, 0], ARM[:, 1]) * size


def leg_radius(body: Body, y: Line) -> Line:
    """Radius of the leg at a height."""
    size = body.stature * (1.0 - 0.01 * body.build + 0.05 * body.girth)
    return spline(y / body.stature, LEG[:, 0], LEG[:, 1]) * size


def leg_forward(body: Body, y: Line) -> Line:
    """How far in front of the hip joint the middle of the leg is at a height."""
    return spline(y / body.stature, LEG[:, 0], LEG[:, 2]) * body.stature


def solid(rings: Ring, material: str, label: str) -> Part:
    """A tube of closed rings as a mesh of one colour whose faces look outwards."""
    zero = np.zeros(rings.shape[:2])
    part = grid_part(rings, zero, zero, closed=True, material=material)
    return outward(Part(part.vertices, part.faces, part.uv, material, label))


def outward(part: Part, centre: Float[np.ndarray, "3"] | None = None) -> Part:
    """The part with its faces turned away from `centre` (its middle), as most of its area asks."""
    corners = (part.vertices - (part.vertices.mean(0) if centre is None else centre))[part.faces]
    volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    faces = part.faces if volume >= 0 else part.faces[:, ::-1]
    return Part(part.vertices, faces, part.uv, part.material, part.label, part.garment)


def sections(y: Line, girth: Girth, cols: int) -> Ring:
    """Closed rings around the torso, one per height."""
    half, front, back = (size[:, None] for size in girth.at(y))
    angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)[None, :]
    z = np.where(np.sin(angle) >= 0, front, back) * np.sin(angle)
    return np.stack(np.broadcast_arrays(half * np.cos(angle), y[:, None], z), -1)


def torso_skin(body: Body, low: float) -> Part:
    """Chest, shoulders and neck above the height `low`."""
    y = np.linspace(low, 0.905 * body.stature, 56)
    return solid(sections(y, torso_girth(body), 48), "skin", "face")


def arm_skin(body: Body, name: str, start: float) -> Part:
    """The arm from `start` (metres beyond the shoulder joint) to the wrist, rounded at the shoulder."""
    side = 1 if name == "left" else -1
    down, across = arm_axes(side)
    reach = np.linspace(max(start, -0.026 * body.stature), 0.328 * body.stature, 40)
    radius = arm_radius(body, reach)[:, None]
    flat = 1 - 0.22 * np.clip((reach / body.stature - 0.24) / 0.08, 0, 1)[:, None]
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None, :]
    rings = rest_joints(body)[f"{name} shoulder"] + reach[:, None, None] * down
    rings = rings + (radius * flat * np.cos(angle))[..., None] * across
    rings = rings + (radius * np.sin(angle))[..., None] * np.array([0.0, 0.0, 1.0])
    return solid(rings, "skin", f"{name}-arm")


def hand(body: Body, name: str) -> list[Part]:
    """Palm, four fingers and a thumb; at rest the palm looks at the body, the thumb forwards."""
    side = 1 if name == "left" else -1
    down, across = arm_axes(side)
    size = body.stature * (1.0 + 0.05 * body.build)
    frame = np.stack([down, across, np.array([0.0, 0.0, 1.0])])
    wrist = rest_joints(body)[f"{name} shoulder"] + (UPPER_ARM + FOREARM) * body.stature * down

    def tube(path: np.ndarray, radii: np.ndarray, cols: int) -> Part:
        """Rings across the path (along, across, forwards), of two half axes each, all as shares of the hand's size."""
        angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)
        ring = np.stack([np.zeros_like(angle), np.cos(angle), np.sin(angle)], -1)
        local = path[:, None, :] + ring[None] * np.concatenate([0 * radii[:, :1], radii], 1)[:, None, :]
        return solid(wrist + size * local @ frame, "skin", f"{name}-arm")

    t = np.array([-0.01, 0.004, 0.018, 0.032, 0.046, 0.055, 0.0565])
    palm = np.array([0.0125, 0.0118, 0.0115, 0.0105, 0.009, 0.006, 0.0])
    width = np.array([0.0148, 0.0158, 0.0195, 0.0232, 0.0235, 0.021, 0.0])
    parts = [tube(np.stack([t, 0 * t, 0.001 + 0 * t], 1), np.stack([palm, width], 1), 14)]
    curl = np.linspace(0, 1, 8)
    slim = np.array([0.92, 1.0, 0.97, 0.94, 0.9, 0.85, 0.62, 0.0])
    for forward, reach, thick in (
        (0.0165, 0.040, 0.0056),
        (0.0055, 0.046, 0.0058),
        (-0.0055, 0.043, 0.0056),
        (-0.016, 0.034, 0.005),
    ):
        path = np.stack([0.046 + reach * curl, -0.016 * curl**2, forward * (1 + 0.1 * curl)], 1)
        parts.append(tube(path, thick * slim[:, None] * np.array([1.0, 1.0]), 8))
    path = np.stack([0.012 + 0.042 * curl, -0.004 - 0.012 * curl, 0.012 + 0.026 * curl - 0.01 * curl**2], 1)
    parts.append(tube(path, 0.0068 * slim[:, None] * np.array([1.0, 1.1]), 8))
    return parts


def leg_skin(body: Body, name: str, top: float) -> Part:
    """The leg from the ankle up to the height `top`."""
    y = np.linspace(0.03 * body.stature, top, max(int(70 * top / body.stature / 0.5), 8))
    return solid(leg_rings(body, name, y, leg_radius(body, y), 28), "skin", f"{name}-leg")


def leg_rings(body: Body, name: str, y: Line, radius: Line, cols: int) -> Ring:
    """Round sections of the given radii around the leg."""
    side = 1 if name == "left" else -1
    angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)[None, :]
    x = side * 0.052 * body.stature + radius[:, None] * np.cos(angle)
    z = leg_forward(body, y)[:, None] + radius[:, None] * np.sin(angle)
    return np.stack(np.broadcast_arrays(x, y[:, None], z), -1)


def shoe(body: Body, name: str) -> list[Part]:
    """A sneaker, flat or ankle boot with its sole."""
    side, s = (1 if name == "left" else -1), body.stature
    z = np.array([-0.047, -0.045, -0.036, -0.02, 0.0, 0.02, 0.04, 0.06, 0.08, 0.094, 0.103, 0.107, 0.1075])
    width = np.array([0.0, 0.012, 0.0185, 0.0205, 0.0205, 0.0215, 0.0245, 0.0275, 0.027, 0.022, 0.014, 0.006, 0.0])
    tall = np.array([0.02, 0.035, 0.042, 0.045, 0.045, 0.045, 0.038, 0.031, 0.026, 0.0225, 0.019, 0.015, 0.012])
    fine = np.linspace(0, 1, 40)
    knot = np.linspace(0, 1, len(z))
    z, width, tall = (spline(fine, knot, line) * s for line in (z, width, tall))
    if body.shoe_kind == "flat":
        tall = np.minimum(tall, (0.03 - 0.12 * np.clip(z / s, 0, 0.09)) * s)
    sole = 0.010 * s if body.shoe_kind == "sneaker" else 0.007 * s
    label = f"{name}-shoe"
    middle = side * (0.052 + 0.004 * np.clip((z / s + 0.02) / 0.1, 0, 1)) * s
    parts = [
        _last(z, width, np.maximum(tall, sole * 1.3), 0.0, middle, "shoe", label),
        _last(z * 1.02, width * 1.06 + 0.001, np.full_like(z, sole), 0.0, middle, "sole", label, square=True),
    ]
    if body.shoe_kind == "flat":
        return parts
    top = 0.07 if body.shoe_kind == "sneaker" else 0.125
    y = np.concatenate([np.linspace(0.02, top, 10), [top, top - 0.01]]) * s
    ease = np.concatenate([np.full(10, 0.006), [0.001, 0.0]]) * s
    return [*parts, solid(leg_rings(body, name, y, leg_radius(body, y) + ease, 24), "shoe", label)]


def _last(
    z: Line, width: Line, tall: Line, low: float, middle: Line, material: str, label: str, square: bool = False
) -> Part:
    """Rings across the foot, from heel to toe: flat below, round (or `square`) above."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None, :]
    power = 0.35 if square else 0.75
    x = width[:, None] * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    y = low + tall[:, None] * (0.35 + np.where(up >= 0, 0.65 * up, 0.35 * up))
    return solid(np.stack(np.broadcast_arrays(middle[:, None] + x, y, z[:, None]), -1), material, label)
