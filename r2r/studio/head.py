"""Head, face and hair at rest: one surface by height and angle, with features as bumps and patches of it.

Heights `v` run from -1 at the chin to 1 at the crown; lengths are shares of the head's height unless said otherwise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from r2r.studio.body import Line, Ring, outward, solid, spline
from r2r.studio.people import Body
from r2r.studio.skeleton import Points, Vector, smooth
from r2r.studio.surfaces import Part, ball, grid_part

Grid = Float[np.ndarray, "..."]

# height, half width, front, back
SKULL = np.array([
    (-1.00, 0.000, 0.250, 0.250), (-0.985, 0.075, 0.320, 0.170), (-0.93, 0.135, 0.352, 0.080),
    (-0.82, 0.195, 0.368, -0.020), (-0.65, 0.248, 0.376, -0.080), (-0.45, 0.284, 0.382, -0.150),
    (-0.2, 0.308, 0.384, -0.290), (0.05, 0.322, 0.380, -0.400), (0.3, 0.330, 0.386, -0.450),
    (0.55, 0.316, 0.350, -0.440), (0.75, 0.268, 0.270, -0.370), (0.9, 0.182, 0.160, -0.260),
    (0.97, 0.104, 0.070, -0.160), (1.0, 0.0, -0.040, -0.040),
])  # fmt: skip
EYE_X, EYE_V = 0.138, 0.02
STYLES = {
    "cropped": 0.022,
    "short": 0.05,
    "bob": 0.06,
    "long": 0.055,
    "bun": 0.03,
    "ponytail": 0.03,
    "curly": 0.12,
    "afro": 0.24,
}
"""Thickness of the hair on the scalp."""


@dataclass(frozen=True)
class Head:
    """Where the head is and how large; `size` is its height in metres."""

    body: Body
    size: float
    centre: Vector

    def profile(self, v: Line) -> tuple[Line, Line, Line]:
        """Half width, front and back at heights v."""
        width, front, back = (spline(v, SKULL[:, 0], SKULL[:, i]) for i in (1, 2, 3))
        jaw = np.exp(-(((v + 0.75) / 0.3) ** 2))
        return np.maximum(width, 0) * (1 + 0.05 * self.body.face + 0.07 * self.body.build * jaw), front, back

    def relief(self, x: Grid, v: Grid) -> Grid:
        """How far the features of the face stand out of the front."""

        def bump(cx: float, cv: float, rx: float, rv: float) -> Grid:
            return np.exp(-(((np.abs(x) - cx) / rx) ** 2) - ((v - cv) / rv) ** 2)

        bridge = np.exp(-((x / 0.045) ** 2)) * smooth((0.2 - v) / 0.42) * smooth((v + 0.34) / 0.1) * 0.085
        wings = 0.03 * bump(0.05, -0.25, 0.03, 0.06)
        sockets = -0.028 * bump(EYE_X, EYE_V + 0.02, 0.075, 0.11)
        brow = 0.012 * bump(0.12, 0.2, 0.13, 0.07)
        cheek = 0.014 * bump(0.19, -0.2, 0.09, 0.16)
        mouth = 0.02 * bump(0.0, -0.52, 0.13, 0.1) - 0.008 * bump(0.0, -0.68, 0.12, 0.06)
        chin = 0.018 * bump(0.0, -0.87, 0.1, 0.09)
        return bridge + wings + sockets + brow + cheek + mouth + chin

    def surface(self, angle: Grid, v: Grid, lift: Grid | float = 0.0) -> Points:
        """Points of the head at rest, in metres; `angle` pi / 2 is the front; `lift` moves them outwards."""
        width, front, back = self.profile(v)
        middle, depth = (front + back) / 2, (front - back) / 2
        cos, sin = np.cos(angle), np.sin(angle)
        up = np.clip(v, 0, 1)  # outwards is sideways below the temples, upwards at the crown
        aside = lift * np.sqrt(1 - up**2)
        x, z = (width + aside) * cos, middle + (depth + aside) * sin
        z = z + np.where(sin > 0, self.relief(x, v) * smooth(3 * sin), 0.0)
        return self.place(x, v * 0.5 + lift * up, z)

    def front(self, x: Grid, v: Grid, lift: Grid | float = 0.0) -> Points:
        """Points of the face, in metres, by how far from the middle they are."""
        width, front, back = self.profile(v)
        sin = np.sqrt(np.maximum(1 - (x / np.maximum(width, 1e-6)) ** 2, 0))
        z = (front + back) / 2 + (front - back) / 2 * sin + self.relief(x, v) * smooth(3 * sin) + lift
        return self.place(x, v * 0.5, z)

    def place(self, x: Grid | float, y: Grid | float, z: Grid | float) -> Points:
        """From shares of the head's height to metres at rest."""
        return self.centre + self.size * np.stack(np.broadcast_arrays(x, y, z), -1)

    def landmarks(self) -> dict[str, Vector]:
        """Nose, eyes and ears on the surface, at rest."""
        nose = self.front(np.array([[0.0]]), np.array([[-0.2]]))[0, 0]
        points = {"nose": nose}
        for side, sign in (("left", 1), ("right", -1)):
            points[f"{side}_eye"] = self.front(np.array([[sign * EYE_X]]), np.array([[EYE_V]]), 0.01)[0, 0]
            points[f"{side}_ear"] = self.place(sign * 0.335, -0.02, -0.03)
        return points


def head_of(body: Body) -> Head:
    """The head at rest; sizes of heads vary less than statures."""
    size = 0.136 * (0.55 * body.stature + 0.45 * 1.72) * (1 + 0.015 * body.build)
    return Head(body, size, np.array([0.0, body.stature - size / 2, 0.012 * body.stature]))


def head_parts(head: Head) -> list[Part]:
    """Skull and face with ears, eyes, brows and lips."""
    v = -np.cos(np.linspace(0, np.pi, 60))
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    angle = turn - 0.28 * np.sin(2 * (turn - np.pi / 2)) * (np.sin(turn) > 0)
    grid = np.broadcast_arrays(angle[None, :], v[:, None])
    parts = [solid(head.surface(*grid), "skin", "face")]
    for sign in (-1, 1):
        parts += [*_eye(head, sign), _brow(head, sign), *_ear(head, sign)]
    return [*parts, *_lips(head)]


def _ellipsoid(head: Head, at: Vector, axes: tuple[float, float, float], material: str) -> Part:
    x, y, z = (float(value) for value in at)
    a, b, c = (head.size * axis for axis in axes)
    part = outward(ball((x, y, z), (a, b, c), material))
    return Part(part.vertices, part.faces, part.uv, material, "face")


def _ear(head: Head, sign: int) -> list[Part]:
    width = float(head.profile(np.array([0.0]))[0][0])
    return [_ellipsoid(head, head.place(sign * (width + 0.002), -0.02, -0.03), (0.025, 0.115, 0.065), "skin")]


def _eye(head: Head, sign: int) -> list[Part]:
    x, v = np.array([[sign * EYE_X]]), np.array([[EYE_V]])
    at = head.front(x, v)[0, 0]
    white = _ellipsoid(head, at + head.size * np.array([0, 0, -0.006]), (0.055, 0.025, 0.020), "eye")
    iris = _ellipsoid(head, at + head.size * np.array([0, 0.001, 0.007]), (0.028, 0.025, 0.011), "iris")
    across = np.linspace(-0.078, 0.078, 14)[None, :]
    up = np.linspace(0, 1, 4)[:, None]
    arch = 0.038 * np.sqrt(np.maximum(1 - (across / 0.08) ** 2, 0)) * 2
    lid = head.front(sign * EYE_X + across + 0 * up, EYE_V - 0.006 + arch + 0.03 * up, 0.012 * (1 - up) + 0 * across)
    return [white, iris, _sheet(lid, "brow")]


def _brow(head: Head, sign: int) -> Part:
    t = np.linspace(0, 1, 12)[None, :]
    across = np.linspace(-1, 1, 4)[:, None]
    thick = 0.026 * (1 - 0.6 * t**2) * (1.15 if head.body.build > 0 else 0.85)
    x = sign * (0.06 + 0.15 * t) + 0 * across
    v = 0.2 + 0.07 * np.sin(2.2 * t) - 0.04 * t + across * thick
    return _sheet(head.front(x, v, 0.006 - 0.005 * across**2 + 0 * t), "brow")


def _lips(head: Head) -> list[Part]:
    t = np.linspace(-1, 1, 17)[None, :]
    up = np.linspace(0, 1, 6)[:, None]
    half = 0.105 - 0.006 * head.body.build
    parts = []
    for sign, thick in ((1, 0.062), (-1, 0.078)):
        edge = thick * (1 - np.abs(t) ** 2.2)
        bow = 0.014 * np.exp(-((t / 0.16) ** 2)) if sign > 0 else 0.0
        v = -0.515 + 0.008 * t**2 + sign * up * (edge - bow)
        puff = 0.014 * np.sin(np.pi * np.clip(up * 0.9 + 0.1, 0, 1)) * (1 - t**2)
        parts.append(_sheet(head.front(half * t + 0 * up, v, 0.002 + puff), "lip"))
    return parts


def _sheet(points: Ring, material: str) -> Part:
    """A patch of the face, turned to the front."""
    zero = np.zeros(points.shape[:2])
    part = grid_part(points, zero, zero, closed=False, material=material)
    back = points.reshape(-1, 3).mean(0) - np.array([0.0, 0.0, 1.0])
    return outward(Part(part.vertices, part.faces, part.uv, material, "face"), back)


def hair_parts(head: Head, behind: float) -> list[Part]:
    """The hair at rest; `behind` is how far the back of the clothed torso is from the middle, in metres."""
    style = head.body.hair_style
    if style == "bald":
        return []
    parts = [_scalp(head, style)]
    if style in ("bob", "long"):
        parts.append(_curtain(head, behind))
    if style == "bun":
        parts.append(
            _ball_of_hair(head, 0.3 + 0.22 * head.body.hair_volume, -0.44, 0.17 + 0.04 * head.body.hair_volume)
        )
    if style == "ponytail":
        parts.append(_tail(head, behind))
    return [Part(p.vertices, p.faces, p.uv, "hair", "hair") for p in parts]


def _hairline(head: Head, angle: Grid, style: str) -> Grid:
    """The lowest height of hair on the scalp at each angle around the head."""
    front = np.abs(np.mod(angle - np.pi / 2 + np.pi, 2 * np.pi) - np.pi)
    fringe = style in ("bob", "long", "short", "curly") and head.body.fringe > 0.55
    knots = np.array([0.0, 0.5, 0.85, 1.15, 1.4, 1.62, 1.9, 2.4, np.pi])
    brow = 0.3 if fringe else 0.56 + 0.08 * (head.body.fringe - 0.3) * (style != "afro")
    line = np.array([brow, brow - 0.02 * fringe, brow - 0.08, 0.30, 0.12, -0.02, -0.30, -0.55, -0.62])
    if fringe:
        line[2:4] = 0.24, 0.12
    wave = 0.012 * np.sin(17 * angle) + 0.008 * np.sin(29 * angle + 1)
    return spline(front, knots, line) + wave


def _scalp(head: Head, style: str) -> Part:
    rows, cols = 56, 80
    v = -np.cos(np.linspace(0.28 * np.pi, np.pi, rows))
    angle, v = np.broadcast_arrays(np.linspace(0, 2 * np.pi, cols, endpoint=False)[None, :], v[:, None])
    inside = v - _hairline(head, angle, style)
    thick = STYLES[style] * (0.8 + 0.5 * head.body.hair_volume)
    top = 1 + (0.7 if style in ("short", "bob", "long") else 0.0) * np.clip(v, 0, 1) ** 2
    rough = 1 + _lumps(angle, v, style)
    if style == "afro":
        rough = rough * (0.8 + 0.35 * np.clip(v + 0.2, 0, 1))
    lift = thick * top * rough * smooth(inside / (0.1 + 1.1 * thick)) - 0.02 * (inside <= 0) + 0.003
    part = solid(head.surface(angle, v, lift), "hair", "hair")
    keep = (inside.reshape(-1)[part.faces] > -0.06).any(1)
    return Part(part.vertices, part.faces[keep], part.uv, "hair", "hair")


def _lumps(angle: Grid, v: Grid, style: str) -> Grid:
    """Strands of straight hair, or curls."""
    if style in ("curly", "afro"):
        curls = np.sin(9 * angle + 3 * np.sin(11 * v)) * np.sin(15 * v + 2 * np.sin(5 * angle))
        fine = np.sin(21 * angle + 4 * np.sin(9 * v)) * np.sin(33 * v + 1)
        return (0.22 * curls + 0.1 * fine) * (1.0 if style == "curly" else 0.45)
    strands = np.sin(26 * angle + 2 * np.sin(3 * v)) + 0.6 * np.sin(43 * angle + 2)
    return 0.05 * strands * np.clip(1.2 - v, 0, 1)


def _curtain(head: Head, behind: float) -> Part:
    """Hair that falls from the sides and the back of the head: to the jaw, or down the back."""
    body, rows, cols = head.body, 44, 64
    long = body.hair_style == "long"
    t = np.linspace(0, 1, rows)[:, None]
    low = (
        -(0.75 + 1.2 * max(body.hair_length - 0.12, 0) * 1.6)
        if not long
        else -(1.1 + body.hair_length / head.size * 2.0)
    )
    v = 0.7 + (low - 0.7) * t
    open_front = 0.98 - 0.1 * smooth((0.3 - v) / 0.8) + (1.15 * smooth((-v - 0.95) / 0.5) if long else 0.0)
    u = np.linspace(0, 1, cols)[None, :]
    angle = np.pi / 2 + open_front + (2 * np.pi - 2 * open_front) * u
    thick = STYLES[body.hair_style] * (0.9 + 0.5 * body.hair_volume)
    width, front, back = head.profile(np.maximum(v, -0.15))
    near = smooth((0.75 - v) / 0.45)  # under the hair of the scalp
    width = width + thick * (0.95 * near - 0.1)
    hang = smooth((-v - 0.9) / 0.8)
    depth = (front - back) / 2 + thick * (near - 0.1)
    back_edge = (front + back) / 2 - depth
    if long:
        back_edge = back_edge * (1 - hang) + hang * np.minimum(back_edge, -(behind + 0.02 + head.centre[2]) / head.size)
        depth = depth * (1 - 0.35 * hang)
    else:
        width = width * (1 - 0.1 * smooth((-v - 0.3) / 0.6))
    strands = 0.012 * np.sin(30 * angle + 3 * t) + 0.008 * np.sin(47 * angle)
    x = (width + strands) * np.cos(angle)
    z = back_edge + depth + (depth + strands) * np.sin(angle)
    return solid_sheet(head.place(x, v * 0.5, z), head.centre)


def solid_sheet(points: Ring, centre: Vector) -> Part:
    """An open sheet of hair around the head."""
    zero = np.zeros(points.shape[:2])
    part = grid_part(points, zero, zero, closed=False, material="hair")
    return outward(part, np.array([centre[0], points[..., 1].mean(), centre[2]]))


def _ball_of_hair(head: Head, y: float, z: float, radius: float) -> Part:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)[None, :]
    polar = np.linspace(0.02, np.pi - 0.02, 18)[:, None]
    r = radius * (1 + 0.05 * np.sin(5 * angle + 6 * polar))
    return solid(
        head.place(
            r * np.sin(polar) * np.cos(angle), y - 0.9 * r * np.cos(polar), z + r * np.sin(polar) * np.sin(angle)
        ),
        "hair",
        "hair",
    )


def _tail(head: Head, behind: float) -> Part:
    """A ponytail from the back of the head down the back."""
    t = np.linspace(0, 1, 26)[:, None]
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None, :]
    length = 0.9 + head.body.hair_length / head.size
    out = -(behind + 0.035 + head.centre[2]) / head.size
    y = 0.22 + 0.06 * np.sin(np.pi * np.clip(4 * t, 0, 1)) - length * t**1.25
    z = -0.42 + (np.minimum(out, -0.55) + 0.42) * np.clip(1.6 * t, 0, 1) ** 0.6
    radius = 0.1 * (0.55 + 0.8 * np.sin(np.pi * t**0.7)) * (1 - t**6)
    strands = 1 + 0.06 * np.sin(9 * angle + 5 * t)
    return solid(
        head.place(radius * strands * np.cos(angle), y + 0 * angle, z + 0.6 * radius * strands * np.sin(angle)),
        "hair",
        "hair",
    )
