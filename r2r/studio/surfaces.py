"""Lofted cloth surfaces: elliptical cross-sections between two silhouette curves, with folds.

Everything is numpy. A `Tube` is a closed ring of angles (front: 0..pi, back: pi..2 pi) swept from its lower end
(`t = 0`) to its upper end (`t = 1`); bands, plackets and pockets are patches of the same surface, lifted a little.
Lengths are metres, x to the right, y up, z towards the camera.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

ATLAS_METRES = 1.6
"""Side of the square cloth area that one texture image covers; uv (0.5, 0.5) is its centre."""

Grid = Float[np.ndarray, "rows cols"]


@dataclass(frozen=True)
class Part:
    """One triangle mesh; uv lies in [0, 1].

    `material` is "fabric", "trim" or "button" of the scene's garment number `garment`, or a solid of the person
    ("skin", "hair"); `label` is the name of its region in `r2r.parsing.ATR_18`.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "v 2"]
    material: str
    label: str = "background"
    garment: int = 0


@dataclass(frozen=True)
class Folds:
    """Soft creases in cloth coordinates (metres): each a ridge along a line, windowed along its length."""

    centre: Float[np.ndarray, "n 2"]
    angle: Float[np.ndarray, " n"]
    width: Float[np.ndarray, " n"]
    length: Float[np.ndarray, " n"]
    height: Float[np.ndarray, " n"]

    def __call__(self, x: Grid, y: Grid) -> Grid:
        """Outward displacement in metres at cloth points (x, y)."""
        total = np.zeros_like(x)
        for (cx, cy), angle, width, length, height in zip(
            self.centre, self.angle, self.width, self.length, self.height, strict=True
        ):
            along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            across = across + 0.25 * width * np.sin(2.5 * along / length + 40 * cx)
            ridge = (1 - (across / width) ** 2) * np.exp(-0.5 * (across / width) ** 2)
            total += height * ridge * np.exp(-0.5 * (along / length) ** 2)
        return total


@dataclass(frozen=True)
class Tube:
    """A closed lofted surface.

    `place(cos, sin, t)` gives x, y, z of the undisplaced surface; `cloth(angle, t)` the cloth coordinates in metres;
    `pleats(angle, t)` and `folds`, faded by `calm(t)`, push outwards.
    """

    place: Callable[[Grid, Grid, Grid], tuple[Grid, Grid, Grid]]
    cloth: Callable[[Grid, Grid], tuple[Grid, Grid]]
    folds: Folds
    pleats: Callable[[Grid, Grid], Grid]
    calm: Callable[[Grid], Grid] = np.ones_like

    def points(self, angle: Grid, t: Grid, lift: float = 0.0) -> tuple[Float[np.ndarray, "rows cols 3"], Grid, Grid]:
        """Displaced points and their cloth coordinates on a grid of angles (radians) and heights t."""
        x, y = self.cloth(angle, t)
        front = np.sin(angle) >= 0
        out = self.pleats(angle, t) + self.folds(x, np.where(front, y, y + 0.31)) * self.calm(t) + lift
        base = np.stack(self.place(np.cos(angle), np.sin(angle), t), -1)
        return base + out[..., None] * self._outward(angle, t), x, y

    def _outward(self, angle: Grid, t: Grid) -> Float[np.ndarray, "rows cols 3"]:
        """Unit normals of the smooth surface by central differences; t is kept inside the open interval."""
        step = 1e-3
        t = np.clip(t, 2 * step, 1 - 0.03)
        around = [np.stack(self.place(np.cos(a), np.sin(a), t), -1) for a in (angle - step, angle + step)]
        upward = [np.stack(self.place(np.cos(angle), np.sin(angle), s), -1) for s in (t - step, t + step)]
        normal = np.cross(around[1] - around[0], upward[1] - upward[0])
        normal *= np.where((np.sin(angle) >= 0) == (normal[..., 2] >= 0), 1.0, -1.0)[..., None]
        return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)

    def mesh(self, rows: int = 72, cols: int = 96) -> Part:
        """The whole tube as a mesh that closes around (its two ends stay open)."""
        angle = np.linspace(0, 2 * np.pi, cols, endpoint=False)
        grid = np.broadcast_arrays(angle[None, :], np.linspace(0, 1, rows)[:, None])
        return grid_part(*self.points(grid[0], grid[1]), closed=True, material="fabric")

    def patch(
        self,
        angles: tuple[float, float],
        heights: tuple[float, float],
        lift: float,
        material: str = "trim",
        size: tuple[int, int] = (12, 24),
    ) -> Part:
        """A lifted piece of the surface: a band (`angles` a full turn), placket, pocket or hem."""
        rows, cols = size
        closed = bool(abs(angles[1] - angles[0]) > 6.28)
        angle = np.linspace(*angles, cols, endpoint=not closed)[None, :]
        grid_angle, grid_t = np.broadcast_arrays(angle, np.linspace(*heights, rows)[:, None])
        return grid_part(*self.points(grid_angle, grid_t, lift), closed=closed, material=material)


def grid_part(points: Float[np.ndarray, "rows cols 3"], x: Grid, y: Grid, closed: bool, material: str) -> Part:
    """Triangles between neighbouring grid points; (x, y) are their cloth coordinates in metres."""
    rows, cols = x.shape
    index = np.arange(rows * cols).reshape(rows, cols)
    right = np.roll(index, -1, axis=1) if closed else index[:, 1:]
    left = index if closed else index[:, :-1]
    a, b, c, d = left[:-1], right[:-1], right[1:], left[1:]
    faces = np.concatenate([np.stack(f, -1).reshape(-1, 3) for f in ((a, b, c), (a, c, d))])
    uv = np.stack([x, -y], -1).reshape(-1, 2) / ATLAS_METRES + 0.5
    return Part(points.reshape(-1, 3), faces, np.clip(uv, 0.0, 1.0), material)


def ball(centre: tuple[float, float, float], radius: tuple[float, float, float], material: str = "button") -> Part:
    """An ellipsoid, used for buttons: centre and half axes in metres."""
    rows, cols = 8, 12
    polar, angle = np.meshgrid(np.linspace(1e-3, np.pi - 1e-3, rows), np.arange(cols) * 2 * np.pi / cols, indexing="ij")
    unit = np.stack([np.sin(polar) * np.cos(angle), -np.cos(polar), -np.sin(polar) * np.sin(angle)], -1)
    points = unit * np.array(radius) + np.array(centre)
    zero = np.zeros((rows, cols))
    return grid_part(points, zero, zero, closed=True, material=material)


def ramp(t: Grid, low: float, high: float) -> Grid:
    """Smoothstep from 0 at `low` to 1 at `high`."""
    x = np.clip((t - low) / (high - low), 0.0, 1.0)
    return x * x * (3 - 2 * x)


def curve(t: Grid, knots: list[float], values: list[float]) -> Grid:
    """A smooth monotone-per-piece curve through (knots, values)."""
    result = np.full(t.shape, values[0], dtype=np.float64)
    for low, high, before, after in zip(knots, knots[1:], values, values[1:], strict=False):
        result += (after - before) * ramp(t, low, high)
    return result
