"""Label sets of human parsing: which number means what, and the regions that all of them share.

A label map holds one number per pixel, the index of a name here; left and right are the person's. The four sets are
those of the ATR and LIP checkpoints of SCHP (Self-Correction for Human Parsing, arXiv 1910.09777), of VITON-HD's
`image-parse` folders (CIHP), and of DeepFashion-MultiModal. Gathering labels into regions is this project's choice.
"""

import numpy as np
from jaxtyping import Bool, UInt8

from r2r.errors import DataError, InputError

ATR_18 = (
    "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe",
    "right-shoe", "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
)  # fmt: skip
LIP_20 = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip
CIHP_20 = tuple("torso-skin" if name == "jumpsuits" else name for name in LIP_20)
DEEPFASHION_24 = (
    "background", "top", "outer", "skirt", "dress", "pants", "leggings", "headwear", "eyeglass", "neckwear", "belt",
    "footwear", "bag", "hair", "face", "skin", "ring", "wrist wearing", "socks", "gloves", "necklace", "rompers",
    "earrings", "tie",
)  # fmt: skip
LABEL_SETS = {"ATR_18": ATR_18, "LIP_20": LIP_20, "CIHP_20": CIHP_20, "DEEPFASHION_24": DEEPFASHION_24}

MEMBERS = {
    "background": ("background",),
    "face": ("face", "sunglasses", "eyeglass"),
    "hair": ("hair", "hat", "headwear"),
    "upper": ("upper-clothes", "coat", "top", "outer"),
    "lower": ("skirt", "pants", "leggings"),
    "full": ("dress", "jumpsuits", "rompers"),
    "skin": ("left-arm", "right-arm", "left-leg", "right-leg", "torso-skin", "skin"),
    "shoes": ("left-shoe", "right-shoe", "footwear", "socks"),
    "accessories": (
        "belt", "bag", "scarf", "glove", "gloves", "neckwear", "ring", "wrist wearing", "necklace", "earrings", "tie",
    ),
}  # fmt: skip
"""The labels of each region; "upper", "lower" and "full" are also the slots of garments."""

REGIONS = tuple(MEMBERS)
"""Shared regions; a region map holds indices of this tuple."""

IGNORE = 255  # what data sets write where nobody knows; taken for background

_REGION = {label: index for index, labels in enumerate(MEMBERS.values()) for label in labels}


def region_map(labels: UInt8[np.ndarray, "h w"], label_set: str = "ATR_18") -> UInt8[np.ndarray, "h w"]:
    """Indices of `REGIONS` from the label map of a set of `LABEL_SETS`.

    Raises: InputError for an unknown set; DataError for a number the set does not have.
    """
    return _lookup(labels, [_REGION[name] for name in label_names(label_set)], label_set)


def region_masks(regions: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "regions h w"]:
    """One mask per name of `REGIONS`; every pixel is in exactly one."""
    return regions[None] == np.arange(len(REGIONS), dtype=np.uint8)[:, None, None]


def convert_labels(labels: UInt8[np.ndarray, "h w"], source: str, target: str) -> UInt8[np.ndarray, "h w"]:
    """A label map of another set, by name; labels the target set lacks (ATR's belt and bag in LIP) become background.

    Raises: InputError for an unknown set; DataError for a number the source set does not have.
    """
    names = label_names(target)
    table = [names.index(name) if name in names else 0 for name in label_names(source)]
    return _lookup(labels, table, source)


def label_names(label_set: str) -> tuple[str, ...]:
    """The names of a set in order. Raises: InputError for an unknown set."""
    if label_set not in LABEL_SETS:
        raise InputError(f"unknown label set {label_set!r}; known: {', '.join(LABEL_SETS)}")
    return LABEL_SETS[label_set]


def _lookup(labels: UInt8[np.ndarray, "h w"], table: list[int], label_set: str) -> UInt8[np.ndarray, "h w"]:
    strange = np.setdiff1d(labels, [*range(len(table)), IGNORE])
    if len(strange):
        found = ", ".join(map(str, strange[:5]))
        raise DataError(
            f"label {found} is not in {label_set} (0 to {len(table) - 1}); say which set it is: {', '.join(LABEL_SETS)}"
        )
    every = np.zeros(256, np.uint8)
    every[: len(table)] = table
    return every[labels]
