"""A folder of images in, a folder of images out: which file becomes which, reading in batches, writing whole files."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from r2r.data.images import list_images, load_image
from r2r.errors import DataError, InputError

log = logging.getLogger(__name__)

HEADER = ("from", "to")  # of the lists of DeepFashion In-shop


def find_jobs(source: Path, output: Path) -> dict[Path, Path]:
    """Each image below `source` with the PNG it becomes, in the same relative place below `output`.

    Raises:
        InputError: no images, output inside the input, or two inputs that differ only in their suffix.
    """
    folder = source if source.is_dir() else source.parent
    if output.resolve().is_relative_to(folder.resolve()) and source.is_dir():
        raise InputError(f"output={output} lies inside input={source}; choose a folder of its own")
    paths = [source] if source.is_file() else list_images(source)
    jobs = {path: output / path.relative_to(folder).with_suffix(".png") for path in paths}
    by_target: dict[Path, Path] = {}
    for path, target in jobs.items():
        if target in by_target:
            raise InputError(f"{by_target[target]} and {path} would both become {target}; rename one")
        by_target[target] = path
    return jobs


def find_pairs(source: Path, poses: Path, output: Path, pairing: str = "all") -> dict[tuple[Path, Path], Path]:
    """Each image below `source` with keypoint files (`.json`) below `poses`, and the PNG that becomes of them.

    With the pairing "all" every image meets every pose, as `IMAGE_to_POSE.png`; with "name", the one of its own
    relative name, as `IMAGE.png`. Any other pairing is a file with two names in each line, as data sets list them:
    those that are not there are left out with a warning.

    Raises:
        InputError: no images, no keypoint files, no file for an image, two pairs of one name, or no such list.
    """
    jobs, found = find_jobs(source, output), {}
    if pairing == "name":
        for image, target in jobs.items():
            pose = poses / target.relative_to(output).with_suffix(".json")
            if not pose.is_file():
                raise InputError(f"{image} has no keypoint file {pose}; use pairing=all, or add it")
            found[image, pose] = target
        return found
    files = [poses] if poses.is_file() else sorted(poses.rglob("*.json"))
    if not files:
        raise InputError(f"poses={poses} has no keypoint files (.json); r2r.prepare writes them for photos")
    words = {pose: _flat(pose, poses) for pose in files}
    pairs = product(jobs, files) if pairing == "all" else _listed(Path(pairing), jobs, output, words)
    found = {(image, pose): jobs[image].with_stem(f"{jobs[image].stem}_to_{words[pose]}") for image, pose in pairs}
    if len(set(found.values())) < len(found):
        raise InputError(f"several pairs of {source} and {poses} would have one name; rename files that share theirs")
    return found


def _listed(
    path: Path, jobs: Mapping[Path, Path], output: Path, words: Mapping[Path, str]
) -> Iterator[tuple[Path, Path]]:
    """The pairs of a list whose files are there; names count without suffix, folders and all."""
    if not path.is_file():
        raise InputError(f"pairing={path} must be all, name, or a file that lists pairs")
    images = {_name(target.relative_to(output)): image for image, target in jobs.items()}
    poses = {word: pose for pose, word in words.items()}
    rows = [re.split(r"[,\s]+", line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if wrong := [row for row in rows if len(row) != 2]:
        raise InputError(f"{path}: {' '.join(wrong[0])!r} is not a line of two names")
    pairs = [(_name(Path(source)), _name(Path(target))) for source, target in rows if (source, target) != HEADER]
    there = [(images[source], poses[target]) for source, target in pairs if source in images and target in poses]
    if not there:
        raise InputError(f"{path}: of none of its {len(pairs)} pairs both image and keypoints are there")
    if len(there) < len(pairs):
        log.warning("%d of %d pairs left out: image or keypoints are not there", len(pairs) - len(there), len(pairs))
    yield from there


def _flat(path: Path, folder: Path) -> str:
    return _name(path.relative_to(folder) if folder.is_dir() else Path(path.name))


def _name(path: Path) -> str:
    """A relative name in one word, without suffix."""
    return "_".join(path.with_suffix("").parts)


class Loaded(Protocol):
    """An image, or what a method reads beside it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        ...


def readable_batches(
    todo: Mapping[Any, Path], size: int, broken: list[str], load: Callable[[Any], Loaded] = load_image
) -> Iterator[tuple[list[Path], list[Any]]]:
    """Batches of what was loaded, of equal image size, with their targets; the unreadable are noted in `broken`."""
    targets: list[Path] = []
    images: list[Loaded] = []
    for source, target in todo.items():
        try:
            image = load(source)
        except DataError as error:
            broken.append(str(error))
            log.warning("skipped: %s", error)
            continue
        if images and (len(images) == size or image.size != images[0].size):
            yield targets, images
            targets, images = [], []
        targets.append(target)
        images.append(image)
    if images:
        yield targets, images


def save_png(image: Image.Image, target: Path) -> None:
    """Write beside the final place, then rename: an interrupted run leaves no half-written image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    image.save(partial, format="PNG", compress_level=1)
    os.replace(partial, target)
