"""One studio scene: what is worn, by whom, in which room and light, sampled from `(seed, index)` alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from r2r.errors import InputError
from r2r.studio.palette import ROOM, SHEET, WOOD, shade
from r2r.studio.people import Person, sample_body, sample_outfit, sample_pose
from r2r.studio.textures import Colour
from r2r.studio.wardrobe import Garment, sample_garment, uniform

SUBJECTS = ("garment", "person", "mixed")
LOOKS = ("rasterised", "raytraced")


@dataclass(frozen=True)
class View:
    """Camera and framing: degrees; `fill` is the share of the frame that the subject spans; offsets in frames.

    `low` is the share of the subject's height that lies below the picture (0: all of it is shown).
    """

    yaw: float
    pitch: float
    roll: float
    fill: float
    shift_x: float
    shift_y: float
    low: float = 0.0


@dataclass(frozen=True)
class Light:
    """The key light: direction in degrees, `size` and `distance` in metres, kelvin, and the share of fill light."""

    azimuth: float
    elevation: float
    size: float
    distance: float
    kelvin: float
    fill: float
    fill_kelvin: float


@dataclass(frozen=True)
class Room:
    """What is behind the subject; `gap` is its distance in metres; `floor` its colour or none."""

    backdrop: str
    colour: Colour
    gap: float
    floor: Colour | None
    seed: int


@dataclass(frozen=True)
class Lens:
    """How the photo is taken: aperture radius in frames, exposure in stops, vignette, noise in display units."""

    aperture: float
    exposure: float
    vignette: float
    noise: float
    contrast: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that the pictures of one scene are made from.

    `identity` is the index of the first scene with the same subject: a person in the same clothes, seen in `view`s of
    other poses. The first garment is the one that `garment_mask` and `flat` show.
    """

    seed: int
    index: int
    identity: int
    caption: str
    garments: tuple[Garment, ...]
    person: Person | None
    look: str
    view: View
    light: Light
    room: Room
    lens: Lens

    @property
    def category(self) -> str:
        return self.garments[0].category

    @property
    def subject(self) -> str:
        """A "person", or a "garment" alone."""
        return "garment" if self.person is None else "person"

    def record(self) -> dict[str, Any]:
        """The JSON of a shard sample: caption, categories, identity, and every scene parameter."""
        return {
            "caption": self.caption,
            "category": self.category,
            "texture": self.garments[0].texture.kind,
            "seed": self.seed,
            "identity": self.identity,
            "view": self.index - self.identity,
            "subject": self.subject,
            "look": self.look,
            "garments": [
                {"category": g.category, "slot": g.slot, "caption": g.caption, "texture": g.texture.kind}
                for g in self.garments
            ],
            "scene": asdict(self),
        }


def sample_scene(seed: int, index: int, subject: str = "mixed", views: int = 3) -> Scene:
    """The scene number `index` of the collection `seed`; the same on every machine, whatever else is rendered.

    A `subject` "person" has `views` scenes, one after the other; "mixed" takes turns: `views` garments alone, then a
    person in as many views. Raises: InputError for any other subject.
    """
    if subject not in SUBJECTS:
        raise InputError(f"subject={subject} is none of {', '.join(SUBJECTS)}")
    block = index // views
    if subject == "garment" or (subject == "mixed" and block % 2 == 0):
        return _garment_scene(seed, index)
    return _person_scene(seed, index, block * views)


def _garment_scene(seed: int, index: int) -> Scene:
    """One garment lying on a floor or bed, or hanging in front of a wall."""
    rng = np.random.default_rng([seed, index])
    garment = sample_garment(rng)
    view = View(
        yaw=round(float(np.clip(rng.normal(0, 13), -28, 28)), 3),
        pitch=uniform(rng, -5.0, 5.0),
        roll=round(float(rng.normal(0, 2.5)), 3),
        fill=uniform(rng, 0.8, 0.92),
        shift_x=uniform(rng, -0.02, 0.02),
        shift_y=uniform(rng, -0.02, 0.02),
    )
    light, room = _light(rng), _room(rng, flat_lay=bool(rng.random() < 0.5))
    look = str(rng.choice(LOOKS))
    return Scene(seed, index, index, garment.caption, (garment,), None, look, view, light, room, _lens(rng))


def _person_scene(seed: int, index: int, identity: int) -> Scene:
    """A person standing in a room; body, clothes and room belong to the identity, the rest to the view."""
    who, rng = np.random.default_rng([seed, identity, 1]), np.random.default_rng([seed, index, 2])
    body, garments, room = sample_body(who), sample_outfit(who), _standing_room(who)
    facing = float(rng.choice([0.0, 0.0, 0.0, 0.0, 0.0, 60.0, -60.0, 180.0]))
    view = View(
        yaw=round(float(facing + np.clip(rng.normal(0, 14), -28, 28)), 3),
        pitch=uniform(rng, -4.0, 4.0),
        roll=round(float(rng.normal(0, 1.0)), 3),
        fill=uniform(rng, 0.86, 0.94),
        shift_x=uniform(rng, -0.03, 0.03),
        shift_y=uniform(rng, -0.01, 0.02),
        low=float(rng.choice([0.0, 0.0, 0.25, 0.4])),
    )
    person, look = Person(body, sample_pose(rng)), str(rng.choice(LOOKS))
    caption = f"person wearing {' and '.join(garment.caption for garment in garments)}"
    return Scene(seed, index, identity, caption, garments, person, look, view, _light(rng), room, _lens(rng))


def _light(rng: np.random.Generator) -> Light:
    warm = bool(rng.random() < 0.5)
    return Light(
        azimuth=uniform(rng, 18.0, 62.0) * float(rng.choice([-1, 1])),
        elevation=uniform(rng, 22.0, 58.0),
        size=uniform(rng, 0.5, 1.3),
        distance=uniform(rng, 1.8, 2.6),
        kelvin=uniform(rng, 3600.0, 4800.0) if warm else uniform(rng, 5600.0, 7400.0),
        fill=uniform(rng, 0.1, 0.24),
        fill_kelvin=uniform(rng, 5800.0, 8000.0) if warm else uniform(rng, 3800.0, 5200.0),
    )


def _room(rng: np.random.Generator, flat_lay: bool) -> Room:
    backdrop = str(rng.choice(["wood", "sheet", "rug"], p=[0.4, 0.4, 0.2])) if flat_lay else "wall"
    if not flat_lay and rng.random() < 0.2:
        backdrop = "wood"
    colours = {"wall": ROOM, "rug": ROOM, "sheet": SHEET, "wood": WOOD}[backdrop]
    floor = shade(WOOD[rng.integers(len(WOOD))], rng) if backdrop == "wall" and rng.random() < 0.5 else None
    gap = uniform(rng, 0.0, 0.02) if flat_lay else uniform(rng, 0.02, 0.22)
    colour = shade(colours[rng.integers(len(colours))], rng, 0.04)
    return Room(backdrop, colour, gap, floor, int(rng.integers(2**31)))


def _standing_room(rng: np.random.Generator) -> Room:
    colour, floor = shade(ROOM[rng.integers(len(ROOM))], rng, 0.04), shade(WOOD[rng.integers(len(WOOD))], rng)
    return Room("wall", colour, uniform(rng, 0.2, 0.7), floor, int(rng.integers(2**31)))


def _lens(rng: np.random.Generator) -> Lens:
    return Lens(
        aperture=uniform(rng, 0.006, 0.02),
        exposure=round(float(rng.normal(0.0, 0.16)), 4),
        vignette=uniform(rng, 0.12, 0.4),
        noise=uniform(rng, 0.005, 0.012),
        contrast=uniform(rng, 0.9, 1.15),
        seed=int(rng.integers(2**31)),
    )
