"""From scene light to a photograph: exposure, colour, vignette, filmic tone curve and sensor noise (numpy only)."""

import numpy as np
from jaxtyping import Bool, Float

from r2r.studio.scene import Lens

Film = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def develop(film: Film, mask: Mask, lens: Lens, backdrop_brightness: float) -> Film:
    """Linear scene radiance to display sRGB in [0, 1].

    Exposure is metered on the light that falls on the backdrop, so that dark cloth stays dark.
    """
    rng = np.random.default_rng(lens.seed)
    behind = film[~mask] if (~mask).any() else film.reshape(-1, 3)
    light = np.median(behind @ LUMINANCE) / backdrop_brightness
    film = film * (0.95 * 2**lens.exposure / light)
    return _noise(_tone(film * _falloff(film.shape[0], lens.vignette)[..., None], lens.contrast), lens.noise, rng)


def _falloff(size: int, strength: float) -> Float[np.ndarray, "h w"]:
    line = np.linspace(-1, 1, size)
    return 1 - strength * 0.5 * (line[None] ** 2 + line[:, None] ** 2) ** 1.2


def _tone(linear: Film, contrast: float) -> Film:
    """A filmic curve: gamma, a soft shoulder and an S-shaped contrast around mid grey."""
    display = np.maximum(linear, 0) ** (1 / 2.2)
    display = np.where(display > 0.75, 0.75 + 0.25 * np.tanh((display - 0.75) / 0.25), display)
    curved = display + 0.25 * contrast * (display - 0.45) * display * (1 - display) * 4 * 0.5
    return 0.015 + 0.975 * np.clip(curved, 0, 1)


def _noise(display: Film, level: float, rng: np.random.Generator) -> Film:
    """Sensor noise: stronger in the shadows, partly shared by the channels, slightly blurred by demosaicing."""
    size = display.shape[0]
    shared, own = rng.normal(size=(size, size, 1)), rng.normal(size=(size, size, 3))
    own = (own + np.roll(own, 1, 0) + np.roll(own, 1, 1)) / np.sqrt(3)
    strength = level * (1.25 - 0.6 * display)
    return np.clip(display + strength * (0.8 * shared + 0.5 * own), 0, 1)


def kelvin_to_rgb(kelvin: float) -> Float[np.ndarray, "3"]:
    """Linear RGB of a black body relative to a camera balanced at 5500 K, luminance 1 (a smooth fit)."""
    warmth = np.log(5500 / kelvin)
    colour = np.exp(np.array([0.42, 0.0, -0.75]) * warmth)
    return colour / (colour @ LUMINANCE)
