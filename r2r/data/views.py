"""From an undecoded sample to tensors: one domain (`ImageView`) or a rendered / photo pair (`PairView`)."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor

from r2r.data.captions import CaptionRule
from r2r.data.images import EXTENSIONS, decode_image, decode_mask, short_side_crop, to_tensor
from r2r.data.samples import Part, Sample
from r2r.errors import DataError

View = Callable[[Sample, int | None], dict[str, Any]]
"""Decodes a sample. The number is its place in the training stream, which alone decides what is random about it;
None means evaluation: nothing random, nothing dropped."""

Foreground = Callable[[np.ndarray], np.ndarray]


def binary_foreground(values: np.ndarray) -> np.ndarray:
    """Masks of 0 and 255: the bright part."""
    return values > 127


def labelled_foreground(values: np.ndarray) -> np.ndarray:
    """Class maps: everything but class 0 (background) and 255 (ignore)."""
    return (values != 0) & (values != 255)


@dataclass(frozen=True)
class Geometry:
    """Square training view: short side to `resolution` (Lanczos), centre crop.

    With `horizontal_flip` half of the training views are mirrored (not where lettering must stay readable).
    """

    resolution: int
    horizontal_flip: bool = False

    def flips(self, chance: random.Random | None) -> bool:
        """Decides the mirror image; evaluation (`chance` None) never flips."""
        return chance is not None and self.horizontal_flip and chance.random() < 0.5

    def image(self, part: Part, flip: bool) -> Float[Tensor, "3 h w"]:
        """Decoded, resized, cropped, in [-1, 1]."""
        image = short_side_crop(decode_image(part.read(), part.name), self.resolution, Image.Resampling.LANCZOS)
        return to_tensor(ImageOps.mirror(image) if flip else image)

    def mask(self, part: Part, flip: bool, foreground: Foreground) -> Bool[Tensor, "1 h w"]:
        """Same view of a mask, nearest neighbour."""
        image = short_side_crop(decode_mask(part.read(), part.name), self.resolution, Image.Resampling.NEAREST)
        return torch.from_numpy(foreground(np.array(ImageOps.mirror(image) if flip else image)))[None]


def _chance(seed: int, place: int | None) -> random.Random | None:
    return None if place is None else random.Random(f"{seed}:{place}")


@dataclass(frozen=True)
class ImageView:
    """One image with its caption, and its garment mask when `mask_member` names one.

    `captions` has one rule per image member (`Sample.member`), so that mixed domains are worded apart.
    """

    geometry: Geometry
    captions: Mapping[str | None, CaptionRule]
    mask_member: str | None = None
    foreground: Foreground = binary_foreground
    seed: int = 0

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance = _chance(self.seed, place)
        caption, flip = self.captions[sample.member](sample, chance), self.geometry.flips(chance)
        part = sample.part(sample.member or only_image(sample))
        item = {"image": self.geometry.image(part, flip), "caption": caption, "key": sample.key}
        if self.mask_member is not None:
            item["garment_mask"] = self.geometry.mask(sample.part(self.mask_member), flip, self.foreground)
        return item


@dataclass(frozen=True)
class PairView:
    """A studio scene: `rendered`, its `photo` twin, garment mask, caption, category and texture."""

    geometry: Geometry
    captions: CaptionRule
    seed: int = 0

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance = _chance(self.seed, place)
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
    """Width and height of the sample's image on disk, upright."""
    images = [name for name in ("photo.png", "image") if name in sample.parts]
    part = sample.part(sample.member or (images[0] if images else only_image(sample)))
    return decode_image(part.read(), part.name).size
