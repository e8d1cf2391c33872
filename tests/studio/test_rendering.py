"""The two pictures show the same garment in the same place and differ in look."""

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from r2r.errors import InputError
from r2r.studio.rendering import BACKDROP_GREY, build_stage, load_mitsuba, render_pair, trace
from r2r.studio.scene import sample_scene
from r2r.studio.textures import draw_texture

SIZE = 48


@pytest.fixture
def studio() -> None:
    pytest.importorskip("mitsuba", reason="mitsuba is not installed")
    pytest.importorskip("trimesh", reason="trimesh is not installed")


@pytest.mark.parametrize("index", [0, 3])
def test_silhouettes_of_both_looks_agree(studio: None, index: int) -> None:
    scene = sample_scene(2, index)
    stage, (colour, height) = build_stage(scene), draw_texture(scene.texture, 96)
    photo = {key: value for key, value in stage.photo(colour, height).items() if key not in ("backdrop", "floor")}
    draft, blurred = (trace(look, SIZE, 8, 0)[..., 3] > 0.5 for look in (stage.draft(colour), photo))
    assert (draft & blurred).sum() / (draft | blurred).sum() > 0.93


def test_mask_is_where_the_draft_leaves_its_backdrop(studio: None) -> None:
    pictures = render_pair(sample_scene(2, 1), SIZE, 4)
    mask = np.asarray(pictures["garment_mask"]) > 0
    backdrop = np.abs(np.asarray(pictures["rendered"]) / 255 - BACKDROP_GREY).max(-1) < 0.01
    assert 0.1 < mask.mean() < 0.8
    assert (mask & backdrop).mean() < 0.01 and (~mask & ~backdrop).mean() < 0.12


def test_pair_is_repeatable_and_its_looks_differ(studio: None) -> None:
    first, second = (render_pair(sample_scene(2, 2), 32, 4) for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert first["photo"].size == (32, 32) and first["photo"].mode == "RGB" and first["garment_mask"].mode == "L"
    difference = np.abs(np.asarray(first["photo"], float) - np.asarray(first["rendered"], float))
    assert difference.mean() > 8


def test_without_mitsuba_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "__import__", _without_mitsuba(builtins.__import__))
    load_mitsuba.cache_clear()
    with pytest.raises(InputError, match=r'pip install "r2r\[studio\]"'):
        render_pair(sample_scene(2, 0), 16, 1)
    load_mitsuba.cache_clear()


def _without_mitsuba(real: Callable[..., Any]) -> Callable[..., Any]:
    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("mitsuba", "drjit"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    return absent
