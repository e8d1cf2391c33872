"""Figures of a sweep over strength and TAC ratio: a grid of pictures for an image, and a heat map for each score.

The grid follows FashionR2R (arXiv:2410.14429, figure 6): one axis is the denoising strength, the other the TAC ratio.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from r2r.data.cells import Cell, CellFolders
from r2r.data.images import load_image
from r2r.errors import InputError
from r2r.reporting.pages import Figure
from r2r.reporting.tables import three_figures

_INK, _FAINT, _PAPER = (28, 30, 34), (110, 114, 122), (255, 255, 255)
_CAPTIONS = {
    "figure": "Strength (how far the image may move) from left to right, TAC ratio (how long its texture is held) from "
    "top to bottom; the input stands on the left.",
    "heat_maps": "The mean of each cell; bright is better. A score against the source alone rewards copying.",
}


def cell_grid(folders: CellFolders, name: str, source: Image.Image, *, cell: int = 160, gap: int = 6) -> Image.Image:
    """A column for each strength, a row for each TAC ratio, the input on the left."""
    height = round(cell * source.height / source.width)
    margin, head = cell + 2 * gap + cell // 2, cell // 4
    columns, rows = folders.strengths, folders.tac_ratios
    size = (margin + len(columns) * (cell + gap), head + len(rows) * (height + gap))
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(10, cell // 11))
    sheet.paste(source.resize((cell, height), Image.Resampling.LANCZOS), (gap, head))
    draw.text((gap + cell // 2, head // 2), "input", _INK, font, anchor="mm")
    for column, strength in enumerate(columns):
        left = margin + column * (cell + gap)
        draw.text((left + cell // 2, head // 2), f"strength {strength:g}", _INK, font, anchor="mm")
        for row, ratio in enumerate(rows):
            picture = load_image(folders.path((strength, ratio), name)).resize((cell, height), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, head + row * (height + gap)))
    for row, ratio in enumerate(rows):
        place = (margin - gap, head + row * (height + gap) + height // 2)
        draw.text(place, f"TAC {ratio:g}", _FAINT, font, anchor="rm")
    return sheet


def heat_maps(values: Mapping[str, Mapping[Cell, float]], better: Mapping[str, str]) -> Image.Image:
    """One heat map for each score: laid out like the grid of pictures, the best cell in bold.

    Raises InputError when there is no score.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    if not values:
        raise InputError("no scores to draw; give the sweep at least one metric")
    first = next(iter(values.values()))
    wide, tall = len({strength for strength, _ in first}), len({ratio for _, ratio in first})
    columns = min(3, len(values))
    rows = -(-len(values) // columns)
    size = (columns * (1.4 + 0.7 * wide), rows * (1.1 + 0.5 * tall))
    canvas = Canvas(figsize=size, dpi=144, layout="constrained")
    FigureCanvasAgg(canvas)
    places = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, cells) in zip(places, values.items(), strict=False):
        _heat_map(axes, title, cells, better[title])
    for axes in places[len(values) :]:
        axes.set_axis_off()
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _heat_map(axes: Any, title: str, cells: Mapping[Cell, float], better: str) -> None:
    strengths, ratios = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    table = [[cells[strength, ratio] for strength in strengths] for ratio in ratios]
    image = axes.imshow(table, aspect="auto", cmap="viridis" if better == "higher" else "viridis_r")
    digits = three_figures(cells.values())
    best = (max if better == "higher" else min)(cells, key=lambda cell: cells[cell])
    for row, ratio in enumerate(ratios):
        for column, strength in enumerate(strengths):
            red, green, blue, _ = image.cmap(image.norm(table[row][column]))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            weight = "bold" if (strength, ratio) == best else "normal"
            text = f"{table[row][column]:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k", weight=weight, size=8)
    axes.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
    axes.set_yticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.set(xlabel="strength", ylabel="TAC ratio")
    axes.set_title(title + {"lower": " ↓", "higher": " ↑"}[better], fontsize=10)
    axes.spines[:].set_visible(False)


def write_sweep_figures(
    folders: CellFolders,
    sources: Mapping[str, Path],
    cells: Sequence[Mapping[str, Any]],
    better: Mapping[str, str],
    names: Sequence[str],
) -> None:
    """Write `figure_<n>.png` for each of `names`, and `heat_maps.png` of the finite scores, beside the cells."""
    for number, name in enumerate(names, start=1):
        cell_grid(folders, name, load_image(sources[name])).save(folders.root / f"figure_{number}.png", optimize=True)
    values = {
        title: {(each["strength"], each["tac_ratio"]): each["scores"][title]["value"] for each in cells}
        for title in better
        if all(each["scores"][title] and math.isfinite(float(each["scores"][title]["value"])) for each in cells)
    }
    if values:
        heat_maps(values, better).save(folders.root / "heat_maps.png", optimize=True)


def sweep_figures(root: Path) -> list[Figure]:
    """The figures that a sweep left in its folder, for a page. Raises InputError when there are none."""
    found = [*sorted(root.glob("figure_*.png")), *root.glob("heat_maps.png")]
    if not found:
        raise InputError(f"sweep={root} holds no figures; finish the sweep first: python -m r2r.sweep resume={root}")
    titles = {"figure": "TAC ratio × strength", "heat_maps": "Scores of the sweep"}
    kinds = [path.stem.split("_")[0] if path.stem != "heat_maps" else "heat_maps" for path in found]
    return [Figure(titles[kind], load_image(path), _CAPTIONS[kind]) for path, kind in zip(found, kinds, strict=True)]
