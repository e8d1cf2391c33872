"""The set: placed meshes, camera and room of a scene, and tracing them with Mitsuba 3."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from r2r.errors import InputError
from r2r.studio.figure import build_figure
from r2r.studio.garments import build_garment
from r2r.studio.rooms import draw_backdrop
from r2r.studio.scene import Scene
from r2r.studio.surfaces import Part
from r2r.studio.textures import Colour

CAMERA_DISTANCE = 2.8
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

Pixels = Float[np.ndarray, "h w c"]
Points = Float[np.ndarray, "n 3"]


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


@dataclass(frozen=True)
class Stage:
    """A scene, placed; lengths in metres.

    `frame` is the picture's side at the subject, `aim` what the camera looks at, `back` and `front` the subject's
    extent in depth, `ground` the height of the floor, `joints` a person's 17 keypoints (none for a garment alone).
    """

    scene: Scene
    parts: list[Part]
    joints: Points
    frame: float
    aim: Float[np.ndarray, "2"]
    back: float
    front: float
    ground: float
    backdrop: Pixels
    relief: Float[np.ndarray, "h w"]

    @property
    def backdrop_brightness(self) -> float:
        """Mean linear luminance of the backdrop's albedo."""
        return float((self.backdrop**2.2).mean(axis=(0, 1)) @ LUMINANCE)

    @property
    def light_direction(self) -> Float[np.ndarray, "3"]:
        """Unit vector towards the key light."""
        azimuth, elevation = np.deg2rad([self.scene.light.azimuth, self.scene.light.elevation])
        return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])

    @property
    def eye(self) -> Float[np.ndarray, "3"]:
        """Where the camera is."""
        return np.array([*self.aim, CAMERA_DISTANCE * self.frame + self.front])

    @cached_property
    def normals(self) -> list[Points]:
        """Unit normals at the vertices of each part; every look at the stage needs them."""
        import trimesh

        return [trimesh.Trimesh(part.vertices, part.faces, process=False).vertex_normals for part in self.parts]

    def sensor(self, aperture: float = 0.0) -> dict[str, Any]:
        """The camera; `aperture` is the radius of its lens in frames, 0 for a pinhole."""
        mi = load_mitsuba()
        pose = mi.ScalarTransform4f().look_at(list(self.eye), [*map(float, self.aim), 0.0], [0, 1, 0])
        fov = 2 * np.rad2deg(np.arctan(0.5 * self.frame / self.eye[2]))
        lens = {"aperture_radius": aperture * self.frame, "focus_distance": CAMERA_DISTANCE * self.frame}
        kind = {"type": "thinlens", **lens} if aperture else {"type": "perspective"}
        return {**kind, "fov": float(fov), "to_world": pose}

    def project(self, points: Points, resolution: int) -> Float[np.ndarray, "n 3"]:
        """Pixel coordinates (x, y) of points in space, and their distance from the camera in metres."""
        offset = points - self.eye
        scale = resolution * self.eye[2] / self.frame / -offset[:, 2]
        x, y = resolution / 2 + offset[:, 0] * scale, resolution / 2 - offset[:, 1] * scale
        return np.stack([x, y, np.linalg.norm(offset, axis=1)], 1)

    def meshes(self, material: Callable[[Part], dict[str, Any]]) -> dict[str, Any]:
        """The subject as Mitsuba shapes named `part_000`, ...; each material is built once."""
        mi, built = load_mitsuba(), dict[tuple[str, int], Any]()
        shapes: dict[str, Any] = {}
        for index, (part, normals) in enumerate(zip(self.parts, self.normals, strict=True)):
            key = (part.material, part.garment)
            if key not in built:
                built[key] = mi.load_dict({"type": "twosided", "bsdf": material(part)})
            shapes[f"part_{index:03d}"] = _mesh(mi, f"part_{index:03d}", part, normals, built[key])
        return shapes

    def walls(self, surface: Callable[[dict[str, Any]], dict[str, Any]], bumps: bool) -> dict[str, Any]:
        """The backdrop, 2.4 frames wide, and a floor when the room has one; `surface` makes a material of a colour."""
        place, half = load_mitsuba().ScalarTransform4f, 1.2 * self.frame
        depth = self.back - self.scene.room.gap
        colour = surface(bitmap(self.backdrop))
        bump = {"type": "bumpmap", "map": bitmap(self.relief[..., None], raw=True), "b": colour}
        centre = [*map(float, self.aim), depth]
        wall = place().translate(centre) @ place().scale([half, half, 1])
        walls: dict[str, Any] = {"backdrop": {"type": "rectangle", "to_world": wall, "bsdf": bump if bumps else colour}}
        if self.scene.room.floor is not None:
            lying = place().translate([float(self.aim[0]), self.ground, depth + half]) @ place().rotate([1, 0, 0], -90)
            floor = {"type": "rectangle", "to_world": lying @ place().scale(half)}
            walls["floor"] = floor | {"bsdf": surface(rgb(self.scene.room.floor))}
        return walls

    def solid(self, part: Part) -> Colour:
        """The colour of a part that is not cloth."""
        garment = self.scene.garments[part.garment]
        own = {"trim": garment.trim, "button": garment.button}
        person = self.scene.person
        return own[part.material] if part.material in own or person is None else person.body.colours[part.material]


def build_stage(scene: Scene) -> Stage:
    """Build the subject, turn it as the view asks, and measure the frame that holds it."""
    view = scene.view
    parts, joints = _subject(scene)
    squash = np.array([1.0, 1.0, 0.6 if scene.room.gap < 0.02 else 1.0])
    turn = np.diag(squash) @ _rotation(view.pitch, view.yaw, view.roll).T
    points = np.concatenate([part.vertices for part in parts]) @ turn
    low, high = points.min(0), points.max(0)
    origin = np.array([*(low + high)[:2] / 2, 0.0])
    parts = [replace(part, vertices=part.vertices @ turn - origin) for part in parts]
    size = (high - low)[:2] * np.array([1.0, 1.0 - view.low])
    frame = float(size.max() / view.fill)
    aim = np.array([view.shift_x, view.shift_y]) * frame + np.array([0.0, view.low * (high - low)[1] / 2])
    ground = float(low[1] - origin[1]) - (0.02 if scene.person is None else 0.0)
    backdrop, relief = draw_backdrop(scene.room)
    return Stage(
        scene, parts, joints @ turn - origin, frame, aim, float(low[2]), float(high[2]), ground, backdrop, relief
    )


def _subject(scene: Scene) -> tuple[list[Part], Points]:
    """The person, or the garment alone, and the person's joints."""
    if scene.person is not None:
        figure = build_figure(scene.person, scene.garments)
        return figure.parts, figure.joints
    (garment,) = scene.garments
    return [replace(part, label=garment.label) for part in build_garment(garment.shape)], np.zeros((0, 3))


def trace(description: dict[str, Any], resolution: int, spp: int, seed: int, *, soft: bool = True) -> Pixels:
    """Render a Mitsuba description; linear values and alpha. `soft` pixels blend into their neighbours a little."""
    mi = load_mitsuba()
    filtered = {"type": "gaussian", "stddev": 0.45} if soft else {"type": "box"}
    film = {"type": "hdrfilm", "width": resolution, "height": resolution, "pixel_format": "rgba", "rfilter": filtered}
    sampler = {"type": "multijitter" if soft else "independent", "sample_count": spp}
    sensor = description["sensor"] | {"film": film, "sampler": sampler}
    return np.array(mi.render(mi.load_dict(description | {"sensor": sensor}), spp=spp, seed=seed))


def bitmap(values: Pixels, raw: bool = False) -> dict[str, Any]:
    """A texture from colours (sRGB in [0, 1]), or from `raw` numbers."""
    mi = load_mitsuba()
    array = values.astype(np.float32) if raw else (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return {"type": "bitmap", "bitmap": mi.Bitmap(array), "raw": raw, "wrap_mode": "repeat"}


def rgb(colour: Colour) -> dict[str, Any]:
    """A constant colour given in sRGB."""
    return spectrum(np.array(colour) ** 2.2)


def spectrum(values: Float[np.ndarray, "3"]) -> dict[str, Any]:
    """A constant linear RGB value."""
    return {"type": "rgb", "value": [float(value) for value in values]}


def _rotation(pitch: float, yaw: float, roll: float) -> Float[np.ndarray, "3 3"]:
    x, y, z = np.deg2rad([pitch, yaw, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _mesh(mi: Any, name: str, part: Part, normals: Points, material: Any) -> Any:
    properties = mi.Properties()
    properties["bsdf"] = material
    mesh = mi.Mesh(name, len(part.vertices), len(part.faces), properties, True, True)
    values = mi.traverse(mesh)
    values["vertex_positions"] = part.vertices.astype(np.float32).ravel()
    values["vertex_normals"] = normals.astype(np.float32).ravel()
    values["vertex_texcoords"] = part.uv.astype(np.float32).ravel()
    values["faces"] = part.faces.astype(np.uint32).ravel()
    values.update()
    return mesh
