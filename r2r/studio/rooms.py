"""Backdrops of the photo: plaster wall, wooden boards, bed sheet, rug (numpy only)."""

import numpy as np
from jaxtyping import Float

from r2r.studio.scene import Room
from r2r.studio.textures import noise

BACKDROP_PIXELS = 320
Plane = Float[np.ndarray, "h w"]
Picture = Float[np.ndarray, "h w 3"]


def draw_backdrop(room: Room) -> tuple[Picture, Plane]:
    """Colour (sRGB, [0, 1]) and relief (metres) of the backdrop, which spans about 2.4 picture frames."""
    rng = np.random.default_rng(room.seed)
    line = np.linspace(-1.0, 1.0, BACKDROP_PIXELS)
    x, y = np.meshgrid(line, -line)
    tone, relief = {"wall": _wall, "wood": _wood, "sheet": _sheet, "rug": _rug}[room.backdrop](rng, x, y)
    return np.clip(np.array(room.colour) * tone[..., None], 0.02, 0.97), relief


def _wall(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    tone = 1 + 0.025 * noise(rng, x, y, 0.9, 3) + 0.012 * rng.normal(size=x.shape)
    if rng.random() < 0.3:
        seam = rng.uniform(0.25, 0.45) * rng.choice([-1, 1])
        tone = tone * (1 - 0.45 * np.exp(-(((x - seam) / 0.008) ** 2)))
    return tone, 0.0008 * noise(rng, x, y, 0.1, 2)


def _wood(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    if rng.random() < 0.5:
        x, y = y, x
    width = rng.uniform(0.14, 0.3)
    board = np.floor(x / width)
    shades = rng.normal(1, 0.08, 64)[(board.astype(int) + 32) % 64]
    shift = rng.uniform(0, 9, 64)[(board.astype(int) + 32) % 64]
    grain = noise(rng, x + 0.02 * np.sin(3 * y + shift), y + shift, 0.035, 3, stretch=14.0)
    edge = np.abs(np.mod(x / width, 1.0) - 0.5) * 2
    groove = np.exp(-(((1 - edge) * width / 0.007) ** 2))
    return shades * (1 + 0.08 * grain) * (1 - 0.55 * groove), -0.004 * groove + 0.0006 * grain


def _sheet(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    bent_x, bent_y = x + 0.12 * noise(rng, x, y, 0.9, 2), y + 0.12 * noise(rng, x, y, 0.9, 2)
    ridges = (1 - np.abs(noise(rng, bent_x, bent_y, 0.8, 2))) * np.clip(0.5 + 0.6 * noise(rng, x, y, 1.0, 1), 0, 1)
    weave = 1 + 0.02 * noise(rng, x, y, 0.03, 2)
    if rng.random() < 0.2:
        weave = weave * (1 - 0.18 * (np.sin(2 * np.pi * x / rng.uniform(0.1, 0.2)) > 0.4))
    return weave, 0.022 * ridges + 0.002 * noise(rng, x, y, 0.3, 1)


def _rug(rng: np.random.Generator, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    tufts = noise(rng, x, y, 0.05, 3)
    return 0.95 + 0.11 * tufts + 0.05 * rng.normal(size=x.shape), 0.004 * tufts
