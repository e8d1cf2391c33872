"""How a stage is looked at: two kinds of cheap render, the photographic twin, and the flat view of a shop.

The first three share meshes, textures, camera, room and the place of the key light. A *rasterised* render is shaded
pixel by pixel without shadows, a *raytraced* one has hard shadows and light between surfaces. Both are dim, like a
preview that no exposure is metered for, and neither has a lens, wrinkled cloth, coloured light, a tone curve or noise.
The photo has them all.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from r2r.studio.photograph import Film, Mask, develop, kelvin_to_rgb
from r2r.studio.stage import Pixels, Stage, bitmap, load_mitsuba, rgb, spectrum, trace
from r2r.studio.surfaces import Part
from r2r.studio.textures import Plane, TextureRecipe, draw_texture, wrinkles
from r2r.studio.wardrobe import Garment

RASTER_SPP, RAYTRACED_SPP, SHOP_SPP = 6, 16, 16
ROUGHNESS = {"skin": 0.5, "hair": 0.5, "lip": 0.35, "eye": 0.15, "shoe": 0.35, "button": 0.25}
"""In the photo, of what is not cloth; other solids have 0.6."""


class Cloth:
    """The drawn cloth of every garment on a stage, and the materials made of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.colours = [bitmap(_drawn(each.texture)[0]) for each in stage.scene.garments]

    def colour(self, part: Part) -> dict[str, Any]:
        """What a part is painted with."""
        return self.colours[part.garment] if part.material == "fabric" else rgb(self.stage.solid(part))

    def matte(self, part: Part) -> dict[str, Any]:
        """Plain diffuse material of a render."""
        return {"type": "diffuse", "reflectance": self.colour(part)}

    def photographed(self, part: Part) -> dict[str, Any]:
        """Wrinkled rough cloth with sheen; skin, hair and shoes with their own gloss."""
        surface = {"type": "principled", "base_color": self.colour(part), "specular": 0.3}
        if part.material not in ("fabric", "trim"):
            return surface | {"roughness": ROUGHNESS.get(part.material, 0.6), "specular": 0.5}
        garment = self.stage.scene.garments[part.garment]
        relief = _relief(garment)
        surface |= {"roughness": garment.roughness, "sheen": garment.sheen, "sheen_tint": 0.4}
        return {"type": "bumpmap", "map": bitmap(relief[..., None], raw=True), "bsdf": surface}


# A garment is looked at several times: in the scene as cloth and trim, and flat.
@lru_cache(maxsize=2)
def _drawn(texture: TextureRecipe) -> tuple[Pixels, Plane]:
    return draw_texture(texture)


@lru_cache(maxsize=2)
def _relief(garment: Garment) -> Plane:
    """Creases and knit as heights in metres."""
    crease = wrinkles(garment.shape.fold_seed)
    height = Image.fromarray(_drawn(garment.texture)[1].astype(np.float32))
    return crease * garment.wrinkle + np.asarray(height.resize(crease.shape, Image.Resampling.BOX)) * 0.004


def rasterised(stage: Stage, cloth: Cloth, resolution: int) -> Film:
    """Deferred shading as in a real-time preview: ambient, key and head light, a soft highlight, no shadows; sRGB."""
    channels = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}
    film = trace(_set(stage, channels, cloth.matte, _diffuse), resolution, RASTER_SPP, 0)
    albedo, normal = film[..., :3], film[..., 3:]
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    normal = normal * np.where(normal[..., 2:] < 0, -1, 1)  # both sides of a surface are lit as the camera sees them
    key, view = stage.light_direction, np.array([0.0, 0.0, 1.0])
    half = (key + view) / np.linalg.norm(key + view)
    lit = 0.14 + 0.3 * np.maximum(normal @ key, 0) + 0.16 * np.maximum(normal @ view, 0)
    return _display(albedo * lit[..., None] + 0.02 * (np.maximum(normal @ half, 0) ** 24)[..., None])


def raytraced(stage: Stage, cloth: Cloth, resolution: int) -> Film:
    """A clean path-traced preview: one hard white sun, an even sky, light between matte surfaces; sRGB."""
    tracing = {"type": "path", "max_depth": 3, "hide_emitters": True}
    description = _set(stage, tracing, cloth.matte, _diffuse) | {
        "key": {
            "type": "directional",
            "direction": list(-stage.light_direction),
            "irradiance": spectrum(np.full(3, 1.0)),
        },
        "sky": {"type": "constant", "radiance": spectrum(np.full(3, 0.28))},
    }
    return _display(trace(description, resolution, RAYTRACED_SPP, 0)[..., :3])


def photographed(stage: Stage, cloth: Cloth, resolution: int, spp: int, subject: Mask) -> Film:
    """A soft window and room light, wrinkled cloth, a lens, and the camera's colour, tone and noise; sRGB."""
    scene, light = stage.scene, stage.scene.light
    place = _transform()
    window = place().look_at(list(stage.light_direction * light.distance * _reach(stage)), [0.0, 0.0, 0.0], [0, 1, 0])
    power = 11.0 / light.size**2 * light.distance**2 / 4
    tracing = {"type": "path", "max_depth": 4, "hide_emitters": True}
    description = _set(stage, tracing, cloth.photographed, _painted, aperture=scene.lens.aperture) | {
        "window": {
            "type": "rectangle",
            "to_world": window @ place().scale(light.size / 2 * _reach(stage)),
            "emitter": {"type": "area", "radiance": spectrum(power * kelvin_to_rgb(light.kelvin))},
        },
        "fill": {"type": "constant", "radiance": spectrum(light.fill * 2.2 * kelvin_to_rgb(light.fill_kelvin))},
    }
    film = trace(description, resolution, spp, scene.lens.seed)[..., :3]
    return develop(film, subject, scene.lens, stage.backdrop_brightness)


def in_shop(stage: Stage, cloth: Cloth, resolution: int) -> tuple[Film, Mask]:
    """The stage's garment on white under two soft boxes, sRGB, and where it is."""
    place = _transform()
    box = {"type": "rectangle", "emitter": {"type": "area", "radiance": spectrum(np.full(3, 2.6))}}
    boxes = {
        f"box_{side}": box
        | {"to_world": place().look_at([side * 1.6, 1.2, 2.4], [0, 0, 0], [0, 1, 0]) @ place().scale(0.9)}
        for side in (-1, 1)
    }
    description = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 3, "hide_emitters": True},
        "sensor": stage.sensor(),
        "fill": {"type": "constant", "radiance": spectrum(np.full(3, 0.5))},
        **boxes,
        **stage.meshes(cloth.photographed),
    }
    film = trace(description, resolution, SHOP_SPP, 0)
    coverage = np.clip(film[..., 3:4], 0, 1)
    return _display(film[..., :3] + (1 - coverage)), coverage[..., 0] > 0.5


def _set(
    stage: Stage,
    integrator: dict[str, Any],
    material: Callable[[Part], dict[str, Any]],
    wall: Callable[[dict[str, Any]], dict[str, Any]],
    aperture: float = 0.0,
) -> dict[str, Any]:
    """Camera, subject and room; only photos (with an aperture) have walls with relief."""
    room = stage.walls(wall, bumps=aperture > 0)
    return {
        "type": "scene", "integrator": integrator, "sensor": stage.sensor(aperture), **stage.meshes(material), **room
    }  # fmt: skip


def _diffuse(colour: dict[str, Any]) -> dict[str, Any]:
    return {"type": "diffuse", "reflectance": colour}


def _painted(colour: dict[str, Any]) -> dict[str, Any]:
    return {"type": "principled", "base_color": colour, "roughness": 0.5, "specular": 0.3}


def _display(linear: Film) -> Film:
    return np.clip(linear, 0, 1) ** (1 / 2.2)


def _reach(stage: Stage) -> float:
    """Lights stand farther from people than from a garment alone, in proportion to the frame."""
    return max(1.0, stage.frame)


def _transform() -> Any:
    return load_mitsuba().ScalarTransform4f
