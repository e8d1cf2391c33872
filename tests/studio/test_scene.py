"""Scenes depend on seed and index alone, cover every kind, and their captions name no domain."""

import json
import re

from r2r.studio.scene import CATEGORIES, sample_scene
from r2r.studio.textures import TEXTURES

SCENES = [sample_scene(9, index) for index in range(150)]


def test_same_seed_and_index_give_the_same_scene() -> None:
    assert sample_scene(9, 17) == SCENES[17]
    assert sample_scene(9, 18) != SCENES[17]
    assert sample_scene(8, 17) != SCENES[17]


def test_every_category_and_texture_occurs() -> None:
    assert {scene.category for scene in SCENES} == set(CATEGORIES)
    assert {scene.texture.kind for scene in SCENES} == set(TEXTURES)


def test_captions_name_colour_and_category_but_no_domain() -> None:
    domain = re.compile(r"photo|render|real|3d|cgi|picture|image|studio", re.IGNORECASE)
    for scene in SCENES:
        assert not domain.search(scene.caption)
        assert scene.category in scene.caption and scene.colours[0] in scene.caption


def test_record_survives_json() -> None:
    record = json.loads(json.dumps(SCENES[0].record()))
    assert record["caption"] == SCENES[0].caption and record["scene"]["view"]["yaw"] == SCENES[0].view.yaw
    assert {"caption", "category", "texture", "seed"} <= set(record)
