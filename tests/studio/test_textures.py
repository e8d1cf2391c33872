"""Texture images: in range, repeatable, and each with the pattern its name says."""

from dataclasses import replace

import numpy as np
import pytest

from r2r.studio.surfaces import ATLAS_METRES
from r2r.studio.textures import TEXTURES, TextureRecipe, draw_texture, wrinkles

RECIPE = TextureRecipe(
    kind="plain",
    colours=((0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.9, 0.9, 0.9)),
    scale=0.1,
    angle=0.0,
    word="HELLO",
    all_over=True,
    chest=0.1,
    seed=11,
)


@pytest.mark.parametrize("kind", TEXTURES)
def test_images_are_in_range_and_repeatable(kind: str) -> None:
    recipe = replace(RECIPE, kind=kind)
    colour, height = draw_texture(recipe, 160)
    assert colour.shape == (160, 160, 3) and height.shape == (160, 160)
    assert colour.min() >= 0 and colour.max() <= 1 and np.abs(height).max() < 2
    assert (draw_texture(recipe, 160)[0] == colour).all()


@pytest.mark.parametrize("kind", sorted(set(TEXTURES) - {"plain", "knit"}))
def test_patterns_show_the_second_colour(kind: str) -> None:
    colour, _ = draw_texture(replace(RECIPE, kind=kind), 256)
    blue = colour[..., 2] - colour[..., 0] > 0.2
    assert 0.001 < blue.mean() < 0.7


def test_stripes_repeat_with_their_scale() -> None:
    colour, _ = draw_texture(replace(RECIPE, kind="stripes"), 320)
    rows = colour[..., 2].mean(1) - colour[..., 2].mean()
    spectrum = np.abs(np.fft.rfft(rows))
    assert np.argmax(spectrum) == round(ATLAS_METRES / RECIPE.scale)


def test_lettering_sits_on_the_chest() -> None:
    colour, _ = draw_texture(replace(RECIPE, kind="lettering"), 320)
    rows, columns = np.nonzero(colour[..., 2] - colour[..., 0] > 0.2)
    assert (0.5 - rows.mean() / 320) * ATLAS_METRES == pytest.approx(RECIPE.chest, abs=0.03)
    assert columns.mean() == pytest.approx(160, abs=6)


def test_wrinkles_depend_on_the_seed() -> None:
    assert (wrinkles(1, 64) == wrinkles(1, 64)).all()
    assert (wrinkles(1, 64) != wrinkles(2, 64)).any()
