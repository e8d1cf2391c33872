"""The camera: metered on the light, monotone in the dark-to-bright direction, warm light red, cool light blue."""

from dataclasses import replace

import numpy as np

from r2r.studio.photograph import develop, kelvin_to_rgb
from r2r.studio.scene import Lens

LENS = Lens(aperture=0.01, exposure=0.0, vignette=0.0, noise=0.0, contrast=1.0, seed=0)
MASK = np.zeros((16, 16), dtype=bool)


def test_metering_cancels_the_power_of_the_lamp() -> None:
    film = np.random.default_rng(0).uniform(0.1, 0.6, (16, 16, 3))
    assert np.allclose(develop(film, MASK, LENS, 0.4), develop(7 * film, MASK, LENS, 0.4))


def test_tone_curve_is_monotone_and_in_range() -> None:
    film = np.repeat(np.linspace(0, 6, 256).reshape(16, 16, 1), 3, -1)
    values = develop(film, MASK, LENS, 0.5)[..., 0].ravel()
    assert (np.diff(values) >= -1e-9).all() and values.min() >= 0 and values.max() <= 1


def test_vignette_darkens_corners_and_noise_depends_on_the_seed() -> None:
    film = np.full((16, 16, 3), 0.4)
    dark = develop(film, MASK, replace(LENS, vignette=0.4), 0.4)
    assert dark[0, 0, 0] < dark[8, 8, 0] - 0.05
    noisy = [develop(film, MASK, replace(LENS, noise=0.01, seed=seed), 0.4) for seed in (1, 1, 2)]
    assert (noisy[0] == noisy[1]).all() and (noisy[0] != noisy[2]).any()


def test_colour_temperature() -> None:
    warm, neutral, cool = (kelvin_to_rgb(kelvin) for kelvin in (3000.0, 5500.0, 8000.0))
    assert warm[0] > warm[2] and cool[2] > cool[0] and np.allclose(neutral, 1)
