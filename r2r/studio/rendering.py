"""All pictures of one scene: render, photographic twin, regions, keypoints, and its garments flat in the shop."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from r2r.studio.looks import Cloth, in_shop, photographed, rasterised, raytraced
from r2r.studio.photograph import Film, Mask
from r2r.studio.scene import Scene, View
from r2r.studio.stage import build_stage
from r2r.studio.truth import look, pose_record

PHOTO_SPP = 36
SHOP_VIEW = View(yaw=0.0, pitch=0.0, roll=0.0, fill=0.9, shift_x=0.0, shift_y=0.0)


def render_scene(scene: Scene, resolution: int = 128, spp: int = PHOTO_SPP) -> dict[str, Any]:
    """PIL images by name, each `resolution` squared, and for people the record `pose`.

    `rendered` and `photo` (RGB) show the same scene, pixel by pixel. `parsing` (L) holds numbers of `ATR_18`,
    `garment_mask` (L, 0 or 255) the first garment. `flat` and `flat_mask` show that garment in the shop, `flat_2` and
    `flat_2_mask` the second one where two are worn. `spp` are the photo's samples per pixel.
    Raises InputError when Mitsuba is not installed.
    """
    stage = build_stage(scene)
    cloth, truth = Cloth(stage), look(stage, resolution)
    render = {"rasterised": rasterised, "raytraced": raytraced}[scene.look]
    members: dict[str, Any] = {
        "rendered": _picture(render(stage, cloth, resolution)),
        "photo": _picture(photographed(stage, cloth, resolution, spp, truth.subject)),
        "parsing": Image.fromarray(truth.parsing),
        "garment_mask": _mask(truth.garment_mask()),
    }
    for number, suffix in zip(range(len(scene.garments)), ("", "_2"), strict=False):
        flat, mask = _flat(scene, number, resolution)
        members |= {f"flat{suffix}": _picture(flat), f"flat{suffix}_mask": _mask(mask)}
    return members if scene.person is None else members | {"pose": pose_record(stage, truth)}


def _flat(scene: Scene, number: int, resolution: int) -> tuple[Film, Mask]:
    """One garment of the scene by itself, straight from the front."""
    room = replace(scene.room, gap=0.0)
    alone = replace(scene, garments=(scene.garments[number],), person=None, view=SHOP_VIEW, room=room)
    stage = build_stage(alone)
    return in_shop(stage, Cloth(stage), resolution)


def _picture(values: Film) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))


def _mask(values: Mask) -> Image.Image:
    return Image.fromarray(np.where(values, 255, 0).astype(np.uint8))
