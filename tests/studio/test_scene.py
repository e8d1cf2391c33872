"""Scenes depend on seed and index alone, cover every kind, keep identities together; captions name no domain."""

import json
import re

import pytest

from r2r.errors import InputError
from r2r.studio.scene import LOOKS, Scene, sample_scene
from r2r.studio.textures import TEXTURES
from r2r.studio.wardrobe import CATEGORIES, SLOTS

SCENES = [sample_scene(9, index, "garment") for index in range(200)]
PEOPLE = [sample_scene(9, index, "person", views=3) for index in range(90)]


def test_same_seed_and_index_give_the_same_scene() -> None:
    assert sample_scene(9, 17, "garment") == SCENES[17]
    assert sample_scene(9, 18, "garment") != SCENES[17]
    assert sample_scene(8, 17, "garment") != SCENES[17]
    assert sample_scene(9, 17, "person") == PEOPLE[17]


def test_every_category_texture_and_look_occurs() -> None:
    assert {scene.category for scene in SCENES} == set(CATEGORIES)
    assert {scene.garments[0].texture.kind for scene in SCENES} == set(TEXTURES)
    assert {scene.look for scene in SCENES} == set(LOOKS)


def test_views_of_a_person_share_body_clothes_and_room_alone() -> None:
    for start in range(0, len(PEOPLE), 3):
        views = PEOPLE[start : start + 3]
        assert {scene.identity for scene in views} == {start}
        first, second = (scene.person for scene in views[:2])
        assert first is not None and second is not None and first.body == second.body and first.pose != second.pose
        assert views[0].garments == views[1].garments and views[0].room == views[1].room
        assert views[0].view != views[1].view and views[0].light != views[1].light
    assert PEOPLE[0].garments != PEOPLE[3].garments


def test_people_wear_an_upper_and_a_lower_garment_or_one_for_both() -> None:
    worn = {tuple(garment.slot for garment in scene.garments) for scene in PEOPLE}
    assert worn == {("upper", "lower"), ("full",)}


def test_mixed_takes_turns_and_shares_its_scenes_with_the_others() -> None:
    mixed = [sample_scene(9, index, "mixed", views=3) for index in range(12)]
    assert [scene.subject for scene in mixed] == (["garment"] * 3 + ["person"] * 3) * 2
    assert mixed[:3] == SCENES[:3] and mixed[3:6] == PEOPLE[3:6]
    with pytest.raises(InputError, match="subject=cat is none of garment, person, mixed"):
        sample_scene(9, 0, "cat")


def test_captions_name_colour_and_category_but_no_domain() -> None:
    domain = re.compile(r"photo|render|real|3d|cgi|picture|image|studio", re.IGNORECASE)
    for scene in SCENES + PEOPLE:
        assert not domain.search(scene.caption)
        for garment in scene.garments:
            assert garment.category in scene.caption and garment.colours[0] in scene.caption


@pytest.mark.parametrize("scene", [SCENES[0], PEOPLE[4]], ids=["garment", "person"])
def test_record_survives_json(scene: Scene) -> None:
    record = json.loads(json.dumps(scene.record()))
    assert record["caption"] == scene.caption and record["scene"]["view"]["yaw"] == scene.view.yaw
    assert {"caption", "category", "texture", "seed", "identity", "subject", "look"} <= set(record)
    assert [each["slot"] for each in record["garments"]] == [SLOTS[g.category] for g in scene.garments]
    assert record["identity"] + record["view"] == scene.index
