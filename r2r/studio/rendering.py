"""Two pictures of one scene with Mitsuba 3: a cheap real-time look, and its path-traced photographic twin.

Both share meshes, texture, pose, camera and the place of the key light, pixel by pixel.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from r2r.errors import InputError
from r2r.studio.garments import build_garment
from r2r.studio.photograph import develop, kelvin_to_rgb
from r2r.studio.rooms import draw_backdrop
from r2r.studio.scene import Scene
from r2r.studio.surfaces import Part
from r2r.studio.textures import draw_texture, wrinkles

CAMERA_DISTANCE = 2.8
DRAFT_SPP = 12
PHOTO_SPP = 36
BACKDROP_GREY = 0.86

Pixels = Float[np.ndarray, "h w c"]


@cache
def load_mitsuba() -> Any:
    """The mitsuba module, single-threaded in the scalar RGB variant (bytes must not depend on the machine)."""
    try:
        import drjit
        import mitsuba
        import trimesh  # noqa: F401
    except ImportError as error:
        raise InputError(f'the studio needs {error.name}, which is missing; pip install "r2r[studio]"') from error
    mitsuba.set_variant("scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    drjit.set_thread_count(1)
    return mitsuba


def render_pair(scene: Scene, resolution: int = 128, spp: int = PHOTO_SPP) -> dict[str, Image.Image]:
    """`rendered` and `photo` (RGB) and `garment_mask` (L, 0 or 255), each `resolution` squared.

    `spp` are the photo's samples per pixel. Raises InputError when Mitsuba is not installed.
    """
    stage = build_stage(scene)
    colour, height = draw_texture(scene.texture)
    draft = trace(stage.draft(colour), resolution, DRAFT_SPP, 0)
    coverage = np.clip(draft[..., 3:4], 0, 1)
    flat = np.clip(draft[..., :3], 0, 1) + (1 - coverage) * BACKDROP_GREY**2.2
    film = trace(stage.photo(colour, height), resolution, spp, scene.lens.seed)
    mask = coverage[..., 0] > 0.5
    photo = develop(film[..., :3], mask, scene.lens, stage.backdrop_brightness)
    return {
        "rendered": _picture(np.clip(flat, 0, 1) ** (1 / 2.2)),
        "photo": _picture(photo),
        "garment_mask": Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)),
    }


def _picture(values: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))


@dataclass(frozen=True)
class Stage:
    """Placed meshes and the Mitsuba descriptions built from them; the three lengths are metres.

    `frame` is the picture's side at the garment, `back` and `front` the garment's extent in depth.
    """

    scene: Scene
    parts: list[Part]
    frame: float
    back: float
    front: float
    backdrop: Pixels
    relief: Float[np.ndarray, "h w"]

    @property
    def backdrop_brightness(self) -> float:
        """Mean linear luminance of the backdrop's albedo."""
        return float((self.backdrop**2.2).mean(axis=(0, 1)) @ np.array([0.2126, 0.7152, 0.0722]))

    def draft(self, colour: Pixels) -> dict[str, Any]:
        """Hard key light and headlight on plain diffuse cloth; nothing behind."""
        mi = load_mitsuba()
        cloth = {"type": "diffuse", "reflectance": _bitmap(colour)}
        solids = {name: {"type": "diffuse", "reflectance": value} for name, value in self._solid_colours().items()}
        return {
            "type": "scene",
            "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0, "hide_emitters": True},
            "sensor": self._sensor(aperture=0.0),
            "key": {
                "type": "directional",
                "direction": list(-self._light_direction()),
                "irradiance": _spectrum(np.full(3, 1.9)),
            },
            "head": {"type": "directional", "direction": [0.0, -0.15, -1.0], "irradiance": _spectrum(np.full(3, 1.25))},
            **self._meshes(mi, {"fabric": cloth, **solids}),
        }

    def photo(self, colour: Pixels, height: Float[np.ndarray, "h w"]) -> dict[str, Any]:
        """A soft window and room light, wrinkled rough cloth with sheen, and a room behind, through a real lens."""
        mi, light = load_mitsuba(), self.scene.light
        place = mi.ScalarTransform4f
        origin = list(self._light_direction() * light.distance)
        window = place().look_at(origin, [0.0, 0.0, 0.0], [0, 1, 0]) @ place().scale(light.size / 2)
        power = 11.0 / light.size**2 * light.distance**2 / 4
        return {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 4, "hide_emitters": True},
            "sensor": self._sensor(self.scene.lens.aperture),
            "window": {
                "type": "rectangle",
                "to_world": window,
                "emitter": {"type": "area", "radiance": _spectrum(power * kelvin_to_rgb(light.kelvin))},
            },
            "fill": {"type": "constant", "radiance": _spectrum(light.fill * 2.2 * kelvin_to_rgb(light.fill_kelvin))},
            **self._meshes(mi, self._photo_materials(colour, height)),
            **self._walls(mi),
        }

    def _photo_materials(self, colour: Pixels, height: Float[np.ndarray, "h w"]) -> dict[str, Any]:
        scene = self.scene
        crease = wrinkles(scene.shape.fold_seed)
        knit = np.asarray(Image.fromarray(height.astype(np.float32)).resize(crease.shape, Image.Resampling.BOX))
        relief = crease * scene.wrinkle + knit * 0.004
        bump = {"type": "bumpmap", "map": _bitmap(relief[..., None], raw=True)}
        colours = {"fabric": _bitmap(colour)} | self._solid_colours()
        cloth = {"type": "principled", "roughness": scene.roughness, "specular": 0.3}
        cloth |= {"sheen": scene.sheen, "sheen_tint": 0.4}
        materials = {name: bump | {"bsdf": cloth | {"base_color": value}} for name, value in colours.items()}
        shiny = {"type": "principled", "base_color": colours["button"], "roughness": 0.25, "specular": 0.5}
        return materials | {"button": shiny}

    def _walls(self, mi: Any) -> dict[str, Any]:
        """The backdrop, 2.4 frames wide, and a floor below the garment when the room has one."""
        place, half = mi.ScalarTransform4f, 1.2 * self.frame
        depth = self.back - self.scene.room.gap
        surface = {"type": "principled", "base_color": _bitmap(self.backdrop), "roughness": 0.55, "specular": 0.3}
        bump = {"type": "bumpmap", "map": _bitmap(self.relief[..., None], raw=True), "b": surface}
        walls: dict[str, Any] = {
            "backdrop": {
                "type": "rectangle",
                "to_world": place().translate([0, 0, depth]) @ place().scale([half, half, 1]),
                "bsdf": bump,
            }
        }
        if self.scene.room.floor is not None:
            low = float(min(part.vertices[:, 1].min() for part in self.parts)) - 0.02
            lying = place().rotate([1, 0, 0], -90)
            walls["floor"] = {
                "type": "rectangle",
                "to_world": place().translate([0, low, depth + half]) @ lying @ place().scale(half),
                "bsdf": {"type": "principled", "base_color": _rgb(self.scene.room.floor), "roughness": 0.4},
            }
        return walls

    def _solid_colours(self) -> dict[str, dict[str, Any]]:
        return {"trim": _rgb(self.scene.trim), "button": _rgb(self.scene.button)}

    def _light_direction(self) -> Float[np.ndarray, "3"]:
        azimuth, elevation = np.deg2rad([self.scene.light.azimuth, self.scene.light.elevation])
        return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])

    def _sensor(self, aperture: float) -> dict[str, Any]:
        mi, view = load_mitsuba(), self.scene.view
        distance = CAMERA_DISTANCE * self.frame
        aim = [view.shift_x * self.frame, view.shift_y * self.frame, 0.0]
        pose = mi.ScalarTransform4f().look_at([aim[0], aim[1], distance + self.front], aim, [0, 1, 0])
        fov = 2 * np.rad2deg(np.arctan(0.5 * self.frame / (distance + self.front)))
        lens = {"aperture_radius": aperture * self.frame, "focus_distance": distance} if aperture else {}
        return {"type": "thinlens" if aperture else "perspective", "fov": float(fov), "to_world": pose, **lens}

    def _meshes(self, mi: Any, materials: dict[str, Any]) -> dict[str, Any]:
        built = {name: mi.load_dict({"type": "twosided", "bsdf": material}) for name, material in materials.items()}
        return {f"part_{i}": _mesh(mi, f"part_{i}", part, built[part.material]) for i, part in enumerate(self.parts)}


def build_stage(scene: Scene) -> Stage:
    """Turn the garment as the view asks and measure the frame that holds it."""
    turn = _rotation(scene.view.pitch, scene.view.yaw, scene.view.roll)
    squash = np.array([1.0, 1.0, 0.6 if scene.room.gap < 0.02 else 1.0])
    parts = [Part((p.vertices * squash) @ turn.T, p.faces, p.uv, p.material) for p in build_garment(scene.shape)]
    points = np.concatenate([part.vertices for part in parts])
    low, high = points.min(0), points.max(0)
    middle = np.array([*(low + high)[:2] / 2, 0.0])
    parts = [Part(p.vertices - middle, p.faces, p.uv, p.material) for p in parts]
    frame = float((high - low)[:2].max() / scene.view.fill)
    backdrop, relief = draw_backdrop(scene.room)
    return Stage(scene, parts, frame, float(low[2]), float(high[2]), backdrop, relief)


def _rotation(pitch: float, yaw: float, roll: float) -> Float[np.ndarray, "3 3"]:
    x, y, z = np.deg2rad([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _mesh(mi: Any, name: str, part: Part, material: Any) -> Any:
    import trimesh

    properties = mi.Properties()
    properties["bsdf"] = material
    mesh = mi.Mesh(name, len(part.vertices), len(part.faces), properties, True, True)
    normals = trimesh.Trimesh(part.vertices, part.faces, process=False).vertex_normals
    values = mi.traverse(mesh)
    values["vertex_positions"] = part.vertices.astype(np.float32).ravel()
    values["vertex_normals"] = normals.astype(np.float32).ravel()
    values["vertex_texcoords"] = part.uv.astype(np.float32).ravel()
    values["faces"] = part.faces.astype(np.uint32).ravel()
    values.update()
    return mesh


def trace(description: dict[str, Any], resolution: int, spp: int, seed: int) -> Pixels:
    """Linear RGB and coverage of a Mitsuba scene description, (resolution, resolution, 4)."""
    mi = load_mitsuba()
    film = {"type": "hdrfilm", "width": resolution, "height": resolution, "pixel_format": "rgba"}
    film |= {"rfilter": {"type": "gaussian", "stddev": 0.45}}
    sensor = description["sensor"] | {"film": film, "sampler": {"type": "multijitter", "sample_count": spp}}
    return np.array(mi.render(mi.load_dict(description | {"sensor": sensor}), spp=spp, seed=seed))


def _bitmap(values: Pixels, raw: bool = False) -> dict[str, Any]:
    mi = load_mitsuba()
    array = values.astype(np.float32) if raw else (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return {"type": "bitmap", "bitmap": mi.Bitmap(array), "raw": raw, "wrap_mode": "repeat"}


def _rgb(colour: tuple[float, float, float]) -> dict[str, Any]:
    return _spectrum(np.array(colour) ** 2.2)


def _spectrum(values: Float[np.ndarray, "3"]) -> dict[str, Any]:
    return {"type": "rgb", "value": [float(value) for value in values]}
