"""The pictures of a scene show the same things in the same places, and differ in look."""

import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from r2r.errors import InputError
from r2r.studio.looks import Cloth, in_shop, photographed, rasterised, raytraced
from r2r.studio.rendering import render_scene
from r2r.studio.scene import LOOKS, Scene, sample_scene
from r2r.studio.stage import build_stage, load_mitsuba
from r2r.studio.truth import look

SIZE = 48


@pytest.fixture
def studio() -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed")
    pytest.importorskip("trimesh", reason="trimesh is not installed")


def edges(picture: np.ndarray) -> np.ndarray:
    grey = picture.mean(-1)
    return np.hypot(np.gradient(grey, axis=0), np.gradient(grey, axis=1))


@pytest.mark.parametrize("subject", ["garment", "person"])
def test_all_looks_show_the_subject_where_the_truth_says(studio: None, subject: str) -> None:
    """In front of a plain wall, edges are stronger along the true outline than off the subject."""
    scene = sample_scene(2, 4, subject)
    stage = build_stage(replace(scene, room=replace(scene.room, backdrop="wall", floor=None)))
    cloth, truth = Cloth(stage), look(stage, SIZE)
    mask = truth.subject
    outline = np.zeros_like(mask)
    outline[1:-1, 1:-1] = (mask[1:-1, 1:-1] != mask[:-2, 1:-1]) | (mask[1:-1, 1:-1] != mask[1:-1, :-2])
    for picture in (rasterised(stage, cloth, SIZE), photographed(stage, cloth, SIZE, 4, mask)):
        strength = edges(picture)
        assert strength[outline].mean() > 1.5 * strength[~mask].mean()


def test_raytraced_renders_have_shadows_and_rasterised_ones_none(studio: None) -> None:
    scene = sample_scene(2, 0, "garment")
    scene = replace(scene, room=replace(scene.room, backdrop="wall", gap=0.15, floor=None))
    stage = build_stage(scene)
    cloth, wall = Cloth(stage), ~look(stage, SIZE).subject
    spread = [
        np.ptp(np.percentile(paint(stage, cloth, SIZE)[wall].mean(-1), [2, 98])) for paint in (rasterised, raytraced)
    ]
    assert spread[1] > 1.3 * spread[0]


@pytest.mark.parametrize("look_name", LOOKS)
def test_pictures_are_repeatable_and_photo_differs_from_render(studio: None, look_name: str) -> None:
    scene = replace(sample_scene(2, 2, "garment"), look=look_name)
    first, second = (render_scene(scene, 32, 4) for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert first["photo"].size == (32, 32) and first["photo"].mode == "RGB" and first["garment_mask"].mode == "L"
    difference = np.abs(np.asarray(first["photo"], float) - np.asarray(first["rendered"], float))
    assert difference.mean() > 4


def test_flat_view_is_one_garment_on_white(studio: None) -> None:
    scene = sample_scene(3, 1, "garment")
    stage = build_stage(scene)
    picture, mask = in_shop(stage, Cloth(stage), SIZE)
    assert 0.1 < mask.mean() < 0.8
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 0.97).all()


def flat_and_worn(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    pictures = render_scene(scene, size, 8)
    masks = [np.asarray(pictures[name]) > 0 for name in ("flat_mask", "garment_mask")]
    return tuple(
        np.asarray(pictures[name], float)[mask] / 255 for name, mask in zip(("flat", "photo"), masks, strict=True)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("index", [0, 5, 9])
def test_colours_of_the_flat_garment_are_those_of_the_worn_one(studio: None, index: int) -> None:
    """Light and exposure differ, so hue and saturation are compared: the balance of the mean colour's channels."""
    flat, worn = flat_and_worn(sample_scene(6, index, "person"), 64)
    balance = [np.log((pixels**2.2).mean(0) / (pixels**2.2).mean()) for pixels in (flat, worn)]
    others, _ = flat_and_worn(sample_scene(6, index + 3, "person"), 64)
    stranger = np.log((others**2.2).mean(0) / (others**2.2).mean())
    assert np.abs(balance[0] - balance[1]).max() < 0.55
    assert np.abs(balance[0] - balance[1]).sum() < np.abs(stranger - balance[1]).sum() + 0.3


def test_without_mitsuba_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "__import__", _without_mitsuba(builtins.__import__))
    load_mitsuba.cache_clear()
    with pytest.raises(InputError, match=r'pip install "r2r\[studio\]"'):
        render_scene(sample_scene(2, 0, "garment"), 16, 1)
    load_mitsuba.cache_clear()


def _without_mitsuba(real: Callable[..., Any]) -> Callable[..., Any]:
    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("mitsuba", "drjit"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    return absent
