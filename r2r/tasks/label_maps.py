"""Label maps that lie beside photos of persons, and what they must show."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from scipy import ndimage

from r2r.data.images import decode_mask
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS, label_names, region_map

LEAST_HEAD = 0.5  # of the largest head: from here on another head is another person
NEAR = 0.25  # of a head's width, from either side: what lies closer belongs together


class LabelMaps:
    """The label maps of a folder of photos, as regions of `r2r.parsing.REGIONS`.

    Args:
        input: folder of the photos, or one of them.
        parsing: folder of label maps with the photos' relative names, `.png`.
        label_set: theirs; a name of `r2r.parsing.LABEL_SETS`.

    Raises InputError for an unknown set, or no folder of label maps.
    """

    def __init__(self, input: str | Path, parsing: str | Path, label_set: str = "ATR_18") -> None:
        label_names(label_set)
        if not Path(parsing).is_dir():
            raise InputError(f"task.parsing={parsing}: no such folder; give one of label maps, named as the photos")
        self.root = Path(input) if Path(input).is_dir() else Path(input).parent
        self.parsing, self.label_set = Path(parsing), label_set

    def place(self, path: Path) -> Path:
        """Where the label map of a photo lies."""
        return self.parsing / path.relative_to(self.root).with_suffix(".png")

    def __call__(self, path: Path, image: Image.Image) -> UInt8[np.ndarray, "h w"]:
        """The regions of a photo of one person.

        Raises DataError, naming the file, for a label map that is missing, broken, of another size or another set, or
        that shows several persons.
        """
        place = self.place(path)
        try:
            labels = np.array(decode_mask(place.read_bytes(), str(place)))
        except OSError as error:
            raise DataError(f"{path}: no label map {place} ({error.strerror})") from error
        if labels.shape != image.size[::-1]:
            raise DataError(f"{place} is {labels.shape[1]}x{labels.shape[0]}, {path} {image.width}x{image.height}")
        try:
            regions = region_map(labels, self.label_set)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        if (heads := _heads(regions)) > 1:
            raise DataError(f"{place}: {heads} heads, so several persons; crop to one")
        return regions


def resized_labels(labels: UInt8[np.ndarray, "h w"], size: tuple[int, int]) -> UInt8[torch.Tensor, "1 h2 w2"]:
    """A label map in another size (width, height), nearest neighbour."""
    return torch.from_numpy(np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)))[None]


def resized_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[torch.Tensor, "1 h2 w2"]:
    """A mask in another size."""
    return resized_labels(mask.astype(np.uint8), size) > 0


def _heads(regions: UInt8[np.ndarray, "h w"]) -> int:
    """How many heads of about one size there are, face and hair together: from behind hardly any face is seen.

    Parts that lie near each other, as on both sides of a hand, are one.
    """
    head = np.isin(regions, [REGIONS.index("face"), REGIONS.index("hair")])
    parts: Any = ndimage.label(head)
    largest = np.bincount(parts[0].ravel())[1:].max(initial=1)
    near = max(1, round(NEAR * largest**0.5))
    joined: Any = ndimage.label(ndimage.binary_dilation(head, iterations=near))
    sizes = np.bincount(joined[0][head])[1:]
    return int((sizes >= LEAST_HEAD * sizes.max(initial=1)).sum())
