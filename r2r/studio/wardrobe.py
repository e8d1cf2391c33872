"""The wardrobe: which garments there are, what cloth they are cut from, and what they are called."""

from dataclasses import dataclass

import numpy as np

from r2r.studio.garments import GarmentShape
from r2r.studio.palette import CLOTH, pick_colours, shade
from r2r.studio.textures import TEXTURES, WORDS, Colour, TextureRecipe

SLOTS = {
    "t-shirt": "upper", "shirt": "upper", "sweater": "upper", "hoodie": "upper", "tank top": "upper", "coat": "upper",
    "trousers": "lower", "skirt": "lower", "shorts": "lower", "dress": "full",
}  # fmt: skip
"""The part of the body that a category covers."""
CATEGORIES = tuple(SLOTS)
ODDS = (0.18, 0.12, 0.08, 0.07, 0.08, 0.06, 0.12, 0.1, 0.06, 0.13)
LABELS = {"trousers": "pants", "shorts": "pants", "skirt": "skirt", "dress": "dress"}
"""Names in ATR of what is not an upper garment."""

LENGTHS = {
    "t-shirt": (0.6, 0.74), "shirt": (0.66, 0.8), "sweater": (0.6, 0.7), "hoodie": (0.62, 0.72),
    "tank top": (0.58, 0.7),
    "coat": (0.88, 1.08), "dress": (0.85, 1.12), "trousers": (0.92, 1.08), "skirt": (0.42, 0.78), "shorts": (0.4, 0.52),
}  # fmt: skip
LONG = (0.56, 0.63)
SLEEVES = {
    "t-shirt": [(0.17, 0.24)] * 4 + [LONG],
    "shirt": [LONG] * 2 + [(0.2, 0.25)],
    "sweater": [LONG],
    "hoodie": [LONG],
    "coat": [LONG],
    "dress": [(0.0, 0.0), (0.14, 0.2), (0.5, 0.56)],
}
FLARE = {
    "dress": (1.15, 1.75), "skirt": (0.95, 1.75), "trousers": (0.75, 1.25), "shorts": (0.95, 1.15), "coat": (1.0, 1.25),
}  # fmt: skip
CHEST = {"t-shirt": 0.08, "sweater": 0.08, "tank top": 0.04, "dress": 0.26}
"""Where a large print sits, in metres above the middle of the garment."""


@dataclass(frozen=True)
class Garment:
    """One piece of clothing: its cut, its cloth, and how light meets the cloth in the photo."""

    shape: GarmentShape
    texture: TextureRecipe
    colours: tuple[str, ...]
    trim: Colour
    button: Colour
    wrinkle: float
    sheen: float
    roughness: float

    @property
    def category(self) -> str:
        return self.shape.category

    @property
    def slot(self) -> str:
        """The part of the body it covers: "upper", "lower" or "full"."""
        return SLOTS[self.category]

    @property
    def label(self) -> str:
        """Its name in `r2r.parsing.ATR_18`."""
        return LABELS.get(self.category, "upper-clothes")

    @property
    def caption(self) -> str:
        """Colour, pattern and category, in words that name no domain."""
        long = self.category in ("t-shirt", "dress") and self.shape.sleeve_length > 0.4
        noun = f"long-sleeved {self.category}" if long else self.category
        first, second = self.colours[:2]
        return {
            "plain": f"{first} {noun}",
            "stripes": f"{first} and {second} striped {noun}",
            "plaid": f"{first} and {second} plaid {noun}",
            "dots": f"{first} {noun} with {second} dots",
            "print": f"{first} {noun} with {second} print",
            "lettering": f"{first} {noun} with {second} lettering",
            "knit": f"{first} knit {noun}",
        }[self.texture.kind]


def sample_garment(rng: np.random.Generator, category: str | None = None) -> Garment:
    """Any garment, or any of one category."""
    category = category or str(rng.choice(CATEGORIES, p=ODDS))
    texture, names, (trim, button) = _texture(rng, category)
    return Garment(
        shape=_shape(rng, category),
        texture=texture,
        colours=tuple(names),
        trim=trim,
        button=button,
        wrinkle=uniform(rng, 0.004, 0.01),
        sheen=uniform(rng, 0.1, 0.8),
        roughness=uniform(rng, 0.6, 0.9),
    )


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between the two, short enough to be read in a record."""
    return round(float(rng.uniform(low, high)), 5)


def _shape(rng: np.random.Generator, category: str) -> GarmentShape:
    choices = SLEEVES.get(category, [(0.0, 0.0)])
    sleeve = uniform(rng, *choices[rng.integers(len(choices))])
    swing = uniform(rng, *FLARE.get(category, (0.92, 1.06)))
    pleated = {"dress": 0.010, "skirt": 0.012}.get(category, 0.005)
    buttoned = category in ("shirt", "coat")
    return GarmentShape(
        category=category,
        fit=uniform(rng, 0.88, 1.15),
        length=uniform(rng, *LENGTHS[category]),
        sleeve_length=sleeve,
        sleeve_angle=uniform(rng, 14.0, 34.0) if sleeve > 0.4 else uniform(rng, 30.0, 58.0),
        neck_depth=0.05 if buttoned else uniform(rng, 0.065, 0.15),
        neck_width=0.07 if buttoned else uniform(rng, 0.08, 0.115),
        neck_sharpness=2.0 if buttoned else float(rng.choice([1.0, 2.2, 2.8])),
        waist=uniform(rng, 0.74, 0.9) if category == "dress" else uniform(rng, 0.85, 1.0),
        flare=swing,
        pleats=int(rng.integers(7, 15)) if pleated > 0.009 else int(rng.integers(4, 7)),
        pleat_depth=pleated * uniform(rng, 0.5, 1.3) * swing,
        fold_height=uniform(rng, 0.007, 0.013),
        depth=uniform(rng, 0.08, 0.12),
        fold_seed=int(rng.integers(2**31)),
    )


def _texture(rng: np.random.Generator, category: str) -> tuple[TextureRecipe, list[str], tuple[Colour, Colour]]:
    kinds = [kind for kind in TEXTURES if kind != "lettering" or category in CHEST]
    kind = str(rng.choice(kinds))
    names = pick_colours(rng, 3)
    scales = {"stripes": (0.035, 0.1), "plaid": (0.07, 0.15), "dots": (0.045, 0.1), "knit": (0.022, 0.034)}
    recipe = TextureRecipe(
        kind=kind,
        colours=tuple(shade(CLOTH[name], rng) for name in names),
        scale=uniform(rng, *scales.get(kind, (0.06, 0.1))),
        angle=float(rng.choice([0, 0, 0, 90, 45])) if kind == "stripes" else float(rng.choice([0, 0, 0, 45])),
        word=str(rng.choice(WORDS)),
        all_over=category not in ("t-shirt", "sweater", "tank top") or bool(rng.random() < 0.4),
        chest=CHEST.get(category, 0.0),
        seed=int(rng.integers(2**31)),
    )
    trim = recipe.colours[0] if rng.random() < 0.6 else recipe.colours[1]
    dim = tuple(round(0.92 * value, 4) for value in trim)
    return recipe, names, ((dim[0], dim[1], dim[2]), shade(CLOTH[str(rng.choice(["cream", "charcoal", "white"]))], rng))
