"""Label sets: their sizes, what they share, and regions that partition a picture."""

import numpy as np
import pytest

from r2r.errors import DataError, InputError
from r2r.parsing import (
    ATR_18,
    CIHP_20,
    DEEPFASHION_24,
    LABEL_SETS,
    LIP_20,
    MEMBERS,
    REGIONS,
    convert_labels,
    region_map,
    region_masks,
)


def named(names: tuple[str, ...], *labels: str) -> np.ndarray:
    return np.array([[names.index(label) for label in labels]], np.uint8)


def regions(labels: np.ndarray, label_set: str) -> list[str]:
    return [REGIONS[index] for index in region_map(labels, label_set)[0]]


@pytest.mark.parametrize(("name", "size"), [("ATR_18", 18), ("LIP_20", 20), ("CIHP_20", 20), ("DEEPFASHION_24", 24)])
def test_sets_have_distinct_labels_all_with_a_region(name: str, size: int) -> None:
    names = LABEL_SETS[name]
    assert len(set(names)) == size and names[0] == "background"
    assert set(names) <= {label for labels in MEMBERS.values() for label in labels}
    assert region_map(np.zeros((1, 1), np.uint8), name).item() == 0


def test_labels_of_known_numbers() -> None:
    """As the models' configurations and the loaders of the data sets number them."""
    assert (ATR_18[4], ATR_18[7], ATR_18[11], ATR_18[17]) == ("upper-clothes", "dress", "face", "scarf")
    assert (LIP_20[5], LIP_20[7], LIP_20[13], LIP_20[19]) == ("upper-clothes", "coat", "face", "right-shoe")
    assert (LIP_20[10], CIHP_20[10]) == ("jumpsuits", "torso-skin")
    assert (DEEPFASHION_24[10], DEEPFASHION_24[21], DEEPFASHION_24[23]) == ("belt", "rompers", "tie")


def test_the_same_clothes_have_the_same_region_in_every_set() -> None:
    clothes = ["upper", "lower", "full", "skin", "shoes", "hair", "face"]
    atr = named(ATR_18, "upper-clothes", "skirt", "dress", "left-arm", "left-shoe", "hat", "sunglasses")
    lip = named(LIP_20, "coat", "pants", "jumpsuits", "right-leg", "right-shoe", "hair", "face")
    fashion = named(DEEPFASHION_24, "outer", "leggings", "rompers", "skin", "footwear", "headwear", "eyeglass")
    assert regions(atr, "ATR_18") == regions(lip, "LIP_20") == regions(fashion, "DEEPFASHION_24") == clothes
    assert regions(named(CIHP_20, "torso-skin"), "CIHP_20") == ["skin"]


def test_masks_partition_the_picture() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    masks = region_masks(region_map(labels, "DEEPFASHION_24"))
    assert masks.shape == (len(REGIONS), 4, 6) and (masks.sum(0) == 1).all()
    assert masks[REGIONS.index("upper")].sum() == 2


def test_labels_become_those_of_another_set() -> None:
    labels = named(ATR_18, "upper-clothes", "left-leg", "belt", "face", "dress")
    assert (convert_labels(labels, "ATR_18", "CIHP_20") == [[5, 16, 0, 13, 6]]).all()
    kept = named(ATR_18, *(name for name in ATR_18 if name not in ("belt", "bag")))
    assert (convert_labels(convert_labels(kept, "ATR_18", "LIP_20"), "LIP_20", "ATR_18") == kept).all()


def test_ignored_pixels_are_background_and_strange_ones_are_named() -> None:
    assert region_map(np.full((1, 2), 255, np.uint8)).tolist() == [[0, 0]]
    with pytest.raises(DataError, match=r"label 18, 23 is not in ATR_18 \(0 to 17\)"):
        region_map(np.array([[0, 18, 23]], np.uint8))
    with pytest.raises(InputError, match="unknown label set 'PASCAL'"):
        region_map(np.zeros((1, 1), np.uint8), "PASCAL")
