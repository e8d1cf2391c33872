"""Features of sets of images, computed once: kept in memory, and on disk for the next run.

A set is known by the backbone (name, weights, resize rule) and by the contents of its images in their order, so the
features of the source pictures serve every cell of a sweep and every later run.
"""

import hashlib
import os
import re
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from r2r.errors import InputError
from r2r.metrics.backbones import Backbone

Picture = Float[Tensor, "3 h w"]
Pictures = Sequence[Any]  # of `Picture`, decoded by every access: checks of types at run time must not look inside
_FORMAT = "r2r features 1"
_READERS = 4  # decoding releases the interpreter: a few threads keep the network busy


class FeatureCache:
    """Features by backbone and content; `folder` None keeps them in memory alone."""

    def __init__(self, folder: str | Path | None = None, batch_size: int = 32) -> None:
        """`batch_size` images, and a few read ahead, are held decoded at most.

        Raises InputError when the folder cannot be made.
        """
        self.folder, self.batch_size = None if folder is None else Path(folder), batch_size
        self._known: dict[str, Tensor] = {}
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"feature cache {self.folder}: {error}; give a folder that can be written") from error

    def features(self, backbone: Backbone, images: Pictures, ids: Sequence[str] | None = None) -> Float[Tensor, "n d"]:
        """Features of `images` (3, h, w) in [-1, 1], of any sizes, in their order; float32 on the CPU.

        `ids` are hashes of the contents of the images; with them, a second call decodes no image and runs no network.
        Raises InputError for no images, a wrong number of ids, or images out of range.
        """
        if len(images) == 0:
            raise InputError(f"no images for {backbone.name}; check the folder or list they come from")
        if ids is None:
            return self._compute(backbone, images)
        if len(ids) != len(images):
            raise InputError(f"{len(ids)} ids for {len(images)} images; give one for each")
        key = _key(backbone, ids)
        if key not in self._known:
            self._known[key] = self._stored(backbone, key, len(ids), images)
        return self._known[key]

    def _stored(self, backbone: Backbone, key: str, count: int, images: Pictures) -> Tensor:
        if self.folder is None:
            return self._compute(backbone, images)
        file = self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', backbone.name)}-{key[:24]}.safetensors"
        features = _read(file, key, count)
        if features is None:
            features = self._compute(backbone, images)
            _write(file, features, {"format": _FORMAT, "key": key, "backbone": backbone.id})
        return features

    def _compute(self, backbone: Backbone, images: Pictures) -> Tensor:
        rows: dict[int, Tensor] = {}
        for positions, batch in self._batches(images):
            rows.update(zip(positions, backbone(batch), strict=True))
        return torch.stack([rows[position] for position in range(len(images))])

    def _batches(self, images: Pictures) -> Iterator[tuple[list[int], Tensor]]:
        """Positions and images of equal size; the fullest size goes first once `batch_size` images wait."""
        waiting: dict[torch.Size, list[tuple[int, Tensor]]] = defaultdict(list)
        for position, image in enumerate(_read_ahead(images)):
            waiting[image.shape].append((position, image))
            if sum(map(len, waiting.values())) >= self.batch_size:
                yield _batch(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))))
        yield from map(_batch, waiting.values())


def _batch(held: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    positions, images = zip(*held, strict=True)
    return list(positions), torch.stack(images)


def _read_ahead(images: Pictures) -> Iterator[Picture]:
    """The images in order, a few of them decoded ahead."""
    with ThreadPoolExecutor(_READERS) as pool:
        jobs = (pool.submit(images.__getitem__, index) for index in range(len(images)))
        ahead: deque[Future[Tensor]] = deque(islice(jobs, 2 * _READERS))
        while ahead:
            image = ahead.popleft().result()
            ahead.extend(islice(jobs, 1))
            yield image


def _key(backbone: Backbone, ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join((backbone.id, *ids)).encode()).hexdigest()


def _read(file: Path, key: str, count: int) -> Tensor | None:
    """The features of a file; None for one that is missing, broken, or of another set: it is written anew."""
    try:
        with safe_open(file, "pt") as content:
            stored = content.get_tensor("features") if (content.metadata() or {}).get("key") == key else None
    except (OSError, SafetensorError):
        return None
    return stored if stored is not None and stored.ndim == 2 and len(stored) == count else None


def _write(file: Path, features: Tensor, about: dict[str, str]) -> None:
    """Through a temporary file in the same folder: readers see the whole file or none."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".partial", delete=False) as partial:
            partial.write(save({"features": features.contiguous()}, about))
        os.replace(partial.name, file)
    except OSError as error:
        raise InputError(f"feature cache {file.parent}: {error}; give a folder that can be written") from error
