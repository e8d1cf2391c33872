"""Procedural garments as lofted meshes (numpy only): tops, trousers, skirts and dresses, about life-size in metres."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from r2r.studio.surfaces import Folds, Grid, Part, Tube, ball, curve, grid_part, ramp

FRONT = np.pi / 2
TURN = (0.0, 2 * np.pi)


@dataclass(frozen=True)
class GarmentShape:
    """The cut of one garment; lengths in metres, `fit` scales widths (1 = regular), angles in degrees."""

    category: str
    fit: float
    length: float
    sleeve_length: float
    sleeve_angle: float
    neck_depth: float
    neck_width: float
    neck_sharpness: float
    waist: float
    flare: float
    pleats: int
    pleat_depth: float
    fold_height: float
    depth: float
    fold_seed: int


def build_garment(shape: GarmentShape) -> list[Part]:
    """Meshes of the garment, centred on the origin in x and y."""
    rng = np.random.default_rng(shape.fold_seed)
    build = {"trousers": _legs, "shorts": _legs, "skirt": _skirt}.get(shape.category, _top)
    parts = build(shape, rng)
    corners = np.concatenate([part.vertices for part in parts])
    centre = (corners.min(0) + corners.max(0)) / 2 * np.array([1.0, 1.0, 0.0])
    return [Part(part.vertices - centre, part.faces, part.uv, part.material) for part in parts]


def _top(shape: GarmentShape, rng: np.random.Generator) -> list[Part]:
    torso = torso_tube(shape, rng)
    sleeves = [sleeve_tube(shape, rng, side) for side in (-1, 1)] if shape.sleeve_length > 0 else []
    parts = [torso.mesh(96, 128), *(sleeve.mesh(56, 56) for sleeve in sleeves)]
    if shape.category in ("shirt", "coat"):
        return parts + shirt_details(torso, sleeves)
    half = np.arcsin(min(shape.neck_width / _shoulder(shape), 1.0))
    for middle, low in ((FRONT, 0.968), (-FRONT, 0.975)):
        parts.append(torso.patch((middle - half, middle + half), (low, 1.0), 0.003, size=(5, 64)))
    if shape.category == "dress":
        parts.append(torso.patch(TURN, (0.55, 0.58), 0.004, size=(6, 96)))
    else:
        parts += [sleeve.patch(TURN, (0.0, 0.05), 0.003, size=(4, 48)) for sleeve in sleeves]
    if shape.category in ("sweater", "hoodie"):
        parts.append(torso.patch(TURN, (0.0, 0.07), 0.004, size=(6, 96)))
    if shape.category == "hoodie":
        parts.append(torso.patch((FRONT - 0.75, FRONT + 0.75), (0.1, 0.36), 0.008, "fabric", (12, 24)))
        parts.append(ball((0.0, shape.length - 0.02, -0.045), (0.14, 0.075, 0.06), "trim"))
    return parts


def _shoulder(shape: GarmentShape) -> float:
    return 0.205 * (0.5 + 0.5 * shape.fit) * (0.78 if shape.category == "tank top" else 1.0)


def torso_tube(shape: GarmentShape, rng: np.random.Generator) -> Tube:
    """The body of a top or dress: the front is widest at the chest, closed at the shoulders but for the neck."""
    chest, shoulder, neck = 0.25 * shape.fit, _shoulder(shape), shape.neck_width
    top, slope, armpit = shape.length, 0.055, 1 - 0.24 / shape.length
    dress = shape.category == "dress"
    waist = chest * shape.waist
    hem = chest * shape.flare
    mid = {"dress": 0.57, "coat": 0.5}.get(shape.category, 0.35)

    def half_width(t: Grid) -> Grid:
        return curve(t, [0.0, mid, armpit, armpit + 0.08, 1.0], [hem, waist, chest, chest * 0.97, shoulder])

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        x = cos * half_width(t)
        across = np.clip(np.abs(cos * shoulder) / neck, 0, 1)
        hole = np.sqrt(np.maximum(1 - across**2, 0))
        dip = np.where(sin >= 0, shape.neck_depth, 0.018) * (1 - across**shape.neck_sharpness)
        fall = np.clip((np.abs(cos) * shoulder - neck) / (shoulder - neck), 0, 1) ** 1.4
        closing = np.sqrt(np.maximum(1 - ramp(t, armpit - 0.05, 1.0) ** 2, 0))
        depth = shape.depth * curve(t, [0.0, armpit, 1.0], [hem / chest * 0.9, 1.0, 0.85])
        z = np.sign(sin) * np.maximum(np.abs(sin) * closing, hole * ramp(t, 0.6, 1.0) * 0.62) * depth
        sag = 0.012 * (1 - t) * cos**2
        y = t * (top - slope * fall) - dip * t**3 + sag
        return x, y, np.where(np.abs(sin) < 1e-9, 0.0, z)

    def cloth(angle: Grid, t: Grid) -> tuple[Grid, Grid]:
        y = place(np.cos(angle), np.sin(angle), t)[1]
        return unrolled(angle) * 1.12 * half_width(t), y - top / 2

    return Tube(place, cloth, _torso_folds(shape, rng, top), pleating(shape, rng, 0.55 if dress else 0.4))


def sleeve_tube(shape: GarmentShape, rng: np.random.Generator, side: int) -> Tube:
    """One sleeve, hanging from the shoulder (`side` -1 or 1) at the angle of the shape."""
    shoulder = np.array([_shoulder(shape) - 0.028, shape.length - 0.05])
    armpit = np.array([0.25 * shape.fit - 0.035, shape.length - 0.235 - 0.02 * shape.fit])
    angle = np.deg2rad(shape.sleeve_angle)
    along = np.array([np.sin(angle), -np.cos(angle)])
    across = np.array([np.cos(angle), np.sin(angle)])
    cuff = shoulder + along * shape.sleeve_length + across * 0.012
    long = shape.sleeve_length > 0.4
    cuff_width = (0.105 if long else 0.165) * shape.fit
    bend = 0.03 * rng.uniform(0.2, 1.0) if long else 0.0

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        down = 1 - t
        reach = down * shape.sleeve_length / 0.11
        swell = 0.05 * np.cos(angle) ** 1.5 * reach * np.exp(1 - reach)
        outer = [shoulder[i] + (cuff[i] - shoulder[i]) * down + across[i] * swell for i in (0, 1)]
        end = cuff - across * cuff_width
        inner = [armpit[i] + (end[i] - armpit[i]) * down for i in (0, 1)]
        mix = (1 + cos) / 2
        curl = bend * np.sin(np.pi * down) * across[0]
        x = side * (inner[0] + (outer[0] - inner[0]) * mix - curl)
        y = inner[1] + (outer[1] - inner[1]) * mix
        half = shape.depth * curve(t, [0.0, 0.7, 1.0], [0.42 if long else 0.5, 0.62, 0.66])
        cap = 1 - 0.65 * mix**2 * ramp(t, 0.55, 1.0)
        return x, y, sin * half * cap + 0.018 * down * long

    def cloth(ring: Grid, t: Grid) -> tuple[Grid, Grid]:
        reach = (t - 0.5) * np.hypot(*(cuff - shoulder))
        return side * 0.53 + unrolled(ring) * 0.11 * shape.fit, reach + 0.12

    folds = random_folds(
        rng, 9 if long else 4, (side * 0.53, 0.12), (0.07, shape.sleeve_length * 0.45), (0.0, 0.7), shape
    )
    # Creases end before the sleeve meets the shoulder, where they would stick out of the torso.
    return Tube(place, cloth, folds, _flat, lambda t: 1 - ramp(t, 0.6, 0.95))


def shirt_details(torso: Tube, sleeves: list[Tube]) -> list[Part]:
    """Placket, buttons, pocket, cuffs and collar."""
    width = 0.07
    placket = torso.patch((FRONT - width, FRONT + width), (0.004, 0.995), 0.004, "fabric", (64, 5))
    buttons = []
    for t in np.linspace(0.1, 0.92, 7):
        point = torso.points(np.array([[FRONT]]), np.array([[t]]), 0.007)[0][0, 0]
        buttons.append(ball((point[0], point[1], point[2]), (0.0075, 0.0075, 0.004)))
    pocket = torso.patch((1.02, 1.32), (0.64, 0.8), 0.004, "fabric", (12, 12))
    cuffs = [sleeve.patch(TURN, (0.0, 0.1), 0.004, "fabric", (6, 48)) for sleeve in sleeves]
    return [placket, *buttons, pocket, *cuffs, *_collar(torso)]


def _collar(torso: Tube) -> list[Part]:
    """A collar stand around the neck hole and two leaves folded over it."""
    angles = np.linspace(0, 2 * np.pi, 129)
    edge = torso.points(angles[None, :], np.full((1, 129), 0.999))[0][0]
    inside = np.abs(edge[:, 0]) < 0.074
    leaves = []
    for back in (True, False):
        chosen = edge[inside & ((np.sin(angles) < 0) == back)]
        for rim in [chosen] if back else [chosen[chosen[:, 0] >= 0], chosen[chosen[:, 0] <= 0]]:
            leaves.append(_leaf(rim, back))
    return leaves


def _leaf(rim: Grid, back: bool) -> Part:
    """One piece of collar along the points `rim` (n x 3) of the neck edge: the stand behind, or a folded front."""
    rim = rim[np.argsort(rim[:, 0])]
    t = np.linspace(0, 1, 7)[:, None]
    middle = 1 - (rim[:, :1] / np.abs(rim[:, 0]).max()) ** 2
    upper = rim + np.array([0, 1.0, 0]) * (0.012 + 0.018 * middle * back)
    if back:
        rows = rim[None] + t[..., None] * (upper - rim)[None]
    else:
        near = 1 - np.abs(rim[:, :1]) / np.abs(rim[:, 0]).max()
        fall = np.concatenate(
            [np.sign(rim.mean(0)[0]) * (0.028 + 0.022 * near), -0.05 - 0.02 * near, 0.022 + 0 * near], 1
        )
        rows = upper[None] + t[..., None] * fall[None] + np.array([0, 0, 0.02]) * np.sin(np.pi * t)[..., None]
        rows = rows + np.array([0, 0, 0.006])
    y = np.broadcast_to(0.3 - 0.05 * t, rows.shape[:2])
    return grid_part(rows, rows[..., 0] * 1.1, y, closed=False, material="fabric")


def _legs(shape: GarmentShape, rng: np.random.Generator) -> list[Part]:
    tubes = [leg_tube(shape, rng, side) for side in (-1, 1)]
    band = 1 - 0.04 / shape.length
    parts = [tube.mesh(110, 72) for tube in tubes]
    parts += [tube.patch(TURN, (band, 1.0), 0.004, "trim", (5, 72)) for tube in tubes]
    point = tubes[1].points(np.array([[np.pi - 0.12]]), np.array([[(1 + band) / 2]]), 0.008)[0][0, 0]
    return [*parts, ball((0.012, point[1], point[2]), (0.009, 0.009, 0.004))]


def leg_tube(shape: GarmentShape, rng: np.random.Generator, side: int) -> Tube:
    """One leg with its half of the hips (`side` -1 or 1)."""
    waist, hip = 0.2 * shape.fit * shape.waist, 0.25 * shape.fit
    crotch = 1 - 0.29 / shape.length
    gap = rng.uniform(0.03, 0.09)
    long = shape.length > 0.7
    hem = (0.19 if long else 0.25) * shape.fit * shape.flare
    knee = 0.5 * crotch

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        inner = gap * np.clip(1 - t / crotch, 0, 1)
        thigh, lowest = hip * 0.98, hem + gap
        mid = 0.55 * lowest + 0.45 * thigh
        outer = curve(t, [0.0, knee, crotch, crotch + 0.12, 1.0], [lowest, mid, thigh, hip, waist])
        mix = (1 + cos) / 2
        x = inner + (outer - inner) * mix
        joined = ramp(t, crotch - 0.005, crotch + 0.13)
        hips = np.sign(sin) * np.sqrt(np.maximum(1 - (x / outer) ** 2, 0))
        depth = shape.depth * curve(t, [0.0, crotch, 1.0], [0.62, 0.95, 0.85])
        dip = 0.012 * ramp(t, 0.9, 1.0) * (sin > 0) * (1 - mix)
        return side * x, t * shape.length - dip, depth * (joined * hips + (1 - joined) * sin * 0.8)

    def cloth(angle: Grid, t: Grid) -> tuple[Grid, Grid]:
        x, y, _ = place(np.cos(angle), np.sin(angle), t)
        return x * 1.15, y - shape.length / 2

    centre = (side * 0.13, -0.05 * shape.length)
    folds = random_folds(rng, 14, centre, (0.09, shape.length * 0.4), (0.0, 0.35), shape)
    return Tube(place, cloth, folds, _flat)


def _skirt(shape: GarmentShape, rng: np.random.Generator) -> list[Part]:
    waist, hem = 0.19 * shape.fit * shape.waist, 0.21 * shape.fit * shape.flare

    def half_width(t: Grid) -> Grid:
        return curve(t, [-0.15, 0.55, 1.0], [hem * 1.05, (waist + hem) / 2 + 0.015, waist])

    def place(cos: Grid, sin: Grid, t: Grid) -> tuple[Grid, Grid, Grid]:
        dip = 0.012 * ramp(t, 0.85, 1.0) * (sin > 0) * np.abs(sin)
        sag = 0.03 * (1 - t) * (cos**2 - 0.4 * (sin > 0))
        return cos * half_width(t), t * shape.length - dip + sag, sin * half_width(t) * shape.depth / 0.25

    def cloth(angle: Grid, t: Grid) -> tuple[Grid, Grid]:
        return unrolled(angle) * 1.15 * half_width(t), (t - 0.5) * shape.length

    folds = random_folds(rng, 8, (0.0, -0.1), (0.2, shape.length * 0.4), (np.pi / 2, 0.2), shape)
    tube = Tube(place, cloth, folds, pleating(shape, rng, 0.95))
    band = tube.patch(TURN, (1 - 0.04 / shape.length, 1.0), 0.004, "trim", (6, 96))
    return [tube.mesh(72, 160), band]


def unrolled(angle: Grid) -> Grid:
    """Arc coordinate in [-1, 1] across the front, mirrored on the back, so that no seam tears the texture."""
    around = np.mod(angle, 2 * np.pi)
    front = np.where(around <= np.pi, around, 2 * np.pi - around)
    return 0.6 * np.cos(front) + 0.4 * (1 - 2 * front / np.pi)


def _flat(angle: Grid, t: Grid) -> Grid:
    return np.zeros_like(angle + t)


def pleating(shape: GarmentShape, rng: np.random.Generator, end: float) -> Callable[[Grid, Grid], Grid]:
    """Regular pleats that fade out towards height `end`, as a displacement of (angle, height)."""
    phase, second = rng.uniform(0, 2 * np.pi, 2)
    count = shape.pleats

    def pleats(angle: Grid, t: Grid) -> Grid:
        wave = np.sin(count * angle + phase + 0.8 * np.sin(2 * angle + second) + 0.5 * t)
        wave = wave + 0.35 * np.sin((count // 2 + 1) * angle + second)
        return shape.pleat_depth * wave * (1 - ramp(t, 0.0, end)) ** 1.2

    return pleats


def random_folds(
    rng: np.random.Generator,
    count: int,
    centre: tuple[float, float],
    spread: tuple[float, float],
    lean: tuple[float, float],
    shape: GarmentShape,
) -> Folds:
    """Random creases around `centre`; `lean` is mean and spread of their angle (radians, 0 = horizontal)."""
    size = rng.uniform(0.012, 0.035, count)
    return Folds(
        centre=rng.normal(0, 1, (count, 2)) * np.array(spread) * 0.6 + np.array(centre),
        angle=rng.normal(lean[0], lean[1], count),
        width=size,
        length=rng.uniform(0.04, 0.13, count),
        height=shape.fold_height * size / 0.025 * rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.2, count),
    )


def _torso_folds(shape: GarmentShape, rng: np.random.Generator, top: float) -> Folds:
    """Loose vertical folds below, and creases that run from the armpits towards the middle."""
    loose = random_folds(rng, 9, (0.0, -0.12 * top), (0.2, 0.3 * top), (np.pi / 2, 0.45), shape)
    pulls = []
    for side in (-1, 1):
        armpit = (side * 0.17, top / 2 - 0.25)
        pulls.append(random_folds(rng, 5, armpit, (0.07, 0.09), (side * 0.75, 0.35), shape))
    every = [loose, *pulls]
    names = ("centre", "angle", "width", "length", "height")
    return Folds(*(np.concatenate([getattr(fold, name) for fold in every]) for name in names))
