"""Which pairs of a person and a flat garment are good enough for a second stage of training: measured, then chosen.

IGR (arXiv:2412.11513) trains coarse to fine, on all pairs and then on "perfectly matched" ones; its figure 2 shows
three kinds of bad pairs, its rule is not public. Measures and thresholds here are r2r's own.

- `area`: share of the picture that the garment takes on the person.
- `occlusion`: of the garment's outline with gaps closed, the share that hair, skin or accessories cover.
- `colour`: distance of the mean colours of worn and flat garment, in the a and b of CIELAB: light changes L most.
- Pairs whose person and garment both look like those of an earlier pair (difference hashes of 64 bits) are duplicates.
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageCms
from rich.progress import track
from scipy import ndimage
from torch import Tensor

from r2r.data.images import to_pil
from r2r.data.samples import Sample
from r2r.data.views import View
from r2r.errors import DataError, InputError
from r2r.parsing import REGIONS

log = logging.getLogger(__name__)
COVERING = [REGIONS.index(name) for name in ("hair", "skin", "accessories")]
CLOSED = 0.06  # of the picture's height: gaps up to this width, such as an arm's, are closed
WHITE = 245  # a flat garment without a mask is where any channel is darker
KEPT = 500  # pairs after which measures are written: a measuring that was ended goes on from there
FIELDS: tuple[str, ...] = ("key", "member", "area", "occlusion", "colour", "person_hash", "flat_hash")
_LAB = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")

Measures = dict[str, Any]


@dataclass(frozen=True)
class Curation:
    """Thresholds; `measures` is a CSV file that keeps what was measured, so that other thresholds take no time."""

    measures: str | None = None
    min_area: float = 0.02
    max_occlusion: float = 0.1
    max_colour: float = 15.0
    drop_duplicates: bool = True

    def __post_init__(self) -> None:
        for name in ("min_area", "max_occlusion"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"data.curation.{name}={getattr(self, name)} must lie in [0, 1]")

    def keep(self, samples: Sequence[Sample], view: View) -> list[Sample]:
        """The good ones of the entries of a restoration view; says how many were left out, and why.

        Raises DataError when none is left, or for measures of other data.
        """
        verdicts = self.verdicts(self.measure(samples, view))
        kept = [sample for sample, verdict in zip(samples, verdicts, strict=True) if verdict is None]
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(filter(None, verdicts)).most_common())
        log.info(
            "curation keeps %d of %d pairs%s", len(kept), len(samples), f"; left out: {reasons}" if reasons else ""
        )
        if not kept:
            raise DataError(f"curation leaves none of {len(samples)} pairs: {reasons}; loosen data.curation")
        return kept

    def verdicts(self, measured: Iterable[Measures]) -> list[str | None]:
        """What is wrong with each pair, in their order; None for the good ones."""
        known, found = set[tuple[str, str]](), list[str | None]()
        for pair in measured:
            look = (pair["person_hash"], pair["flat_hash"])
            found.append(self._verdict(pair, look in known))
            known.add(look)
        return found

    def measure(self, samples: Sequence[Sample], view: View) -> list[Measures]:
        """The measures of every entry; those already in the file are taken from there, new ones are added to it."""
        path = None if self.measures is None else Path(self.measures)
        known = _read(path) if path is not None and path.is_file() else {}
        names = [(sample.key, sample.member or "") for sample in samples]
        missing = [number for number, name in enumerate(names) if name not in known]
        for count, number in enumerate(track(missing, "measuring pairs", disable=len(missing) < KEPT), 1):
            key, member = names[number]
            known[names[number]] = {"key": key, "member": member} | measure(view(samples[number], None))
            if path is not None and (count % KEPT == 0 or count == len(missing)):
                _write(path, known.values())
        return [known[name] for name in names]

    def _verdict(self, pair: Measures, again: bool) -> str | None:
        if float(pair["area"]) < self.min_area:
            return "too small"
        if float(pair["occlusion"]) > self.max_occlusion:
            return "covered"
        if float(pair["colour"]) > self.max_colour:
            return "of another colour"
        return "duplicates" if again and self.drop_duplicates else None


def measure(item: Mapping[str, Any]) -> dict[str, Any]:
    """The measures of one item of a `RestorationBatch`, without key and member."""
    mask, regions = item["garment_mask"][0].numpy(), item["parsing"][0].numpy()
    person, flat = np.array(to_pil(item["person"])), np.array(to_pil(item["flat"]))
    own: Any = item["flat_mask"][0].numpy() if "flat_mask" in item else (flat < WHITE).any(2)
    colours = (_mean_colour(person, mask), _mean_colour(flat, own))
    return {
        "area": round(float(mask.mean()), 5),
        "occlusion": round(occlusion(mask, regions), 5),
        "colour": round(float(np.linalg.norm(colours[0] - colours[1])), 3),
        "person_hash": difference_hash(item["person"]),
        "flat_hash": difference_hash(item["flat"]),
    }


def occlusion(mask: Bool[np.ndarray, "h w"], regions: np.ndarray) -> float:
    """Of a garment's outline with gaps closed, the share that hair, skin and accessories cover; 1 for no garment."""
    if not mask.any():
        return 1.0
    reach = max(1, round(CLOSED * mask.shape[0] / 2))
    padded = np.pad(mask, reach)
    disk = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, disk))
    outline = np.asarray(closed)[reach:-reach, reach:-reach]
    return float((outline & np.isin(regions, COVERING)).sum() / outline.sum())


def difference_hash(image: Float[Tensor, "3 h w"]) -> str:
    """64 bits, in hexadecimal: whether each of 8 x 8 places is darker than its right neighbour (dHash)."""
    small = np.array(to_pil(image).convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    bits = (small[:, :-1] < small[:, 1:]).ravel()
    return np.packbits(bits).tobytes().hex()


def _mean_colour(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean a and b of CIELAB inside a mask; neutral where it is empty."""
    if not mask.any():
        return np.zeros(2)
    lab = ImageCms.applyTransform(Image.fromarray(picture), _LAB)
    chroma = np.array(lab, np.uint8)[..., 1:].view(np.int8)[mask]  # a and b are signed
    return chroma.astype(np.float64).mean(0)


def _read(path: Path) -> dict[tuple[str, str], Measures]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise DataError(f"{path} holds no measures of pairs: its first line is not {','.join(FIELDS)}; remove it")
        return {(row["key"], row["member"]): row for row in reader}


def _write(path: Path, rows: Iterable[Measures]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(FIELDS))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
