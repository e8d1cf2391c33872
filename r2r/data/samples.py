"""One sample before decoding: a key, named byte ranges (files or shard members), and perhaps a caption."""

import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.ContainerIO import ContainerIO

from r2r.errors import DataError, InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FilePart:
    """A whole file."""

    path: str

    @property
    def name(self) -> str:
        return self.path

    def read(self) -> bytes:
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def open(self) -> io.BufferedReader:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ShardPart:
    """A member of an uncompressed tar file, read by seeking to it."""

    shard: str
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.member} in {self.shard}"

    def read(self) -> bytes:
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror}") from error
        if len(data) < self.size:
            raise DataError(f"truncated shard: {self.name} has {len(data)} of {self.size} bytes; copy the shard again")
        return data

    def open(self) -> ContainerIO[bytes]:
        try:
            return ContainerIO(open(self.shard, "rb"), self.offset, self.size)
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """Bytes that a stream has already delivered."""

    name: str
    data: bytes

    def read(self) -> bytes:
        return self.data

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.data)


HALVES = ("first", "second")

Part = FilePart | ShardPart | LoadedPart
"""Bytes that are read when needed, all or, from what `open` gives, some; `name` is what errors call them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """`parts` by member name ("photo.png", "json", ...).

    `caption` is set when a caption file or folder name gives it; `member` names the image to take, None the only one;
    `size` is the width and height of its bucket, None without buckets.
    """

    key: str
    parts: Mapping[str, Part]
    caption: str | None = None
    member: str | None = None
    size: tuple[int, int] | None = None

    def part(self, member: str) -> Part:
        """The named part. Raises: DataError listing what the sample has instead."""
        if member not in self.parts:
            raise DataError(f"sample {self.key} has no {member!r}, only {', '.join(sorted(self.parts)) or 'nothing'}")
        return self.parts[member]

    def fields(self) -> dict[str, Any]:
        """The JSON member as a dict, empty when there is none. Raises: DataError when it is not a JSON object."""
        if "json" not in self.parts:
            return {}
        part = self.parts["json"]
        try:
            fields = json.loads(part.read())
        except ValueError as error:
            raise DataError(f"broken JSON: {part.name} ({error})") from error
        if not isinstance(fields, dict):
            raise DataError(f"not a JSON object: {part.name}")
        return fields

    def identity(self) -> str:
        """Who or what is shown: the fields `seed` and `identity`, else the key.

        Samples of one identity never lie on both sides of a split.
        """
        fields = self.fields()
        return f"{fields.get('seed', '')}-{fields['identity']}" if "identity" in fields else self.key


def in_half(samples: Iterable[Sample], half: str | None) -> Iterator[Sample]:
    """The samples whose identities are in the "first" or "second" half, by their names alone; all when `half` is None.

    The halves are equal in expectation, and keep what they have when samples are added.
    Raises: InputError for another name of a half.
    """
    if half not in (*HALVES, None):
        raise InputError(f"data.half={half} is unknown; use first, second, or null for all scenes")
    # Not the lowest bit: names that count on would fall unevenly.
    return (s for s in samples if half is None or HALVES[zlib.crc32(s.identity().encode()) >> 8 & 1] == half)


def without_held_out(train: Sequence[Sample], held_out: Sequence[Sample]) -> list[Sample]:
    """The training samples of identities that are not held out too; a warning tells how many are not among them."""
    held = {sample.identity() for sample in held_out}
    kept = [sample for sample in train if sample.identity() not in held]
    if len(kept) < len(train):
        log.warning("%d training samples left out: they show who or what is held out", len(train) - len(kept))
    return kept


def spread_domains(samples: Iterable[Sample], members: Sequence[str | None]) -> Iterator[Sample]:
    """One sample per image member; with several, the member's stem joins the key ("scene-1.photo")."""
    for sample in samples:
        for member in members:
            key = f"{sample.key}.{member.split('.')[0]}" if member and len(members) > 1 else sample.key
            yield replace(sample, key=key, member=member)
