"""Folders of pictures that belong together by name, decoded only when a picture is asked for."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from r2r.data.images import decode_mask, list_images, load_image, to_tensor
from r2r.errors import DataError, InputError

Picture = Float[Tensor, "3 _ _"]  # RGB in [-1, 1]
Region = Bool[Tensor, "1 _ _"]  # True = counted
Size = tuple[int, int]  # width, height

_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


def pictures(folder: str | Path) -> dict[str, Path]:
    """Image files below `folder` by their name: the path relative to it, without suffix ("more/0001").

    Raises: InputError for a missing or empty folder, or two files of one name.
    """
    named: dict[str, Path] = {}
    for path in list_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            raise InputError(f"{named[name]} and {path} have one name; remove or rename one")
        named[name] = path
    return named


def common_names(folders: Mapping[str, Iterable[str]], skip: bool = False) -> tuple[list[str], dict[str, list[str]]]:
    """Names that all folders hold, in the order of the first, and for each folder the names it has beyond those.

    Raises: InputError when nothing matches, and, without `skip`, when a name is missing anywhere: with what is missing.
    """
    sets = {title: dict.fromkeys(names) for title, names in folders.items()}
    first = next(iter(sets.values()))
    common = [name for name in first if all(name in names for names in sets.values())]
    beyond = {title: [name for name in names if name not in set(common)] for title, names in sets.items()}
    left_out = {title: names for title, names in beyond.items() if names}
    if not common:
        shown = "; ".join(f"{title} has {_listed(list(names))}" for title, names in sets.items())
        raise InputError(f"no name is in every folder: {shown}; files belong together by name, without suffix")
    if left_out and not skip:
        shown = "; ".join(f"{title} has {_listed(names)}" for title, names in left_out.items())
        raise InputError(
            f"the folders do not hold the same names: {shown} beyond the {len(common)} all share; "
            "add what is missing, or leave these out with missing=skip"
        )
    return common, left_out


def picture_size(path: Path) -> Size:
    """Width and height of an image file, upright, from its header alone.

    Raises: DataError naming the file when it is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _TRANSPOSED else (width, height)
    except Image.UnidentifiedImageError as error:
        raise DataError(f"not an image: {path}; remove or replace it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image {path}: {error}; remove or replace it") from error


class Files(Sequence[Tensor], ABC):
    """Image files as tensors, decoded one by one as they are asked for.

    With `sizes` (one for each file) images of another size are resized.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[Size] | None = None) -> None:
        self.paths, self.sizes = list(paths), sizes
        self._ids: list[str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: int | slice) -> "Tensor | Files":
        """Raises DataError for a file that cannot be decoded."""
        if isinstance(index, slice):
            return type(self)(self.paths[index], self.sizes[index] if self.sizes else None)
        return self._decode(self.paths[index], self.sizes[index] if self.sizes else None)

    def ids(self) -> list[str]:
        """What each image is, whatever its name: a hash of the file, and the size it is brought to."""
        self._ids = self._ids or _content_ids(self.paths, self.sizes)
        return self._ids

    @abstractmethod
    def _decode(self, path: Path, size: Size | None) -> Tensor: ...


class Pictures(Files):
    """Pictures as (3, h, w) in [-1, 1]; resized by Lanczos."""

    def _decode(self, path: Path, size: Size | None) -> Picture:
        return to_tensor(_resized(load_image(path), size, Image.Resampling.LANCZOS))


class Masks(Files):
    """Masks as bool (1, h, w), True where brighter than 127; resized by nearest neighbour.

    In an image that is nowhere as bright (0/1 masks, class maps) everything but 0 is True.
    """

    def _decode(self, path: Path, size: Size | None) -> Region:
        values = np.array(_resized(decode_mask(_content(path), str(path)), size, Image.Resampling.NEAREST))
        return torch.from_numpy(values > (127 if values.max() > 127 else 0))[None]


def _resized(image: Image.Image, size: Size | None, resample: Image.Resampling) -> Image.Image:
    return image if size is None or image.size == size else image.resize(size, resample)


def _content_ids(paths: Sequence[Path], sizes: Sequence[Size] | None) -> list[str]:
    suffixes = [f"@{width}x{height}" for width, height in sizes] if sizes else [""] * len(paths)
    hashes = (hashlib.sha256(_content(path)).hexdigest() for path in paths)
    return [each + suffix for each, suffix in zip(hashes, suffixes, strict=True)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _listed(names: Sequence[str], most: int = 5) -> str:
    """A count with the first few names: '7 (a, b, c, d, e, ...)'."""
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} ({shown})"
