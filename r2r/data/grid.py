"""Pictures with their captions on one sheet, to see what a run is fed."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


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
