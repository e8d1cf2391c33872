"""Pictures in labelled columns, large enough to read and to judge."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_INK, _FAINT, _PAPER = (28, 30, 34), (110, 114, 122), (255, 255, 255)


def picture_grid(
    columns: Mapping[str, Sequence[Image.Image]], captions: Sequence[str], *, cell: int = 256, gap: int = 8
) -> Image.Image:
    """One row per scene, one titled column per entry of `columns`; pictures are scaled to `cell` pixels wide (Lanczos).

    All columns hold as many pictures as there are captions; every picture has the shape of the first.
    """
    first = next(iter(columns.values()))[0]
    size = (cell, round(cell * first.height / first.width))
    head, foot = cell // 6, cell // 9
    sheet = Image.new("RGB", (gap + len(columns) * (cell + gap), head + len(captions) * (size[1] + foot) + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for position, (title, pictures) in enumerate(columns.items()):
        left = gap + position * (cell + gap)
        draw.text((left + cell // 2, head // 2), title, _INK, ImageFont.load_default(cell // 12), anchor="mm")
        for row, picture in enumerate(pictures):
            sheet.paste(
                picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (left, head + row * (size[1] + foot))
            )
    small = ImageFont.load_default(cell // 17)
    for row, caption in enumerate(captions):
        draw.text((gap, head + row * (size[1] + foot) + size[1] + foot // 2), caption, _FAINT, small, anchor="lm")
    return sheet


def write_grid(
    path: Path, columns: Mapping[str, Sequence[Image.Image]], captions: Sequence[str], *, cell: int = 256
) -> None:
    """`picture_grid` as a PNG file."""
    picture_grid(columns, captions, cell=cell).save(path, optimize=True)
