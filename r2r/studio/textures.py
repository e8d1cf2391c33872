"""Procedural cloth textures (numpy and PIL): colour and height images over the garment's cloth atlas.

Row 0 is the top of the atlas; one image covers `ATLAS_METRES` x `ATLAS_METRES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from r2r.studio.surfaces import ATLAS_METRES

TEXTURES = ("plain", "stripes", "plaid", "dots", "print", "lettering", "knit")
ATLAS_PIXELS = 544
WORDS = (
    "HELLO", "OCEAN", "SUNDAY", "NORTH", "WILD", "PARIS", "TOKYO", "1984", "DREAM", "RADIO", "COFFEE", "MOUNTAIN",
    "LUCKY", "STUDIO", "JAZZ", "LEMON", "NO. 7", "SPORT", "LOVE", "BERLIN", "ROCK", "SURF", "TEAM 23", "GOOD DAY",
)  # fmt: skip

Colour = tuple[float, float, float]
Plane = Float[np.ndarray, "h w"]
Picture = Float[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class TextureRecipe:
    """What to draw: `kind` of TEXTURES, sRGB colours in [0, 1], `scale` in metres, `angle` in degrees."""

    kind: str
    colours: tuple[Colour, ...]
    scale: float
    angle: float
    word: str
    all_over: bool
    chest: float
    seed: int


def draw_texture(recipe: TextureRecipe, pixels: int = ATLAS_PIXELS) -> tuple[Picture, Plane]:
    """Colour (sRGB, [0, 1]) and height (about [-1, 1]) images of the cloth."""
    rng = np.random.default_rng(recipe.seed)
    x, y = cloth_grid(pixels)
    colour, height = PAINTERS[recipe.kind](recipe, x, y, rng)
    grain = 1 + 0.035 * noise(rng, x, y, 0.012, 3)[..., None]
    return np.clip(colour * grain, 0, 1), height


def cloth_grid(pixels: int) -> tuple[Plane, Plane]:
    """Cloth coordinates in metres of every texel, centred on the atlas."""
    line = ((np.arange(pixels) + 0.5) / pixels - 0.5) * ATLAS_METRES
    x, y = np.meshgrid(line, -line)
    return x, y


def noise(rng: np.random.Generator, x: Plane, y: Plane, scale: float, octaves: int, stretch: float = 1.0) -> Plane:
    """Smooth noise of about unit deviation: random plane waves, wavelength `scale` metres and halves of it."""
    total = np.zeros_like(x)
    for octave in range(octaves):
        waves = np.zeros_like(x)
        for _ in range(5):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            length = scale / 2**octave * rng.uniform(0.7, 1.5)
            waves += np.cos(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle) / stretch) + phase)
        total += waves / np.sqrt(2.5) * 0.55**octave
    return total / 1.2


def wrinkles(seed: int, pixels: int = 320) -> Plane:
    """Fine creases for the photo's bump map: ridged, warped noise in patches, about [-1, 1]."""
    rng = np.random.default_rng(seed)
    x, y = cloth_grid(pixels)
    warped_x = x + 0.05 * noise(rng, x, y, 0.4, 2)
    warped_y = y + 0.05 * noise(rng, x, y, 0.4, 2)
    ridges = np.exp(-3.0 * noise(rng, warped_x, warped_y, 0.34, 2) ** 2)
    patches = np.clip(0.35 + 0.6 * noise(rng, x, y, 0.45, 1), 0.05, 1)
    return ridges * patches + 0.35 * noise(rng, warped_x, warped_y, 0.22, 1)


def _blend(base: Picture, colour: Colour, amount: Plane) -> Picture:
    return base + (np.array(colour) - base) * np.clip(amount, 0, 1)[..., None]


def _fill(colour: Colour, x: Plane) -> Picture:
    return np.broadcast_to(np.array(colour), (*x.shape, 3)).copy()


def _turn(recipe: TextureRecipe, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    angle = np.deg2rad(recipe.angle)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _band(phase: Plane, centre: float, width: float) -> Plane:
    """1 inside a band of the unit period around `centre`, with slightly soft edges."""
    distance = np.abs(np.mod(phase - centre + 0.5, 1.0) - 0.5)
    return np.clip((width / 2 - distance) / 0.02 + 0.5, 0, 1)


def _plain(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    cloudy = 1 + 0.03 * noise(rng, x, y, 0.2, 2)
    return _fill(recipe.colours[0], x) * cloudy[..., None], np.zeros_like(x)


def _stripes(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    _, across = _turn(recipe, x, y)
    phase = across / recipe.scale
    colour = _blend(_fill(recipe.colours[0], x), recipe.colours[1], _band(phase, 0.25, rng.uniform(0.25, 0.5)))
    if rng.random() < 0.35:
        colour = _blend(colour, recipe.colours[2], _band(phase, 0.75, 0.1))
    return colour, np.zeros_like(x)


def _plaid(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    along, across = _turn(recipe, x, y)
    colour = _fill(recipe.colours[0], x)
    wide, strength = rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.65)
    thin = rng.uniform(0.05, 0.09)
    for phase in (along / recipe.scale, across / recipe.scale):
        colour = _blend(colour, recipe.colours[1], strength * _band(phase, 0.25, wide))
        colour = _blend(colour, recipe.colours[2], 0.75 * _band(phase, 0.75, thin))
    return colour, np.zeros_like(x)


def _dots(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    column, row = x / recipe.scale, y / recipe.scale
    radius = rng.uniform(0.2, 0.32)
    colour = _fill(recipe.colours[0], x)
    for shift in (0.0, 0.5):
        distance = np.hypot(np.mod(column + shift, 1.0) - 0.5, np.mod(row + shift, 1.0) - 0.5)
        colour = _blend(colour, recipe.colours[1], (radius - distance) / 0.04 + 0.5)
    return colour, np.zeros_like(x)


def _knit(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    """Chunky V stitches in columns, some columns raised as ribs."""
    column = np.mod(x / recipe.scale, 1.0) - 0.5
    stitch = np.mod(y / recipe.scale * 1.3 + np.abs(column) * 1.1, 1.0) - 0.5
    height = np.cos(np.pi * column) * (0.45 + 0.55 * np.cos(2 * np.pi * stitch))
    rib = np.cos(2 * np.pi * x / (recipe.scale * rng.integers(3, 6)))
    height = 0.75 * height + 0.35 * rib
    shade = 0.9 + 0.16 * np.clip(height, -1, 1) + 0.03 * noise(rng, x, y, 0.03, 2)
    colour = _fill(recipe.colours[0], x)
    if rng.random() < 0.4:
        colour = _blend(colour, recipe.colours[1], _band(y / 0.22, rng.random(), 0.3))
    return colour * shade[..., None], height


def _print(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    """Flowers, hearts, stars or rings: scattered all over, or one large motif on the chest."""
    colour = _fill(recipe.colours[0], x)
    motif = MOTIFS[rng.integers(len(MOTIFS))]
    if not recipe.all_over:
        colour = _blend(colour, recipe.colours[2], (0.115 - np.hypot(x, y - recipe.chest)) / 0.004)
        return _blend(colour, recipe.colours[1], motif(x / 0.1, (y - recipe.chest) / 0.1) / 0.05), np.zeros_like(x)
    spacing = recipe.scale * 1.8
    steps = np.arange(-0.5 * ATLAS_METRES, 0.5 * ATLAS_METRES, spacing)
    for i, cy in enumerate(steps):
        for cx in steps + (i % 2) * spacing / 2:
            _stamp(colour, recipe, motif, (float(cx), float(cy)), spacing, rng)
    return colour, np.zeros_like(x)


def _stamp(
    colour: Picture,
    recipe: TextureRecipe,
    motif: Callable[[Plane, Plane], Plane],
    centre: tuple[float, float],
    spacing: float,
    rng: np.random.Generator,
) -> None:
    """Draw one turned, jittered motif into `colour`, touching only the texels around it."""
    pixels = len(colour)
    cx, cy = np.array(centre) + rng.normal(0, 0.12, 2) * spacing
    size, turn = spacing * rng.uniform(0.3, 0.5), rng.uniform(0, 2 * np.pi)
    ink = recipe.colours[1 + rng.integers(len(recipe.colours) - 1)]
    reach = size * 1.3 / ATLAS_METRES * pixels
    column, row = (cx / ATLAS_METRES + 0.5) * pixels, (0.5 - cy / ATLAS_METRES) * pixels
    rows = slice(max(int(row - reach), 0), max(int(row + reach) + 2, 0))
    columns = slice(max(int(column - reach), 0), max(int(column + reach) + 2, 0))
    x, y = (plane[rows, columns] for plane in cloth_grid(pixels))
    u, v = (x - cx) / size, (y - cy) / size
    shape = motif(u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn))
    colour[rows, columns] = _blend(colour[rows, columns], ink, shape / 0.15 + 0.5)


def _flower(u: Plane, v: Plane) -> Plane:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    return np.minimum(0.62 + 0.34 * np.cos(5 * angle) - radius, np.abs(radius - 0.2) - 0.06)


def _heart(u: Plane, v: Plane) -> Plane:
    v = v * 1.1 + 0.1
    return 0.55 - np.hypot(u, v - 0.62 * np.sqrt(np.abs(u) + 1e-6))


def _star(u: Plane, v: Plane) -> Plane:
    radius, angle = np.hypot(u, v), np.arctan2(u, v)
    wedge = np.abs(np.mod(angle / (2 * np.pi / 5) + 0.5, 1.0) - 0.5) * 2
    return 0.85 - 0.5 * wedge - radius


def _ring(u: Plane, v: Plane) -> Plane:
    radius = np.hypot(u, v)
    return np.maximum(0.16 - np.abs(radius - 0.66), 0.28 - radius)


def _leaf(u: Plane, v: Plane) -> Plane:
    return np.minimum(0.34 * np.clip(1 - v**2, 0, 1) - np.abs(u), np.abs(u) - 0.03)


MOTIFS = (_flower, _heart, _star, _ring, _leaf)


def _lettering(recipe: TextureRecipe, x: Plane, y: Plane, rng: np.random.Generator) -> tuple[Picture, Plane]:
    colour = _fill(recipe.colours[0], x)
    pixels = x.shape[0]
    width = rng.uniform(0.24, 0.29) / ATLAS_METRES * pixels
    ink = _word(recipe.word, int(width), rng.random() < 0.3)
    row = int((0.5 - recipe.chest / ATLAS_METRES) * pixels - ink.shape[0] / 2)
    column = (pixels - ink.shape[1]) // 2
    canvas = np.zeros((pixels, pixels))
    canvas[row : row + ink.shape[0], column : column + ink.shape[1]] = ink
    return _blend(colour, recipe.colours[1], canvas), np.zeros_like(x)


def _word(word: str, width: int, framed: bool) -> Plane:
    """The word in bold capitals as coverage in [0, 1], `width` texels wide."""
    font = ImageFont.load_default(64)
    left, top, right, bottom = font.getbbox(word, stroke_width=3)
    image = Image.new("L", (int(right - left) + 40, int(bottom - top) + 40), 0)
    draw = ImageDraw.Draw(image)
    draw.text((20 - left, 20 - top), word, fill=255, font=font, stroke_width=3)
    if framed:
        draw.rectangle((1, 1, image.width - 2, image.height - 2), outline=255, width=7)
    height = max(8, min(round(width * image.height / image.width), int(0.75 * width)))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float64) / 255


PAINTERS = {
    "plain": _plain,
    "stripes": _stripes,
    "plaid": _plaid,
    "dots": _dots,
    "print": _print,
    "lettering": _lettering,
    "knit": _knit,
}
