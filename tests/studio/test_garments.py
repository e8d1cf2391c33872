"""Meshes are finite, closed where cloth is closed, textured inside the atlas, and the same for the same scene."""

import numpy as np
import pytest

from r2r.studio.garments import GarmentShape, build_garment
from r2r.studio.wardrobe import CATEGORIES, sample_garment


def shape_of(category: str, seed: int = 5) -> GarmentShape:
    return sample_garment(np.random.default_rng(seed), category).shape


@pytest.mark.parametrize("category", CATEGORIES)
def test_parts_are_clean_meshes(category: str) -> None:
    parts = build_garment(shape_of(category))
    for part in parts:
        assert np.isfinite(part.vertices).all()
        assert part.faces.min() == 0 and part.faces.max() == len(part.vertices) - 1
        assert part.uv.min() >= 0 and part.uv.max() <= 1
        assert part.material in ("fabric", "trim", "button")


@pytest.mark.parametrize("category", CATEGORIES)
def test_size_is_that_of_clothing(category: str) -> None:
    shape = shape_of(category)
    points = np.concatenate([part.vertices for part in build_garment(shape)])
    width, height, depth = np.ptp(points, axis=0)
    assert height == pytest.approx(shape.length, abs=0.12)
    assert 0.25 < width < 1.6 and 0.08 < depth < 0.8


@pytest.mark.parametrize("category", CATEGORIES)
def test_body_is_an_open_tube_without_tears(category: str) -> None:
    """Every inner edge has two faces; the only borders are the two open ends, closed loops of equal length."""
    body = build_garment(shape_of(category))[0]
    edges = np.sort(np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]]), axis=1)
    border, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 2
    ends = border[counts == 1]
    assert (np.unique(ends, return_counts=True)[1] == 2).all()
    vertices, faces = len(body.vertices), len(body.faces)
    assert vertices - len(border) + faces == 0


def test_texture_does_not_tear_at_the_sides() -> None:
    body = build_garment(shape_of("t-shirt"))[0]
    corners = body.uv[body.faces]
    assert np.ptp(corners, axis=1).max() < 0.05


def test_same_shape_gives_the_same_mesh() -> None:
    first, second = (build_garment(shape_of("hoodie")) for _ in range(2))
    assert all((a.vertices == b.vertices).all() for a, b in zip(first, second, strict=True))
