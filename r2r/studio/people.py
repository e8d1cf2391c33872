"""Who is in a scene: bodies (one identity each), poses, and what they wear.

A body is a handful of proportions, colours and styles; a pose a handful of joint angles; `figure.py` makes meshes of
both.
"""

from dataclasses import dataclass, replace

import numpy as np

from r2r.studio.palette import shade
from r2r.studio.textures import Colour
from r2r.studio.wardrobe import ODDS, SLOTS, Garment, sample_garment, uniform

HAIR_STYLES = ("bald", "cropped", "short", "bob", "long", "bun", "ponytail", "curly", "afro")
SHOES = ("sneaker", "flat", "boot")
POSES = ("standing", "contrapposto", "hand on hip", "walking", "folded", "raised", "reaching")

SKIN_TONES = (
    (247, 218, 199), (240, 200, 175), (226, 182, 150), (208, 158, 120), (186, 134, 98), (158, 108, 76), (128, 84, 58),
    (102, 66, 46), (78, 50, 36), (58, 38, 30),
)  # fmt: skip
HAIR_TONES = (
    (24, 20, 19), (42, 30, 25), (66, 44, 32), (96, 62, 40), (132, 90, 54), (178, 136, 84), (214, 180, 124),
    (150, 72, 36), (120, 48, 30), (150, 148, 146), (206, 204, 200),
)  # fmt: skip
EYE_TONES = ((64, 42, 28), (92, 62, 38), (44, 32, 26), (72, 104, 132), (86, 108, 78), (104, 112, 116))
SHOE_TONES = ((236, 234, 230), (34, 33, 35), (88, 56, 38), (150, 108, 70), (44, 54, 86), (150, 40, 44), (120, 122, 124))


@dataclass(frozen=True)
class Body:
    """One identity.

    `stature` in metres; `build` runs from -1 (feminine) over 0 to 1 (masculine); `girth`, `shoulders`, `hips` and
    `waist` are deviations in [-1, 1] from what is usual for that build, `face` is how wide it is; colours are sRGB in
    [0, 1]. `hair_length` in metres beyond the jaw and `hair_volume` in [0, 1] only matter to some of
    HAIR_STYLES, as does `fringe`, which falls over the forehead above 0.55.
    """

    stature: float
    build: float
    girth: float
    shoulders: float
    hips: float
    waist: float
    face: float
    skin: Colour
    hair_style: str
    hair: Colour
    hair_length: float
    hair_volume: float
    fringe: float
    eyes: Colour
    shoe_kind: str
    shoe: Colour
    sole: Colour

    @property
    def colours(self) -> dict[str, Colour]:
        """The colour of every solid material that is not cloth."""
        lip = np.array(self.skin) * np.array([0.86, 0.64, 0.64]) + np.array([0.03, 0.0, 0.01])
        brow = 0.55 * np.array(self.hair) + 0.2 * np.array(self.skin)
        return {
            "skin": self.skin,
            "lip": _colour(lip),
            "eye": _colour(0.42 * np.array([0.92, 0.91, 0.89]) + 0.42 * np.array(self.skin)),
            "iris": self.eyes,
            "brow": _colour(brow),
            "hair": self.hair,
            "shoe": self.shoe,
            "sole": self.sole,
        }


@dataclass(frozen=True)
class Arm:
    """Degrees: `spread` from hanging to sideways, `swing` forwards, `twist` inwards, bends of `elbow` and `wrist`.

    `turn` is that of the forearm about itself.
    """

    spread: float = 9.0
    swing: float = 0.0
    twist: float = 0.0
    elbow: float = 12.0
    turn: float = 0.0
    wrist: float = 0.0


@dataclass(frozen=True)
class Leg:
    """Degrees: `swing` of the thigh forwards, `spread` sideways, `turn` of the toes outwards, bend of the `knee`."""

    swing: float = 0.0
    spread: float = 3.0
    turn: float = 7.0
    knee: float = 2.0


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; turning is towards the picture's right, leaning forwards, tilting to the left."""

    kind: str = "standing"
    head_turn: float = 0.0
    head_tilt: float = 0.0
    head_nod: float = 0.0
    lean: float = 0.0
    tilt: float = 0.0
    twist: float = 0.0
    hips_roll: float = 0.0
    hips_turn: float = 0.0
    left_arm: Arm = Arm()
    right_arm: Arm = Arm()
    left_leg: Leg = Leg()
    right_leg: Leg = Leg()


@dataclass(frozen=True)
class Person:
    """A body in a pose."""

    body: Body
    pose: Pose


def sample_body(rng: np.random.Generator) -> Body:
    """Any identity."""
    build = float(rng.choice([-1.0, 1.0, 0.0], p=[0.44, 0.4, 0.16]))
    build = float(np.clip(build + rng.normal(0, 0.16), -1, 1))
    stature = float(np.clip(rng.normal(1.71 + 0.07 * build, 0.06), 1.5, 1.95))
    tone = int(rng.integers(len(SKIN_TONES)))
    # Dark skin goes mostly with dark hair; grey and white hair are rarer than the others.
    odds = np.array([1.6, 1.6, 1.4, 1.2, 1.0, 0.9, 0.8, 0.5, 0.5, 0.4, 0.3])
    odds[4:9] *= max(0.05, 1 - 0.2 * tone)
    styles = np.array([0.5, 1.2, 1.3, 1.0, 1.3, 0.9, 0.9, 0.9, 0.6])
    styles *= np.exp(np.array([1.2, 1.0, 0.9, -1.2, -1.4, -1.2, -1.2, -0.3, 0.0]) * build)
    dark_sole = rng.random() < 0.4
    shoe = SHOE_TONES[rng.integers(len(SHOE_TONES))]
    return Body(
        stature=round(stature, 4),
        build=round(build, 4),
        girth=_spread(rng, 0.5),
        shoulders=_spread(rng, 0.4),
        hips=_spread(rng, 0.4),
        waist=_spread(rng, 0.4),
        face=_spread(rng, 0.5),
        skin=shade(SKIN_TONES[tone], rng, 0.02),
        hair_style=str(rng.choice(HAIR_STYLES, p=styles / styles.sum())),
        hair=shade(HAIR_TONES[rng.choice(len(HAIR_TONES), p=odds / odds.sum())], rng, 0.03),
        hair_length=uniform(rng, 0.12, 0.36),
        hair_volume=uniform(rng, 0.0, 1.0),
        fringe=uniform(rng, 0.0, 1.0),
        eyes=shade(EYE_TONES[rng.integers(len(EYE_TONES))], rng, 0.03),
        shoe_kind=str(rng.choice(SHOES, p=[0.5, 0.25, 0.25])),
        shoe=shade(shoe, rng, 0.02),
        sole=shade((40, 38, 37) if dark_sole else (222, 219, 212), rng, 0.02),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """A moderate standing or walking pose, seen from the front, mirrored half of the time."""
    kind = str(rng.choice(POSES, p=[0.2, 0.18, 0.16, 0.18, 0.1, 0.08, 0.1]))
    pose = {
        "standing": _standing, "contrapposto": _contrapposto, "hand on hip": _hand_on_hip, "walking": _walking,
        "folded": _folded, "raised": _raised, "reaching": _reaching,
    }[kind](rng)  # fmt: skip
    pose = replace(
        pose,
        kind=kind,
        head_turn=_normal(rng, 0.0, 12.0, 30.0),
        head_tilt=pose.head_tilt + _normal(rng, 0.0, 3.5, 8.0),
        head_nod=_normal(rng, 1.0, 4.0, 9.0),
        lean=_normal(rng, 1.0, 1.5, 4.0),
    )
    return mirrored(pose) if rng.random() < 0.5 else pose


def sample_outfit(rng: np.random.Generator) -> tuple[Garment, ...]:
    """An upper and a lower garment, or one that is both."""
    first = sample_garment(rng)
    if first.slot == "full":
        return (first,)
    slot = "lower" if first.slot == "upper" else "upper"
    names = [name for name in SLOTS if SLOTS[name] == slot]
    odds = np.array([share for name, share in zip(SLOTS, ODDS, strict=True) if SLOTS[name] == slot])
    second = sample_garment(rng, str(rng.choice(names, p=odds / odds.sum())))
    return (first, second) if first.slot == "upper" else (second, first)


def mirrored(pose: Pose) -> Pose:
    """The pose as a mirror shows it."""
    return replace(
        pose,
        head_turn=-pose.head_turn,
        head_tilt=-pose.head_tilt,
        tilt=-pose.tilt,
        twist=-pose.twist,
        hips_roll=-pose.hips_roll,
        hips_turn=-pose.hips_turn,
        left_arm=pose.right_arm,
        right_arm=pose.left_arm,
        left_leg=pose.right_leg,
        right_leg=pose.left_leg,
    )


def _standing(rng: np.random.Generator) -> Pose:
    return Pose(
        left_arm=_hanging(rng),
        right_arm=_hanging(rng),
        left_leg=Leg(0.0, uniform(rng, 1.5, 7.0), uniform(rng, 3.0, 14.0)),
        right_leg=Leg(0.0, uniform(rng, 1.5, 7.0), uniform(rng, 3.0, 14.0)),
        twist=_normal(rng, 0.0, 4.0, 9.0),
    )


def _contrapposto(rng: np.random.Generator) -> Pose:
    """Weight on the right leg: that hip is up, the other knee bends, the shoulders lean the other way."""
    roll = uniform(rng, 3.0, 6.0)
    return Pose(
        hips_roll=-roll,
        tilt=1.5 * roll,
        head_tilt=-0.5 * roll,
        twist=uniform(rng, -8.0, 3.0),
        hips_turn=uniform(rng, -8.0, 8.0),
        left_arm=_hanging(rng),
        right_arm=_hanging(rng),
        left_leg=Leg(uniform(rng, 12.0, 18.0), uniform(rng, 5.0, 10.0) + roll, uniform(rng, 10.0, 22.0), 5.0 * roll),
        right_leg=Leg(0.0, 2.0 - roll, uniform(rng, 2.0, 10.0), 1.0),
    )


def _hand_on_hip(rng: np.random.Generator) -> Pose:
    bent = Arm(
        uniform(rng, 38.0, 48.0), uniform(rng, -22.0, -12.0), uniform(rng, 58.0, 72.0), uniform(rng, 98.0, 110.0)
    )
    base = _contrapposto(rng) if rng.random() < 0.6 else _standing(rng)
    if rng.random() < 0.3:
        return replace(base, left_arm=bent, right_arm=bent)
    return replace(base, left_arm=bent)


def _walking(rng: np.random.Generator) -> Pose:
    stride, arms = uniform(rng, 12.0, 24.0), uniform(rng, 8.0, 22.0)
    return Pose(
        hips_turn=0.25 * stride,
        twist=-0.5 * stride,
        left_leg=Leg(-0.8 * stride, 1.0, 5.0, 0.9 * stride),
        right_leg=Leg(stride, 1.0, 5.0, 3.0),
        left_arm=Arm(uniform(rng, 8.0, 13.0), arms, 6.0, uniform(rng, 14.0, 40.0)),
        right_arm=Arm(uniform(rng, 8.0, 13.0), -arms, 6.0, uniform(rng, 8.0, 20.0)),
    )


def _folded(rng: np.random.Generator) -> Pose:
    """Both hands in front of the body."""
    lift = uniform(rng, 45.0, 88.0)
    arms = [
        Arm(uniform(rng, 8.0, 14.0), uniform(rng, 10.0, 18.0), uniform(rng, 40.0, 52.0), lift + shift)
        for shift in (0.0, uniform(rng, 4.0, 9.0))
    ]
    return replace(_standing(rng), left_arm=arms[0], right_arm=arms[1])


def _raised(rng: np.random.Generator) -> Pose:
    up = Arm(uniform(rng, 80.0, 125.0), uniform(rng, 5.0, 20.0), uniform(rng, -95.0, -50.0), uniform(rng, 35.0, 95.0))
    base = _contrapposto(rng) if rng.random() < 0.5 else _standing(rng)
    return replace(base, left_arm=up)


def _reaching(rng: np.random.Generator) -> Pose:
    """One forearm forward, as if to hold or to show something."""
    out = Arm(uniform(rng, 12.0, 30.0), uniform(rng, 5.0, 30.0), uniform(rng, -25.0, 10.0), uniform(rng, 50.0, 100.0))
    base = _walking(rng) if rng.random() < 0.3 else _standing(rng)
    return replace(base, left_arm=out)


def _hanging(rng: np.random.Generator) -> Arm:
    return Arm(
        uniform(rng, 7.0, 15.0), uniform(rng, -4.0, 6.0), uniform(rng, 0.0, 25.0), uniform(rng, 8.0, 28.0),
        uniform(rng, 0.0, 25.0), uniform(rng, 0.0, 12.0),
    )  # fmt: skip


def _normal(rng: np.random.Generator, mean: float, deviation: float, limit: float) -> float:
    return round(float(np.clip(rng.normal(mean, deviation), -limit, limit)), 3)


def _spread(rng: np.random.Generator, deviation: float) -> float:
    return _normal(rng, 0.0, deviation, 1.0)


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (round(float(value), 4) for value in np.clip(values, 0, 1))
    return red, green, blue
