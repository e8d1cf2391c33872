"""Codes of images that come again: training without augmentation encodes every image once, not once an epoch.

In memory, or beside that in a folder, where the next run finds them. An image is known by its pixels as they reach the
encoder, so that size, crop, mirroring and bucket are part of its name; a folder belongs to one encoder.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from r2r.data.images import digest
from r2r.errors import DataError
from r2r.metrics.weights import weights_id
from r2r.types import Images

log = logging.getLogger(__name__)

SHARD = 256  # codes in a file


class NonFiniteCodes(ArithmeticError):
    """An encoder gave NaN or infinity for the image in this row."""

    def __init__(self, row: int) -> None:
        super().__init__(f"the code of image {row} of the batch is not finite")
        self.row = row


class CodeFolder:
    """Codes in safetensors files of a folder, by the names of their images; several processes may add to it."""

    def __init__(self, folder: Path, shard: int = SHARD) -> None:
        """Raises DataError for a broken file."""
        self.folder, self.shard = folder, shard
        self._places: dict[str, Path] = {}
        self._new: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._places |= dict.fromkeys(self._names(path), path)

    def __len__(self) -> int:
        return len(self._places) + len(self._new)

    def find(self, name: str) -> Tensor | None:
        """A code that is there, on the CPU."""
        if name in self._new or name not in self._places:
            return self._new.get(name)
        with safe_open(self._places[name], framework="pt") as file:
            return file.get_tensor(name)

    def add(self, name: str, code: Tensor) -> None:
        """Keep a code; every `shard` of them become a file."""
        self._new[name] = code.detach().cpu().contiguous()
        if len(self._new) >= self.shard:
            self.flush()

    def flush(self) -> None:
        """Write what is new, beside first and then in place: what a killed process leaves is whole or not there."""
        if not self._new:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{blake2b(''.join(sorted(self._new)).encode(), digest_size=8).hexdigest()}.safetensors"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(self._new, partial)
        partial.replace(path)
        self._places |= dict.fromkeys(self._new, path)
        self._new = {}

    def _names(self, path: Path) -> list[str]:
        try:
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"broken file of cached codes: {path} ({error}); remove it, and it is made again"
            ) from error


class LatentCache:
    """An encoder that remembers, by the content of the image: one that was altered on the way is another image.

    It may be a VAE's, or one of image tokens. Codes stay on the device of their image, and nothing is ever dropped: for
    data sets whose codes fit into memory.
    """

    def __init__(self, encode: Callable[[Images], Tensor], folder: CodeFolder | None = None) -> None:
        """`encode` must treat every image by itself; `folder` keeps codes for other runs."""
        self.encode, self.folder = encode, folder
        self._known: dict[str, Tensor] = {}

    def __call__(self, images: Images, names: Sequence[str] | None = None) -> Tensor:
        """The codes of a batch; only images that were never seen are encoded, in one call.

        `names` are the images' digests. Without them pixels come back from the device, which waits for them: 100 MB a
        step for 32 images at 512 px. Raises NonFiniteCodes for a code with NaN or infinity in it, which is not kept.
        """
        names = [digest(image) for image in images.cpu()] if names is None else names
        new = {name: row for row, name in enumerate(names) if name not in self._known}
        for name in list(new) if self.folder is not None else []:
            if (code := self.folder.find(name)) is not None:  # pyright: ignore[reportOptionalMemberAccess]
                self._known[name] = code.to(images.device)
                del new[name]
        if new:
            self._keep(new, self.encode(images[list(new.values())]))
        return torch.stack([self._known[name] for name in names])

    def _keep(self, new: Mapping[str, int], codes: Tensor) -> None:
        finite = codes.flatten(1).isfinite().all(1).tolist()
        for (name, row), code, usable in zip(new.items(), codes, finite, strict=True):
            if not usable:
                raise NonFiniteCodes(row)
            self._known[name] = code
            if self.folder is not None:
                self.folder.add(name, code)

    def flush(self) -> None:
        """Write what the folder does not have yet."""
        if self.folder is not None:
            self.folder.flush()


def cached(
    encode: Callable[[Images], Tensor], where: bool | str, encoder: torch.nn.Module, about: str = ""
) -> Callable[[Images], Tensor]:
    """`encode` as it is (False), remembering in memory (True), or in a folder too, in a part of it for this encoder.

    The part is named by the encoder's weights, and by `about`, what else its codes depend on.
    """
    if where is False:
        return encode
    if where is True:
        return LatentCache(encode)
    folder = CodeFolder(Path(where) / f"{weights_id(encoder.state_dict())}{about}")
    log.info("%d cached codes in %s", len(folder), folder.folder)
    return LatentCache(encode, folder)
