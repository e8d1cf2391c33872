"""One studio scene: garment, cloth, camera, light and room, sampled from `(seed, index)` alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from r2r.studio.garments import GarmentShape
from r2r.studio.palette import CLOTH, ROOM, SHEET, WOOD, pick_colours, shade
from r2r.studio.textures import TEXTURES, WORDS, Colour, TextureRecipe

CATEGORIES = ("t-shirt", "shirt", "trousers", "skirt", "dress", "shorts")
CATEGORY_ODDS = (0.26, 0.18, 0.16, 0.13, 0.2, 0.07)


@dataclass(frozen=True)
class View:
    """Garment pose and framing: degrees; `fill` is the share of the frame the garment spans; offsets in frames."""

    yaw: float
    pitch: float
    roll: float
    fill: float
    shift_x: float
    shift_y: float


@dataclass(frozen=True)
class Light:
    """The key light: direction in degrees, `size` and `distance` in metres, kelvin, and the share of fill light."""

    azimuth: float
    elevation: float
    size: float
    distance: float
    kelvin: float
    fill: float
    fill_kelvin: float


@dataclass(frozen=True)
class Room:
    """What is behind the garment in the photo; `gap` is its distance in metres; `floor` its colour or none."""

    backdrop: str
    colour: Colour
    gap: float
    floor: Colour | None
    seed: int


@dataclass(frozen=True)
class Lens:
    """How the photo is taken: aperture radius in frames, exposure in stops, vignette, noise in display units."""

    aperture: float
    exposure: float
    vignette: float
    noise: float
    contrast: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything both pictures of one garment are made from."""

    seed: int
    index: int
    caption: str
    colours: tuple[str, ...]
    shape: GarmentShape
    texture: TextureRecipe
    trim: Colour
    button: Colour
    wrinkle: float
    sheen: float
    roughness: float
    view: View
    light: Light
    room: Room
    lens: Lens

    @property
    def category(self) -> str:
        return self.shape.category

    def record(self) -> dict[str, Any]:
        """The JSON of a shard sample: caption, category, texture, seed and every scene parameter."""
        return {
            "caption": self.caption,
            "category": self.category,
            "texture": self.texture.kind,
            "seed": self.seed,
            "scene": asdict(self),
        }


def sample_scene(seed: int, index: int) -> Scene:
    """The scene number `index` of the collection `seed`; the same on every machine, whatever else is rendered."""
    rng = np.random.default_rng([seed, index])
    category = str(rng.choice(CATEGORIES, p=CATEGORY_ODDS))
    texture, names, accents = _texture(rng, category)
    shape = _shape(rng, category)
    flat_lay = bool(rng.random() < 0.5)
    return Scene(
        seed=seed,
        index=index,
        caption=_caption(category, texture.kind, names, shape),
        colours=tuple(names),
        shape=shape,
        texture=texture,
        trim=accents[0],
        button=accents[1],
        wrinkle=_uniform(rng, 0.004, 0.01),
        sheen=_uniform(rng, 0.1, 0.8),
        roughness=_uniform(rng, 0.6, 0.9),
        view=_view(rng),
        light=_light(rng),
        room=_room(rng, flat_lay),
        lens=_lens(rng),
    )


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 5)


def _shape(rng: np.random.Generator, category: str) -> GarmentShape:
    lengths = {"t-shirt": (0.6, 0.74), "shirt": (0.66, 0.8), "dress": (0.85, 1.12), "trousers": (0.92, 1.08)}
    lengths |= {"skirt": (0.42, 0.78), "shorts": (0.4, 0.52)}
    sleeves = {"t-shirt": [(0.17, 0.24)] * 4 + [(0.56, 0.63)], "shirt": [(0.56, 0.63)] * 2 + [(0.2, 0.25)]}
    sleeves |= {"dress": [(0.0, 0.0), (0.14, 0.2), (0.5, 0.56)]}
    choices = sleeves.get(category, [(0.0, 0.0)])
    sleeve = _uniform(rng, *choices[rng.integers(len(choices))])
    flare = {"dress": (1.15, 1.75), "skirt": (0.95, 1.75), "trousers": (0.75, 1.25), "shorts": (0.95, 1.15)}
    swing = _uniform(rng, *flare.get(category, (0.92, 1.06)))
    pleated = {"dress": 0.010, "skirt": 0.012}.get(category, 0.005)
    shirt = category == "shirt"
    return GarmentShape(
        category=category,
        fit=_uniform(rng, 0.88, 1.15),
        length=_uniform(rng, *lengths[category]),
        sleeve_length=sleeve,
        sleeve_angle=_uniform(rng, 14.0, 34.0) if sleeve > 0.4 else _uniform(rng, 30.0, 58.0),
        neck_depth=0.05 if shirt else _uniform(rng, 0.065, 0.15),
        neck_width=0.07 if shirt else _uniform(rng, 0.08, 0.115),
        neck_sharpness=2.0 if shirt else float(rng.choice([1.0, 2.2, 2.8])),
        waist=_uniform(rng, 0.74, 0.9) if category == "dress" else _uniform(rng, 0.85, 1.0),
        flare=swing,
        pleats=int(rng.integers(7, 15)) if pleated > 0.009 else int(rng.integers(4, 7)),
        pleat_depth=pleated * _uniform(rng, 0.5, 1.3) * swing,
        fold_height=_uniform(rng, 0.007, 0.013),
        depth=_uniform(rng, 0.08, 0.12),
        fold_seed=int(rng.integers(2**31)),
    )


def _texture(rng: np.random.Generator, category: str) -> tuple[TextureRecipe, list[str], tuple[Colour, Colour]]:
    chest = {"t-shirt": 0.08, "shirt": 0.1, "dress": 0.26}.get(category)
    kinds = [kind for kind in TEXTURES if kind != "lettering" or (chest is not None and category != "shirt")]
    kind = str(rng.choice(kinds))
    names = pick_colours(rng, 3)
    scales = {"stripes": (0.035, 0.1), "plaid": (0.07, 0.15), "dots": (0.045, 0.1), "knit": (0.022, 0.034)}
    recipe = TextureRecipe(
        kind=kind,
        colours=tuple(shade(CLOTH[name], rng) for name in names),
        scale=_uniform(rng, *scales.get(kind, (0.06, 0.1))),
        angle=float(rng.choice([0, 0, 0, 90, 45])) if kind == "stripes" else float(rng.choice([0, 0, 0, 45])),
        word=str(rng.choice(WORDS)),
        all_over=category not in ("t-shirt",) or bool(rng.random() < 0.4),
        chest=chest or 0.0,
        seed=int(rng.integers(2**31)),
    )
    trim = recipe.colours[0] if rng.random() < 0.6 else recipe.colours[1]
    dim = tuple(round(0.92 * value, 4) for value in trim)
    return recipe, names, ((dim[0], dim[1], dim[2]), shade(CLOTH[str(rng.choice(["cream", "charcoal", "white"]))], rng))


def _caption(category: str, kind: str, names: list[str], shape: GarmentShape) -> str:
    noun = f"long-sleeved {category}" if shape.sleeve_length > 0.4 and category != "shirt" else category
    first, second = names[:2]
    return {
        "plain": f"{first} {noun}",
        "stripes": f"{first} and {second} striped {noun}",
        "plaid": f"{first} and {second} plaid {noun}",
        "dots": f"{first} {noun} with {second} dots",
        "print": f"{first} {noun} with {second} print",
        "lettering": f"{first} {noun} with {second} lettering",
        "knit": f"{first} knit {noun}",
    }[kind]


def _view(rng: np.random.Generator) -> View:
    return View(
        yaw=round(float(np.clip(rng.normal(0, 13), -28, 28)), 3),
        pitch=_uniform(rng, -5.0, 5.0),
        roll=round(float(rng.normal(0, 2.5)), 3),
        fill=_uniform(rng, 0.8, 0.92),
        shift_x=_uniform(rng, -0.02, 0.02),
        shift_y=_uniform(rng, -0.02, 0.02),
    )


def _light(rng: np.random.Generator) -> Light:
    warm = bool(rng.random() < 0.5)
    return Light(
        azimuth=_uniform(rng, 18.0, 62.0) * float(rng.choice([-1, 1])),
        elevation=_uniform(rng, 22.0, 58.0),
        size=_uniform(rng, 0.5, 1.3),
        distance=_uniform(rng, 1.8, 2.6),
        kelvin=_uniform(rng, 3600.0, 4800.0) if warm else _uniform(rng, 5600.0, 7400.0),
        fill=_uniform(rng, 0.1, 0.24),
        fill_kelvin=_uniform(rng, 5800.0, 8000.0) if warm else _uniform(rng, 3800.0, 5200.0),
    )


def _room(rng: np.random.Generator, flat_lay: bool) -> Room:
    backdrop = str(rng.choice(["wood", "sheet", "rug"], p=[0.4, 0.4, 0.2])) if flat_lay else "wall"
    if not flat_lay and rng.random() < 0.2:
        backdrop = "wood"
    colours = {"wall": ROOM, "rug": ROOM, "sheet": SHEET, "wood": WOOD}[backdrop]
    floor = shade(WOOD[rng.integers(len(WOOD))], rng) if backdrop == "wall" and rng.random() < 0.5 else None
    gap = _uniform(rng, 0.0, 0.02) if flat_lay else _uniform(rng, 0.02, 0.22)
    colour = shade(colours[rng.integers(len(colours))], rng, 0.04)
    return Room(backdrop, colour, gap, floor, int(rng.integers(2**31)))


def _lens(rng: np.random.Generator) -> Lens:
    return Lens(
        aperture=_uniform(rng, 0.006, 0.02),
        exposure=round(float(rng.normal(0.0, 0.16)), 4),
        vignette=_uniform(rng, 0.12, 0.4),
        noise=_uniform(rng, 0.005, 0.012),
        contrast=_uniform(rng, 0.9, 1.15),
        seed=int(rng.integers(2**31)),
    )
