"""A page that shows what was found in photos of persons: label map, skeleton, boxes and caption over each photo."""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw

from r2r.data.images import load_image
from r2r.data.prepared import PreparedPerson, region_box
from r2r.errors import DataError
from r2r.parsing import REGIONS, region_map
from r2r.pose import coco_to_openpose, draw_skeleton
from r2r.reporting.pages import thumbnail

HEIGHT = 320  # pixels of a picture on the page
TINT = 0.45  # of a region's colour


@dataclass(frozen=True)
class Entry:
    """One photo on the page."""

    name: str
    verdict: str
    picture: str | None  # data URI
    caption: str | None = None
    problem: bool = False


def write_contact_sheet(
    path: Path, persons: Mapping[Path, PreparedPerson], problems: Mapping[Path, str], label_set: str
) -> None:
    """Write one HTML file: photos that could not be prepared first."""
    entries = [_problem(photo, why) for photo, why in problems.items()]
    entries += [_person(photo, person, label_set) for photo, person in persons.items()]
    legend = [(name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in zip(REGIONS, colours(), strict=True)]
    templates = Environment(loader=PackageLoader("r2r.reporting"), autoescape=True, undefined=StrictUndefined)
    html = templates.get_template("contact_sheet.html.j2").render(entries=entries, legend=legend[1:], height=HEIGHT)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def overlay(photo: Image.Image, person: PreparedPerson, label_set: str) -> Image.Image:
    """A photo, `HEIGHT` pixels high at most, tinted by region, with skeleton, the person's box and that of the face."""
    scale = min(1.0, HEIGHT / photo.height)
    size = max(1, round(scale * photo.width)), max(1, round(scale * photo.height))
    regions = region_map(person.labels, label_set)
    small = np.array(Image.fromarray(regions).resize(size, Image.Resampling.NEAREST))
    pixels = np.array(photo.resize(size, Image.Resampling.LANCZOS), np.float64)
    tinted = np.where(small[..., None] > 0, (1 - TINT) * pixels + TINT * np.array(colours())[small], pixels)
    limbs = draw_skeleton(coco_to_openpose(person.keypoints) * [scale, scale, 1], *size, thickness=3.0)
    drawn = limbs.any(axis=2, keepdims=True)
    shown = Image.fromarray(np.where(drawn, limbs, tinted).astype(np.uint8))
    draw = ImageDraw.Draw(shown)
    for box, colour in ((person.box, "white"), (region_box(regions, ("face", "hair")), "yellow")):
        if box is not None:
            left, top, right, bottom = (scale * side for side in box)
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour)
    return shown


def colours() -> list[tuple[int, int, int]]:
    """One for each region; background is black."""
    hues = [colorsys.hsv_to_rgb(number / (len(REGIONS) - 1), 0.9, 1.0) for number in range(len(REGIONS) - 1)]
    return [(0, 0, 0), *(tuple(round(255 * part) for part in hue) for hue in hues)]  # pyright: ignore[reportReturnType]


def _person(photo: Path, person: PreparedPerson, label_set: str) -> Entry:
    verdict = (
        "ok" if not person.missing else f"not seen: {', '.join(each.replace('_', ' ') for each in person.missing)}"
    )
    return Entry(person.name, verdict, thumbnail(overlay(load_image(photo), person, label_set)), person.caption)


def _problem(photo: Path, why: str) -> Entry:
    try:
        picture = load_image(photo)
    except DataError:
        return Entry(photo.name, why, None, problem=True)
    picture.thumbnail((4 * HEIGHT, HEIGHT))
    return Entry(photo.name, why, thumbnail(picture), problem=True)
