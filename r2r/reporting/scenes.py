"""What methods are compared on: the scenes with their references and regions, and what each method made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from r2r.data.pictures import Files
from r2r.errors import InputError
from r2r.metrics import Mask
from r2r.types import Images

Picture = Float[Tensor, "3 _ _"]  # RGB in [-1, 1]
Region = Bool[Tensor, "1 _ _"]  # True = counted
Reference = Literal["source", "target"]
BACKGROUND = "background"


@dataclass(frozen=True)
class Scenes:
    """The scenes all methods are scored on; sequences may decode as they are read, and are never held whole.

    `target` is what outputs should look like: the true twin of each source when `paired`, else a set of its own, of any
    length. `masks` name regions of the source, one mask per key (an empty one leaves the scene out of that region);
    with any, the background is what no mask covers. `source_name`, `twin_name` and `target_name` are what columns call
    the source, the twin of a scene and the set of all targets. `resize` says what was done to make sizes equal.
    """

    keys: Sequence[str]
    source: Sequence[Picture]
    target: Sequence[Picture] | None = None
    paired: bool = False
    masks: Mapping[str, Sequence[Region]] = field(default_factory=dict)
    source_name: str = "source"
    twin_name: str = "target"
    target_name: str = "target"
    resize: str = "none"

    def __post_init__(self) -> None:
        """Raise InputError unless everything that belongs to the keys has their number."""
        twins = self.target if self.paired and self.target is not None else []
        counted = {"sources": self.source, "targets": twins or self.keys} | {
            f"masks {n}": m for n, m in self.masks.items()
        }
        for name, pictures in counted.items():
            if len(pictures) != len(self.keys):
                raise InputError(f"{len(pictures)} {name} for {len(self.keys)} scenes; give one for each")
        if self.paired and self.target is None:
            raise InputError("paired=True without a target; give the true twin of each source")

    @property
    def regions(self) -> list[str]:
        """Names of the masks, and the background where there are any."""
        derived = [BACKGROUND] if self.masks and BACKGROUND not in self.masks else []
        return [*self.masks, *derived]

    def mask(self, region: str, index: int) -> Region:
        """The mask of a region in one scene; the background is what no mask covers."""
        if region in self.masks:
            return self.masks[region][index]
        return ~torch.stack([masks[index] for masks in self.masks.values()]).any(0)

    def only(self, places: Sequence[int]) -> "Scenes":
        """Some of the scenes, by number; a target that does not follow the scenes stays whole."""
        followed = self.paired and self.target is not None
        return replace(
            self,
            keys=[self.keys[place] for place in places],
            source=Chosen(self.source, places),
            target=Chosen(self.target, places) if followed and self.target is not None else self.target,
            masks={name: Chosen(masks, places) for name, masks in self.masks.items()},
        )

    @property
    def references(self) -> list[Reference]:
        """What every single output has a reference in."""
        return ["source", "target"] if self.paired else ["source"]


@dataclass(frozen=True)
class Outputs:
    """What one method made of all scenes, in their order, with its cost per image where there is one.

    `evals` counts U-Net evaluations; `folder` and `settings` say where the images lie and how they were made.
    """

    name: str
    images: Sequence[Picture]
    evals: float | None = None
    seconds: float | None = None
    memory_gb: float | None = None
    folder: Path | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Scenes of one shape: where they stand, a method's images of them, the references, and the masks by region."""

    index: list[int]
    images: Images
    references: Mapping[str, Images]
    masks: Mapping[str, Mask]


class Chosen(Sequence[Tensor]):
    """Some of a sequence's pictures or masks, by number."""

    def __init__(self, pictures: Sequence[Tensor], places: Sequence[int]) -> None:
        self.pictures, self.places = pictures, list(places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...
    def __getitem__(self, index: int | slice) -> "Tensor | Chosen":
        if isinstance(index, slice):
            return Chosen(self.pictures, self.places[index])
        return self.pictures[self.places[index]]


class Inside(Sequence[Picture]):
    """Pictures of scenes, mid-grey outside a region; `places` lists the scenes that have the region."""

    def __init__(self, scenes: Scenes, pictures: Sequence[Picture], region: str, places: Sequence[int]) -> None:
        self.scenes, self.pictures, self.region, self.places = scenes, pictures, region, list(places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> "Inside": ...
    def __getitem__(self, index: int | slice) -> "Picture | Inside":
        """A picture times its mask: 0 is mid-grey."""
        if isinstance(index, slice):
            return Inside(self.scenes, self.pictures, self.region, self.places[index])
        scene = self.places[index]
        return self.pictures[scene] * self.scenes.mask(self.region, scene)

    def ids(self) -> list[str] | None:
        """What each picture is: its own id with those of all masks; None where something is not a file."""
        masks = list(self.scenes.masks.values())
        if not isinstance(self.pictures, Files) or not all(isinstance(each, Files) for each in masks):
            return None
        columns = [self.pictures.ids(), *(each.ids() for each in masks if isinstance(each, Files))]
        return [" ".join([self.region, *(column[scene] for column in columns)]) for scene in self.places]


def batches(scenes: Scenes, outputs: Outputs, batch_size: int) -> Iterator[Batch]:
    """All scenes in order, at most `batch_size` and only equal shapes together.

    Raises InputError for images of another shape than their references or masks.
    """
    rows: list[Batch] = []
    for index in range(len(scenes.keys)):
        row = _row(scenes, outputs, index)
        if rows and (len(rows) == batch_size or row.images.shape != rows[0].images.shape):
            yield _stack(rows)
            rows = []
        rows.append(row)
    if rows:
        yield _stack(rows)


def _row(scenes: Scenes, outputs: Outputs, index: int) -> Batch:
    image = outputs.images[index]
    sequences = {"source": scenes.source, "target": scenes.target if scenes.paired else None}
    references = {name: pictures[index] for name, pictures in sequences.items() if pictures is not None}
    masks = {name: region[index] for name, region in scenes.masks.items()}
    for name, other in {**references, **masks}.items():
        if other.shape[1:] != image.shape[1:]:
            sides = " and ".join(f"{width}x{height}" for height, width in (image.shape[1:], other.shape[1:]))
            raise InputError(
                f"{outputs.name}, {scenes.keys[index]}: the image and its {name} differ in size, {sides} "
                "(width x height); give images of one size"
            )
    if BACKGROUND in scenes.regions and BACKGROUND not in masks:
        masks[BACKGROUND] = scenes.mask(BACKGROUND, index)
    return Batch(
        [index], image[None], {n: r[None] for n, r in references.items()}, {n: m[None] for n, m in masks.items()}
    )


def _stack(rows: Sequence[Batch]) -> Batch:
    first = rows[0]
    return replace(
        first,
        index=[index for row in rows for index in row.index],
        images=torch.cat([row.images for row in rows]),
        references={name: torch.cat([row.references[name] for row in rows]) for name in first.references},
        masks={name: torch.cat([row.masks[name] for row in rows]) for name in first.masks},
    )
