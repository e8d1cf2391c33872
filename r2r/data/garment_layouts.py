"""Data sets of people and garments on disk, as samples with the members of the studio's shards.

Those members are `photo.png` (the person), `flat.png` and `flat_mask.png` (the garment), `parsing.png`, `pose.json`,
and a JSON with the label set of the parsing, the slot of the garment and the identity. The split "val" is what the data
sets call test. Keys are paths of the person's picture relative to `root`.
"""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from r2r.data.images import EXTENSIONS
from r2r.data.samples import FilePart, LoadedPart, Part, Sample
from r2r.errors import DataError
from r2r.pose import within

FOLDERS = {"train": "train", "val": "test"}
DUPLICATES = "vitonhd_duplicate_filenames.json"
VITON_NEEDED = {"image": ["image"], "cloth": ["cloth"], "parsing": ["image-parse-v3", "image-parse"]}
VITON_OPTIONAL = {"mask": ["cloth-mask"], "pose": ["openpose_json", "openpose-json"]}
DRESSCODE_SLOTS = {"upper_body": "upper", "lower_body": "lower", "dresses": "full"}
FRAME = (176, 256)  # width and height that the keypoints of DeepFashion In-shop are given in
FRAME_LEFT = 40  # where this frame begins in the padded square pictures, 256 wide


def viton_hd(root: Path, split: str) -> list[Sample]:
    """VITON-HD: `{train,test}/{image,cloth,cloth-mask,image-parse-v3,openpose_json}`, upper garments, CIHP labels.

    The garment of a person is the one of the *same file name*: the second column of `*_pairs.txt` is a shuffle for
    try-on. The first column says which pictures belong to the split; without such a file all of `image/` do. Pictures
    named in `vitonhd_duplicate_filenames.json` (TryOffDiff: `{"train": {"duplicates": [...], "leaked": [...]}}`) are
    left out. The older names `image-parse` and `openpose-json` are read too; keypoints and cloth masks may be missing.
    """
    place = root / FOLDERS[split]
    if not place.is_dir():
        return _none(root, split, place)
    needed = {name: _required(place, VITON_NEEDED[name]) for name in VITON_NEEDED}
    folders = needed | {name: found for name in VITON_OPTIONAL if (found := _first(place, VITON_OPTIONAL[name]))}
    listed = root / f"{FOLDERS[split]}_pairs.txt"
    names = [row[0] for row in _rows(listed)] if listed.is_file() else _names(folders["image"])
    unwanted = _duplicates(root, FOLDERS[split])
    return [_viton_sample(root, folders, name) for name in sorted(set(names) - unwanted)]


def _viton_sample(root: Path, folders: dict[str, Path], name: str) -> Sample:
    stem = Path(name).stem
    places = {"photo.png": ("image", name), "flat.png": ("cloth", name), "flat_mask.png": ("mask", name)}
    places |= {"parsing.png": ("parsing", f"{stem}.png"), "pose.json": ("pose", f"{stem}_keypoints.json")}
    found = {member: folders[kind] / file for member, (kind, file) in places.items() if kind in folders}
    words = _words("CIHP_20", stem, "upper")
    return Sample(found["photo.png"].relative_to(root).as_posix(), _files(found) | {"json": words})


def dresscode(root: Path, split: str) -> list[Sample]:
    """DressCode: pairs of `train_pairs.txt` / `test_pairs_paired.txt` in each of `upper_body`, `lower_body`, `dresses`.

    A line is the person's and the garment's picture in `images/`; labels are ATR's. The set has no masks of the flat
    garments. Keypoints are left out where their file is missing.
    """
    file = {"train": "train_pairs.txt", "val": "test_pairs_paired.txt"}[split]
    lists = {category: root / category / file for category in DRESSCODE_SLOTS if (root / category / file).is_file()}
    if not lists:
        return _none(root, split, root / "upper_body" / file)
    return [_dresscode_sample(root, name, row) for name, listed in lists.items() for row in _rows(listed, 2)]


def _dresscode_sample(root: Path, category: str, row: list[str]) -> Sample:
    place, number = root / category, row[0].rsplit("_", 1)[0]
    found = {
        "photo.png": place / "images" / row[0],
        "flat.png": place / "images" / row[1],
        "parsing.png": place / "label_maps" / f"{number}_4.png",
    }
    pose = place / "keypoints" / f"{number}_2.json"
    words = _words("ATR_18", f"{category}/{number}", DRESSCODE_SLOTS[category])
    return Sample(
        found["photo.png"].relative_to(root).as_posix(),
        _files(found | ({"pose.json": pose} if pose.is_file() else {})) | {"json": words},
    )


def deepfashion(root: Path, split: str) -> list[Sample]:
    """DeepFashion In-shop as PATN and CFLD prepare it: pairs and keypoints in csv files, flattened names of pictures.

    `fasion-resize-pairs-{train,test}.csv` (from,to) and `fasion-resize-annotation-{train,test}.csv` (name:keypoints_y:
    keypoints_x, y before x, -1 for missing), or the same with "fashion"; pictures in `{train,test}_highres/` or
    `{train,test}/`. Keypoints lie in a frame of 176 x 256, which is the whole picture, or the middle of a square one
    (256 x 256, 40 pixels from the left). The label maps (ATR) of `parsing/NAME.png` are this project's addition.

    Every sample is a pair: its members are those of the two pictures, after "source." and "target.".
    Raises: DataError for a missing file, a broken line, or a pair without keypoints.
    """
    name = FOLDERS[split]
    listed = [f"{word}-resize-pairs-{name}.csv" for word in ("fasion", "fashion")]
    if split == "val" and _first(root, listed) is None:
        return []
    poses = _required(root, [f"{word}-resize-annotation-{name}.csv" for word in ("fasion", "fashion")])
    pictures = _required(root, [f"{name}_highres", name])
    keypoints, rows = _annotations(poses), _csv_rows(_required(root, listed), ",", ["from", "to"])
    files = sorted({file for row in rows for file in row})
    shift = _left_margin(pictures / files[0]) if files else 0.0
    views = {file: _view(root, pictures / file, keypoints.get(file), poses, shift) for file in files}
    folder = pictures.relative_to(root).as_posix()
    return [_fashion_pair(folder, source, target, views) for source, target in rows]


def _fashion_pair(folder: str, source: str, target: str, views: dict[str, dict[str, Part]]) -> Sample:
    words = LoadedPart("json", json.dumps({"identity": _item(source), "label_set": "ATR_18"}).encode())
    ends = (("source", source), ("target", target))
    parts = {f"{end}.{member}": part for end, name in ends for member, part in views[name].items()}
    return Sample(f"{folder}/{Path(source).stem}_to_{Path(target).stem}", parts | {"json": words})


def _view(root: Path, path: Path, pose: np.ndarray | None, listed: Path, shift: float) -> dict[str, Part]:
    if pose is None:
        raise DataError(f"{path.name} is in a pair but has no keypoints in {listed}; complete or drop it")
    width, height = FRAME
    known = within(pose, width, height)
    known[:, 0] += np.where(known[:, 2] > 0, shift, 0)
    content = {"size": [width + 2 * shift, height], "openpose_18": known.tolist()}
    parts: dict[str, Part] = {"photo.png": FilePart(str(path))}
    parts["pose.json"] = LoadedPart(f"{path.name} in {listed}", json.dumps(content).encode())
    if (root / "parsing").is_dir():
        parts["parsing.png"] = FilePart(str(root / "parsing" / f"{path.stem}.png"))
    return parts


def _annotations(path: Path) -> dict[str, np.ndarray]:
    """Keypoints (x, y, v) by name of the picture; v = 0 and x = y = 0 where one is missing."""
    found = {}
    for name, down, right in _csv_rows(path, ":", ["name", "keypoints_y", "keypoints_x"]):
        try:
            y, x = (np.array(json.loads(text), np.float64).reshape(18) for text in (down, right))
        except ValueError as error:
            raise DataError(f"{path}: the keypoints of {name} are not two lists of 18 numbers ({error})") from error
        known = (x >= 0) & (y >= 0)
        found[name] = np.column_stack([x + 0.5, y + 0.5, np.full(18, 2.0)]) * known[:, None]
    return found


def _item(name: str) -> str:
    """The id of the article in a flattened name, `fashionWOMENTees_Tanksid0000783805_7additional.jpg`: id00007838."""
    match = re.search(r"id_?\d{8}", name)
    return match[0] if match else Path(name).stem


def _left_margin(picture: Path) -> float:
    try:
        with Image.open(picture) as image:
            return float(FRAME_LEFT if image.width == image.height else 0)
    except OSError as error:
        raise DataError(f"cannot read image {picture}: {error}") from error


def _words(label_set: str, identity: str, slot: str) -> Part:
    garment = {"category": f"{slot} garment" if slot != "full" else "dress", "slot": slot}
    words = {"label_set": label_set, "subject": "person", "identity": identity, "garments": [garment]}
    return LoadedPart("json", json.dumps(words).encode())


def _files(found: dict[str, Path]) -> dict[str, Part]:
    return {member: FilePart(str(path)) for member, path in found.items()}


def _first(place: Path, names: Sequence[str]) -> Path | None:
    """The first of these that exists in `place`."""
    return next((place / name for name in names if (place / name).exists()), None)


def _required(place: Path, names: Sequence[str]) -> Path:
    """The first of these that exists in `place`. Raises: DataError when none does."""
    if (found := _first(place, names)) is None:
        raise DataError(f"{place.absolute()} has no {' or '.join(names)}; check data.root and data.layout")
    return found


def _none(root: Path, split: str, missing: Path) -> list[Sample]:
    """No samples of the validation split. Raises: DataError when it is the training split."""
    if split == "train":
        raise DataError(f"no {missing.relative_to(root)} in {root.absolute()}; check data.root and data.layout")
    return []


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS]


def _rows(path: Path, columns: int = 1) -> list[list[str]]:
    """Words of every line that is not empty. Raises: DataError for a line of fewer than `columns` words."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        if len(row) < columns:
            raise DataError(f"{path}: {' '.join(row)!r} is not a line of {columns} names; correct or remove it")
    return rows


def _csv_rows(path: Path, separator: str, header: list[str]) -> list[list[str]]:
    """Fields of every line below the header. Raises: DataError for another header or number of fields."""
    with path.open(encoding="utf-8", newline="") as file:
        first, *rows = list(csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE)) or [[]]
    if first != header:
        raise DataError(f"{path} begins with {separator.join(first)!r}, not with {separator.join(header)!r}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: {len(row)} fields, not {len(header)}; correct or remove it")
    return [[field.strip() for field in row] for row in rows]


def _duplicates(root: Path, split: str) -> set[str]:
    path = root / DUPLICATES
    if not path.is_file():
        return set()
    try:
        return {
            name for names in json.loads(path.read_text(encoding="utf-8")).get(split, {}).values() for name in names
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"broken list of duplicates: {path} ({error!r}); see r2r.data.garment_layouts") from error
