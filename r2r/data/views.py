"""From undecoded samples to tensors: one domain (`ImageView`) or rendered / photo pairs (`PairView`)."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from r2r.data.captions import CaptionRule
from r2r.data.images import (
    EXTENSIONS,
    cover_crop,
    covering_size,
    decode_image,
    decode_mask,
    digest,
    to_tensor,
    upright_size,
)
from r2r.data.samples import Part, Sample, spread_domains
from r2r.errors import DataError, InputError
from r2r.pose import mirrored, within


@runtime_checkable
class View(Protocol):
    """What a method sees of the data."""

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """What can be seen in the samples: one, several or none for each of them, or one for several."""
        ...

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        """Decode an entry.

        `place` is its place in the training stream, which alone decides what is random about it; None means
        evaluation: nothing random, nothing dropped.
        """
        ...


Foreground = Callable[[np.ndarray], np.ndarray]


def binary_foreground(values: np.ndarray) -> np.ndarray:
    """Masks of 0 and 255: the bright part."""
    return values > 127


def labelled_foreground(values: np.ndarray) -> np.ndarray:
    """Class maps: everything but class 0 (background) and 255 (ignore)."""
    return (values != 0) & (values != 255)


@dataclass(frozen=True)
class Geometry:
    """Training view of `size` (width, height): scaled until it covers that (Lanczos), centre crop.

    With `horizontal_flip` half of the training views are mirrored (not where lettering must stay readable). With
    `window` (width, height) training shows a random part of that size, evaluation the whole.
    """

    size: tuple[int, int]
    horizontal_flip: bool = False
    window: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InputError(f"data.resolution must be at least 1: {min(self.size)}")
        if self.window and not all(1 <= part <= whole for part, whole in zip(self.window, self.size, strict=True)):
            raise InputError(
                f"data.random_crop={self.window[::-1]} does not fit into data.resolution={self.size[::-1]}"
            )

    def flips(self, chance: random.Random | None) -> bool:
        """Decides the mirror image; evaluation (`chance` None) never flips."""
        return chance is not None and self.horizontal_flip and chance.random() < 0.5

    def part(self, chance: random.Random | None) -> tuple[slice, slice]:
        """Rows and columns to show; evaluation (`chance` None) shows all."""
        if chance is None or self.window is None:
            return slice(None), slice(None)
        left, top = (chance.randint(0, whole - part) for part, whole in zip(self.window, self.size, strict=True))
        return slice(top, top + self.window[1]), slice(left, left + self.window[0])

    def image(self, part: Part, flip: bool) -> Float[Tensor, "3 h w"]:
        """Decoded, resized, cropped, in [-1, 1]."""
        return self.picture(decode_image(part.read(), part.name), flip)

    def picture(self, image: Image.Image, flip: bool) -> Float[Tensor, "3 h w"]:
        """Resized, cropped, in [-1, 1]."""
        image = cover_crop(image, self.size, Image.Resampling.LANCZOS)
        return to_tensor(ImageOps.mirror(image) if flip else image)

    def labels(self, part: Part, flip: bool) -> UInt8[np.ndarray, "h w"]:
        """Same view of a label or mask image, nearest neighbour."""
        image = cover_crop(decode_mask(part.read(), part.name), self.size, Image.Resampling.NEAREST)
        return np.array(ImageOps.mirror(image) if flip else image)

    def mask(self, part: Part, flip: bool, foreground: Foreground) -> Bool[Tensor, "1 h w"]:
        """Same view of a mask."""
        return torch.from_numpy(foreground(self.labels(part, flip)))[None]

    def keypoints(
        self, keypoints: Float[np.ndarray, "18 3"], size: tuple[int, int], flip: bool
    ) -> Float[np.ndarray, "18 3"]:
        """Same view of OpenPose's keypoints in a picture of `size`; those that are cropped away are zeros."""
        covering = covering_size(size, self.size)
        scale = [covering[axis] / size[axis] for axis in (0, 1)]
        left, top = ((covering[axis] - self.size[axis]) // 2 for axis in (0, 1))
        moved = within(np.where(keypoints[:, 2:] > 0, keypoints * [*scale, 1] - [left, top, 0], 0.0), *self.size)
        return mirrored(moved, self.size[0]) if flip else moved


def chance_at(seed: int, place: int | None) -> random.Random | None:
    """The chance that decides about the entry at a place of the training stream; None in evaluation."""
    return None if place is None else random.Random(f"{seed}:{place}")


@dataclass(frozen=True)
class ImageView:
    """One image with its caption, and its garment mask when `mask_member` names one.

    `captions` has one rule per image member (`Sample.member`), so that mixed domains are worded apart. A sample
    that has been put into a bucket is shown in its size.
    """

    geometry: Geometry
    captions: Mapping[str | None, CaptionRule]
    mask_member: str | None = None
    foreground: Foreground = binary_foreground
    seed: int = 0

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """One for each image member."""
        return spread_domains(samples, list(self.captions))

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance = chance_at(self.seed, place)
        geometry = self.geometry if sample.size is None else replace(self.geometry, size=sample.size)
        caption, flip = self.captions[sample.member](sample, chance), geometry.flips(chance)
        rows, columns = geometry.part(chance)
        image = geometry.image(sample.part(sample.member or only_image(sample)), flip)
        image = image[:, rows, columns]
        item = {"image": image, "image_digest": digest(image), "caption": caption, "key": sample.key}
        if self.mask_member is not None:
            mask = geometry.mask(sample.part(self.mask_member), flip, self.foreground)
            item["garment_mask"] = mask[:, rows, columns]
        return item


@dataclass(frozen=True)
class PairView:
    """A studio scene: `rendered`, its `photo` twin, garment mask, caption, category and texture."""

    geometry: Geometry
    captions: CaptionRule
    seed: int = 0

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Every scene."""
        return iter(samples)

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance = chance_at(self.seed, place)
        caption, flip, fields = self.captions(sample, chance), self.geometry.flips(chance), sample.fields()
        return {
            "rendered": self.geometry.image(sample.part("rendered.png"), flip),
            "photo": self.geometry.image(sample.part("photo.png"), flip),
            "garment_mask": self.geometry.mask(sample.part("garment_mask.png"), flip, binary_foreground),
            "caption": caption,
            "category": str(fields.get("category", "")),
            "texture": str(fields.get("texture", "")),
            "key": sample.key,
        }


def only_image(sample: Sample) -> str:
    """Name of the sample's image: "image" for files, else the one member that is an image.

    Raises: DataError when there are none or several.
    """
    if "image" in sample.parts:
        return "image"
    images = [name for name in sample.parts if f".{name}".endswith(EXTENSIONS)]
    if len(images) != 1:
        found = ", ".join(sorted(sample.parts))
        raise DataError(f"sample {sample.key} has {len(images)} images ({found}); set data.image_member to one of them")
    return images[0]


def image_size(sample: Sample) -> tuple[int, int]:
    """Width and height of the sample's image on disk, upright, from its header.

    Raises: DataError as `only_image` and `upright_size`.
    """
    images = [name for name in ("photo.png", "image", "source.photo.png") if name in sample.parts]
    part = sample.part(sample.member or (images[0] if images else only_image(sample)))
    with part.open() as file:
        return upright_size(file, part.name)
