"""A page that shows what was found in photos of persons: label map, skeleton, boxes and caption over each photo."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from r2r.data.images import load_image
from r2r.data.prepared import Box, PreparedPerson, region_box
from r2r.errors import DataError
from r2r.parsing import REGIONS, region_map
from r2r.pose import coco_to_openpose, draw_skeleton
from r2r.reporting.pages import render, thumbnail

HEIGHT = 320  # pixels of a picture on the page
TINT = 0.65  # of a region's colour
COLOURS = (  # of `REGIONS`; background keeps its grey
    (0, 0, 0), (255, 205, 148), (140, 86, 75), (214, 39, 40), (31, 119, 180), (148, 103, 189), (255, 152, 150),
    (44, 160, 44), (188, 189, 34),
)  # fmt: skip
MOST = 600  # photos on a page, some 30 MB
PERSON, OTHER, FACE = "cyan", "red", "yellow"  # boxes; OTHER: those that were not taken
LEVELS = ("problem", "remark", "ok")


@dataclass(frozen=True)
class Entry:
    """One photo on the page; `level` is "problem", "remark" or "ok"."""

    name: str
    verdict: str
    level: str
    picture: Callable[[], str] | None  # makes a data URI
    caption: str | None = None


def write_contact_sheet(
    path: Path,
    photos: Mapping[Path, str],
    persons: Mapping[Path, PreparedPerson],
    problems: Mapping[Path, str],
    boxes: Mapping[Path, Sequence[Box]],
    label_set: str,
) -> None:
    """Write one HTML file: photos that could not be prepared, with the boxes found in them, then those with remarks.

    Of more than `MOST` photos the last ones, which are in order, are left out.
    """
    entries = [_problem(photo, photos[photo], why, boxes.get(photo, ())) for photo, why in problems.items()]
    entries += [_person(photo, person, label_set) for photo, person in persons.items() if photo not in problems]
    entries.sort(key=lambda entry: LEVELS.index(entry.level))
    legend = [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in zip(REGIONS, COLOURS, strict=True)]
    html = render(
        "contact_sheet.html.j2",
        entries=entries[:MOST],
        counts=Counter(entry.level for entry in entries),
        left_out=len(entries[MOST:]),
        legend=legend[1:],
        height=HEIGHT,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(html, encoding="utf-8")
    os.replace(partial, path)


def overlay(photo: Image.Image, person: PreparedPerson, label_set: str) -> Image.Image:
    """The photo, `HEIGHT` pixels high at most, with skeleton and boxes; right of it its regions over grey."""
    scale = min(1.0, HEIGHT / photo.height)
    size = max(1, round(scale * photo.width)), max(1, round(scale * photo.height))
    regions, small = region_map(person.labels, label_set), photo.resize(size, Image.Resampling.LANCZOS)
    limbs = draw_skeleton(coco_to_openpose(person.keypoints) * [scale, scale, 1], *size, thickness=3.0)
    found = Image.fromarray(np.where(limbs.any(axis=2, keepdims=True), limbs, np.array(small)))
    _frame(found, person.others, scale, OTHER)
    _frame(found, [person.box], scale, PERSON)
    face = region_box(regions, ("face", "hair"))
    _frame(found, [face] if face else [], scale, FACE)
    both = Image.new("RGB", (2 * size[0], size[1]))
    both.paste(found, (0, 0))
    both.paste(_tinted(small, regions), (size[0], 0))
    return both


def _tinted(photo: Image.Image, regions: UInt8[np.ndarray, "_ _"]) -> Image.Image:
    fitted = np.array(Image.fromarray(regions).resize(photo.size, Image.Resampling.NEAREST))
    grey = np.array(photo.convert("L").convert("RGB"), np.float64)
    tinted = (1 - TINT) * grey + TINT * np.array(COLOURS)[fitted]
    return Image.fromarray(np.where(fitted[..., None] > 0, tinted, grey).astype(np.uint8))


def _frame(picture: Image.Image, boxes: Iterable[Box], scale: float, colour: str) -> None:
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        left, top, right, bottom = (scale * side for side in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)


def _person(photo: Path, person: PreparedPerson, label_set: str) -> Entry:
    remarks = [f"{len(person.others) + 1} persons: largest taken"] if person.others else []
    remarks += [f"not seen: {', '.join(person.unseen)}"] if person.unseen else []

    def picture() -> str:
        return thumbnail(overlay(load_image(photo), person, label_set))

    return Entry(person.name, "; ".join(remarks) or "ok", "remark" if remarks else "ok", picture, person.caption)


def _problem(photo: Path, name: str, why: str, boxes: Sequence[Box]) -> Entry:
    try:
        size = load_image(photo).size
    except DataError:
        return Entry(name, why, "problem", None)

    def picture() -> str:
        scale = min(1.0, HEIGHT / size[1], 4 * HEIGHT / size[0])
        small = load_image(photo).resize((max(1, round(scale * size[0])), max(1, round(scale * size[1]))))
        _frame(small, boxes, scale, OTHER)
        return thumbnail(small)

    return Entry(name, why, "problem", picture)
