"""A folder of images in, a folder of images out: which file becomes which, reading in batches, writing whole files."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from r2r.data.images import list_images, load_image
from r2r.errors import DataError, InputError

log = logging.getLogger(__name__)


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
    relative name, as `IMAGE.png`.

    Raises:
        InputError: no images, no keypoint files, no file for an image, two pairs of one name, or another pairing.
    """
    if pairing not in ("all", "name"):
        raise InputError(f"pairing={pairing} must be all or name")
    files = [poses] if poses.is_file() else sorted(poses.rglob("*.json"))
    if not files:
        raise InputError(f"poses={poses} has no keypoint files (.json); r2r.prepare writes them for photos")
    jobs, found = find_jobs(source, output), {}
    for image, target in jobs.items():
        if pairing == "name":
            pose = poses / target.relative_to(output).with_suffix(".json")
            if not pose.is_file():
                raise InputError(f"{image} has no keypoint file {pose}; use pairing=all, or add it")
            found[image, pose] = target
        else:
            found |= {(image, pose): target.with_stem(f"{target.stem}_to_{_flat(pose, poses)}") for pose in files}
    if len(set(found.values())) < len(found):
        raise InputError(f"several pairs of {source} and {poses} would have one name; rename files that share theirs")
    return found


def _flat(path: Path, folder: Path) -> str:
    """The name of a file below a folder in one word."""
    inside = path.relative_to(folder) if folder.is_dir() else Path(path.name)
    return "_".join(inside.with_suffix("").parts)


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
