"""Named cloth and room colours (sRGB in [0, 1])."""

import numpy as np

from r2r.studio.textures import Colour

CLOTH: dict[str, tuple[int, int, int]] = {
    "white": (236, 234, 229),
    "cream": (232, 220, 194),
    "beige": (203, 182, 150),
    "grey": (140, 141, 144),
    "charcoal": (66, 68, 73),
    "black": (33, 33, 36),
    "navy": (36, 46, 82),
    "blue": (52, 96, 168),
    "light blue": (150, 186, 218),
    "teal": (34, 116, 122),
    "green": (62, 124, 78),
    "olive": (104, 106, 62),
    "mint": (168, 212, 190),
    "yellow": (230, 190, 70),
    "mustard": (196, 148, 48),
    "orange": (218, 118, 52),
    "red": (184, 44, 46),
    "burgundy": (110, 32, 48),
    "pink": (224, 150, 166),
    "purple": (110, 72, 138),
    "lavender": (178, 166, 212),
    "brown": (112, 78, 56),
}
LIGHT = ("white", "cream", "beige", "light blue", "mint", "yellow", "pink", "lavender")
ROOM: tuple[tuple[int, int, int], ...] = (
    (214, 207, 194), (196, 198, 197), (222, 216, 206), (176, 186, 184), (203, 189, 172), (188, 176, 190),
    (160, 172, 186), (226, 222, 216), (148, 140, 130),
)  # fmt: skip
SHEET: tuple[tuple[int, int, int], ...] = (
    (228, 224, 216), (140, 34, 66), (60, 76, 104), (196, 176, 150), (90, 116, 110), (216, 196, 196), (178, 60, 58),
    (120, 124, 132),
)  # fmt: skip
WOOD: tuple[tuple[int, int, int], ...] = (
    (176, 132, 88), (146, 100, 62), (198, 164, 122), (122, 108, 96), (96, 66, 46), (206, 190, 168),
)  # fmt: skip


def shade(rgb: tuple[int, int, int], rng: np.random.Generator, jitter: float = 0.03) -> Colour:
    """A named colour with a little variation."""
    values = np.clip(np.array(rgb) / 255 * (1 + rng.normal(0, jitter)) + rng.normal(0, jitter * 0.6, 3), 0.02, 0.96)
    red, green, blue = (float(value) for value in values.round(4))
    return red, green, blue


def pick_colours(rng: np.random.Generator, count: int) -> list[str]:
    """Different names that go together: the second contrasts in lightness with the first."""
    names = list(CLOTH)
    first = names[rng.integers(len(names))]
    dark = [name for name in names if name not in LIGHT]
    second = rng.choice([name for name in (dark if first in LIGHT else LIGHT) if name != first])
    rest = [name for name in names if name not in (first, second)]
    return [first, str(second), *(str(name) for name in rng.permutation(rest)[: count - 2])]
