"""Pictures with their captions on one sheet, to see what a run is fed."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from r2r.data.images import to_pil
from r2r.pose import draw_skeleton

SHOWN = ("image", "rendered", "photo", "person", "flat", "source", "target")
"""The images of an item, in the order of a sheet."""


def shown_pictures(item: Mapping[str, Any]) -> list[Image.Image]:
    """What a decoded item shows: its images, and the skeleton of the target pose where it has one."""
    images = [to_pil(item[name]) for name in SHOWN if name in item]
    if "target_pose" in item:
        images.append(Image.fromarray(draw_skeleton(item["target_pose"].numpy(), *images[-1].size)))
    return images


def caption_grid(cells: Sequence[tuple[Sequence[Image.Image], str]], columns: int = 4) -> Image.Image:
    """A white sheet of cells; each shows its images side by side with the caption below."""
    width = max(sum(image.width for image in images) for images, _ in cells)
    height = max(image.height for images, _ in cells for image in images)
    columns, text_height = min(columns, len(cells)), 36
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + text_height + 8) + 8), "white")
    for i, (images, caption) in enumerate(cells):
        left, top = 8 + (i % columns) * (width + 8), 8 + (i // columns) * (height + text_height + 8)
        _draw_cell(sheet, left, top, images, textwrap.fill(caption or "(empty)", max(8, width // 6), max_lines=3))
    return sheet


def _draw_cell(sheet: Image.Image, left: int, top: int, images: Sequence[Image.Image], text: str) -> None:
    for image in images:
        sheet.paste(image, (left, top))
        left += image.width
    start = left - sum(image.width for image in images)
    place = (start, top + max(image.height for image in images) + 2)
    ImageDraw.Draw(sheet).multiline_text(place, text, fill="black", font=ImageFont.load_default(10), spacing=1)
