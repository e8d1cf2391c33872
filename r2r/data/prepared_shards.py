"""Shards of prepared persons with the studio's members, as `data=studio_pose` reads them.

Samples of one identity lie beside each other and in one shard, so that streams find them together too. `shards.json`
says what each shard was made of: one whose persons, words and settings are the same is kept.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from r2r.data.images import load_image
from r2r.data.people import SLOTS
from r2r.data.prepared import PreparedPerson, region_box
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS, region_map
from r2r.pose import coco_to_openpose
from r2r.provenance import write_json

IDENTITIES = ("folder", "file")
PLAN_FILE = "shards.json"


@dataclass(frozen=True)
class ShardSettings:
    """How persons become samples; larger pictures are scaled down with their keypoints and boxes."""

    label_set: str = "ATR_18"
    identity: str = "folder"  # photos of one folder show one person; "file": each photo its own
    persons: int = 1000  # of a shard at most, unless one identity has more
    side: int | None = 1024  # longest side of a picture at most; None: as it is
    models: Mapping[str, str] = field(default_factory=dict)  # named in every sample


def identity(name: str, rule: str) -> str:
    """Who is shown: by the rule "folder" all in one folder are one person, where there are folders; else each file."""
    folder = Path(name).parent.as_posix()
    return folder if rule == "folder" and folder != "." else name


def sample_key(name: str) -> str:
    """WebDataset's keys end at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.replace(".", "_")


def check_keys(names: Iterable[str]) -> None:
    """Raises InputError when two photos would become one sample."""
    known: dict[str, str] = {}
    for name in names:
        if (other := known.setdefault(sample_key(name), name)) != name:
            raise InputError(f"photos {other} and {name} would both be sample {sample_key(name)}; rename one")


def write_shards(
    output: Path,
    persons: Mapping[Path, PreparedPerson],
    settings: ShardSettings,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Bring `train-NNNN.tar` up to date; returns those that were written. `advance` is told how many persons are done.

    Raises: DataError for a photo that is no longer as it was.
    """
    plan, file = _plan(persons, settings), output / PLAN_FILE
    made = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    written: list[Path] = []
    for name, members in plan.items():
        origin = _origin([persons[photo] for photo in members], settings)
        if made.get(name) != origin or not (output / name).is_file():
            samples = (each for photo in members for each in _members(photo, persons[photo], settings))
            _write_tar(output / name, samples)
            made[name] = origin
            write_json(file, made)
            written.append(output / name)
        advance(len(members))
    for old in set(made) - set(plan):
        (output / old).unlink(missing_ok=True)
    if set(made) - set(plan):
        write_json(file, {name: made[name] for name in plan})
    return written


def _plan(persons: Mapping[Path, PreparedPerson], settings: ShardSettings) -> dict[str, list[Path]]:
    """Photos by shard, in order of identity; a shard ends where an identity does."""

    def who(photo: Path) -> str:
        return identity(persons[photo].name, settings.identity)

    shards: list[list[Path]] = []
    ordered = sorted(persons, key=lambda photo: (who(photo), persons[photo].name))
    for views in (list(run) for _, run in groupby(ordered, who)):
        if not shards or len(shards[-1]) + len(views) > settings.persons:
            shards.append([])
        shards[-1] += views
    return {f"train-{number:04d}.tar": photos for number, photos in enumerate(shards)}


def _origin(persons: Sequence[PreparedPerson], settings: ShardSettings) -> dict[str, Any]:
    """What a shard is made of: a person who is prepared or captioned again has a younger file."""
    common = {"label_set": settings.label_set, "identity": settings.identity, "side": settings.side}
    times = {person.name: person.pose_file.stat().st_mtime_ns for person in persons}
    return common | {"models": dict(settings.models), "persons": times}


def _members(photo: Path, person: PreparedPerson, settings: ShardSettings) -> Iterable[tuple[str, bytes]]:
    key, image, labels = sample_key(person.name), load_image(photo), person.labels
    if not image.size == person.size == labels.shape[::-1]:
        raise DataError(f"{photo} is not as it was prepared; remove {person.pose_file} and prepare it again")
    size = fitting(person.size, settings.side)
    scale = np.array([size[0] / person.size[0], size[1] / person.size[1]])
    regions = region_map(labels, settings.label_set)
    garments = np.isin(regions, [REGIONS.index(slot) for slot in SLOTS])
    points = coco_to_openpose(person.keypoints) * [*scale, 1.0]
    pictures = {
        "photo": image.resize(size, Image.Resampling.LANCZOS),
        "parsing": Image.fromarray(labels).resize(size, Image.Resampling.NEAREST),
        "garment_mask": Image.fromarray(garments.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST),
    }
    yield from ((f"{key}.{name}.png", _png(picture)) for name, picture in pictures.items())
    yield f"{key}.pose.json", json.dumps({"openpose_18": points.tolist(), "size": size}).encode()
    about = _about(person, settings) | {"box": (np.array(person.box) * np.tile(scale, 2)).tolist()}
    if (face := region_box(regions, ("face", "hair"))) is not None:
        about["face_box"] = (np.array(face) * np.tile(scale, 2)).tolist()
    yield f"{key}.json", json.dumps(about).encode()


def _about(person: PreparedPerson, settings: ShardSettings) -> dict[str, Any]:
    about = {
        "label_set": settings.label_set,
        "subject": "person",
        "identity": identity(person.name, settings.identity),
        "source": person.name,
        "models": dict(settings.models),
    }
    return about if person.caption is None else about | {"caption": person.caption}


def fitting(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Width and height of the same proportions, the longer one at most `side`."""
    scale = 1.0 if side is None else min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write beside and rename, so that a shard with its final name is whole."""
    unfinished = path.with_suffix(".tar.unfinished")
    with tarfile.open(unfinished, "w") as tar:  # PAX: USTAR has no room for long names
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    unfinished.replace(path)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
