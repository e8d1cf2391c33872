"""Studio shards as the folders other data sets come in: SynFashion, VITON-HD, DeepFashion In-shop.

The pictures keep the studio's resolution (VITON-HD has 768 x 1024), but for DeepFashion's frame of 176 x 256. The
shards' train split becomes train, their val split what the data set calls test ("val" for SynFashion).

Not documented, and chosen here: the folders inside SynFashion (`{train,val}/CATEGORY/IDENTITY_VIEW.png`, whole renders,
where the original is cropped to the garment). Left out are VITON-HD's DensePose, skeletons and agnostic pictures.
`parsing/` (ATR labels) in the DeepFashion layout is an addition: the original has no label maps.
"""

import csv
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from r2r.errors import DataError, InputError
from r2r.parsing import convert_labels
from r2r.pose import openpose_to_body25, within

RECORD = "layout.json"
FRAME = (176, 256)  # DeepFashion's, cut out of 256 x 256 from the 40th column on
FRAME_LEFT = 40
SPLITS = {"train": "train", "val": "test"}


@dataclass(frozen=True)
class StudioSample:
    """One scene of a shard: members by name ("photo.png"), still encoded, its JSON, and the number of its identity."""

    members: dict[str, bytes]
    fields: dict[str, Any]
    person: int

    def picture(self, name: str) -> Image.Image:
        """A decoded member."""
        return Image.open(io.BytesIO(self.members[name]))

    def keypoints(self, width: int, height: int) -> Float[np.ndarray, "18 3"]:
        """OpenPose's keypoints when the picture is resized to this width and height."""
        pose = json.loads(self.members["pose.json"])
        return np.array(pose["openpose_18"], np.float64) * [width / pose["size"][0], height / pose["size"][1], 1.0]


Split = Iterable[StudioSample]


def export_layout(shards_folder: str | Path, layout: str, output: str | Path) -> int:
    """Write finished shards in a layout ("synfashion", "viton_hd", "deepfashion"); returns the number of pictures.

    The same shards give the same files. They are written beside `output` and renamed at the end, so that a folder with
    its final name is whole; exporting the same shards again finds it and does nothing.
    Raises: InputError for an unknown layout or an output that holds something else; DataError for shards that are
    missing or broken, or hold no scene that the layout can show.
    """
    shards_folder, output = Path(shards_folder), Path(output)
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout} is unknown; use one of {', '.join(LAYOUTS)}")
    shards = {split: sorted(shards_folder.glob(f"{split}-*.tar")) for split in SPLITS}
    if not shards["train"] and not shards["val"]:
        raise DataError(f"no train-*.tar or val-*.tar in {shards_folder.absolute()}; give a folder r2r.studio wrote")
    record = {
        "layout": layout,
        "shards": {path.name: path.stat().st_size for paths in shards.values() for path in paths},
    }
    if output.exists():
        return _finished(output, record)
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    count = _write_all(unfinished, LAYOUTS[layout], shards)
    if not count:
        shutil.rmtree(unfinished)
        raise DataError(f"{shards_folder}: no scene fits layout={layout}; {NEEDS[layout]}")
    (unfinished / RECORD).write_text(json.dumps(record | {"pictures": count}, indent=2) + "\n")
    unfinished.rename(output)
    return count


def _finished(output: Path, record: dict[str, Any]) -> int:
    """The number of pictures in a folder of the same export. Raises: InputError when it is anything else."""
    file = output / RECORD
    before = json.loads(file.read_text()) if file.is_file() else {}
    if {name: before.get(name) for name in record} != record:
        raise InputError(f"output={output} holds something else than this export; give a new folder or remove it")
    return int(before["pictures"])


def _write_all(folder: Path, write: "Writer", shards: dict[str, list[Path]]) -> int:
    people: dict[tuple[Any, Any], int] = {}
    return sum(write(folder, split, read_samples(paths, people)) for split, paths in shards.items() if paths)


def read_samples(shards: list[Path], people: dict[tuple[Any, Any], int]) -> Iterator[StudioSample]:
    """Scenes in the order of the shards; `people` remembers the number of each identity.

    Raises: DataError naming a broken shard.
    """
    for path in shards:
        for key, members in _read_shard(path).items():
            if "json" not in members:
                raise DataError(f"{path}: {key} has no JSON; give shards that r2r.studio wrote")
            fields = json.loads(members["json"])
            identity = (fields.get("seed"), fields.get("identity", key))
            yield StudioSample(members, fields, people.setdefault(identity, len(people)))


def _read_shard(path: Path) -> dict[str, dict[str, bytes]]:
    """Members by key and name."""
    scenes: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                file = tar.extractfile(member)
                scenes.setdefault(key, {})[name] = file.read() if file else b""
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"broken or truncated shard: {path} ({error}); render it again") from error
    return scenes


def synfashion(folder: Path, split: str, samples: Split) -> int:
    """Renders in folders by category: `{train,val}/CATEGORY/IDENTITY_VIEW.png`."""
    names: list[str] = []
    for sample in samples:
        names.append(f"{sample.person:06d}_{sample.fields.get('view', 0)}.png")
        _save(sample.picture("rendered.png"), folder / split / sample.fields["category"] / names[-1])
    return len(names)


def viton_hd(folder: Path, split: str, samples: Split) -> int:
    """Persons in upper garments, the middle 3:4 of each picture, with the first garment flat; see `SPLITS` for names.

    `{train,test}_pairs.txt` has every person beside the garment of another, as the original has for try-on: the true
    garment of a person has the same file name.
    """
    place, names = folder / SPLITS[split], []
    for sample in samples:
        garments = sample.fields.get("garments", [])
        if "pose.json" in sample.members and garments and garments[0]["slot"] == "upper":
            names.append(f"{len(names):05d}_00")
            _write_viton(place, names[-1], sample)
    _write_shuffled(folder / f"{SPLITS[split]}_pairs.txt", [f"{name}.jpg" for name in names])
    return len(names)


def _write_viton(place: Path, name: str, sample: StudioSample) -> None:
    photo = sample.picture("photo.png")
    width, height = round(photo.height * 0.75), photo.height
    left = (photo.width - width) // 2
    box = (left, 0, left + width, height)
    labels = convert_labels(np.array(sample.picture("parsing.png").crop(box)), "ATR_18", "CIHP_20")
    points = sample.keypoints(*photo.size)
    points = within(np.where(points[:, 2:] > 0, points - [left, 0, 0], 0.0), width, height)
    _save(photo.crop(box), place / "image" / f"{name}.jpg")
    _save(_framed(sample.picture("flat.png"), width, height, "white"), place / "cloth" / f"{name}.jpg")
    _save(_framed(sample.picture("flat_mask.png"), width, height, 0), place / "cloth-mask" / f"{name}.jpg")
    _save(Image.fromarray(labels), place / "image-parse-v3" / f"{name}.png")
    _write(place / "openpose_json" / f"{name}_keypoints.json", json.dumps(_openpose_file(points)))


def _openpose_file(points: Float[np.ndarray, "18 3"]) -> dict[str, Any]:
    """OpenPose's file of one person: BODY_25 with confidence 1 where a keypoint is known."""
    body = openpose_to_body25(points)
    body[:, 2] = body[:, 2] > 0
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": body.round(3).ravel().tolist()}]}


def _framed(picture: Image.Image, width: int, height: int, background: str | int) -> Image.Image:
    """The picture scaled to a width, in the middle of a frame of plain background."""
    resample = Image.Resampling.NEAREST if picture.mode == "L" else Image.Resampling.LANCZOS
    scaled = picture.resize((width, round(picture.height * width / picture.width)), resample)
    frame = Image.new(picture.mode, (width, height), background)
    frame.paste(scaled, (0, (height - scaled.height) // 2))
    return frame


def _write_shuffled(path: Path, names: list[str]) -> None:
    """Each name beside another one (beside itself where there is but one)."""
    order = random.Random(0).sample(names, len(names))
    other = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    _write(path, "".join(f"{name} {other[name]}\n" for name in names))


def deepfashion(folder: Path, split: str, samples: Split) -> int:
    """Persons, 176 x 256: `{train,test}_highres/`, csv files of pairs and keypoints, lists.

    A picture is scaled to 256 x 256, of which the middle 176 columns are kept; keypoints beyond are missing (-1).
    """
    place, people, rows = SPLITS[split], dict[int, list[str]](), []
    for sample in samples:
        if "pose.json" in sample.members:
            shown = people.setdefault(sample.person, [])
            shown.append(_fashion_name(sample, len(shown) + 1))
            rows.append(_write_fashion(folder, place, shown[-1], sample))
    pairs = [pair for names in people.values() for pair in permutations(names, 2)]
    _write_csv(folder / f"fasion-resize-pairs-{place}.csv", ",", [("from", "to"), *pairs])
    head = ("name", "keypoints_y", "keypoints_x")
    _write_csv(folder / f"fasion-resize-annotation-{place}.csv", ":", [head, *rows])
    _write(folder / f"{place}.lst", "".join(f"{row[0]}\n" for row in rows))
    return len(rows)


def _fashion_name(sample: StudioSample, number: int) -> str:
    """`fashionWOMENT_Shirtid0000001201_2front.jpg`: category, article, picture; MEN and WOMEN mean nothing here."""
    category = "_".join(word.capitalize() for word in sample.fields["category"].replace("-", " ").split())
    return f"fashionWOMEN{category}id{sample.person:08d}01_{number}front.jpg"


def _write_fashion(folder: Path, split: str, name: str, sample: StudioSample) -> tuple[str, str, str]:
    width, height = FRAME
    box = (FRAME_LEFT, 0, FRAME_LEFT + width, height)
    photo = sample.picture("photo.png").resize((height, height), Image.Resampling.LANCZOS).crop(box)
    labels = sample.picture("parsing.png").resize((height, height), Image.Resampling.NEAREST).crop(box)
    _save(photo, folder / f"{split}_highres" / name)
    _save(labels, folder / "parsing" / f"{Path(name).stem}.png")
    points = sample.keypoints(height, height)
    points = within(np.where(points[:, 2:] > 0, points - [FRAME_LEFT, 0, 0], 0.0), width, height)
    x, y = (np.where(points[:, 2] > 0, np.floor(points[:, axis]), -1).astype(int).tolist() for axis in (0, 1))
    return name, json.dumps(y), json.dumps(x)


def _write_csv(path: Path, separator: str, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_NONE).writerows(rows)


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=95, compress_level=1)  # of JPEG, and of PNG


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


Writer = Callable[[Path, str, Split], int]
LAYOUTS: dict[str, Writer] = {"synfashion": synfashion, "viton_hd": viton_hd, "deepfashion": deepfashion}
NEEDS = {
    "synfashion": "the shards are empty",
    "viton_hd": "it shows persons in upper garments, so render persons",
    "deepfashion": "it shows persons, so render persons",
}
