"""Figures of a sweep: every picture in its place, every value in its cell."""

from pathlib import Path

import pytest
from PIL import Image

from r2r.data.cells import CellFolders
from r2r.errors import DataError, InputError
from r2r.reporting.figures import cell_grid, heat_maps, sweep_figures, write_sweep_figures

STRENGTHS, RATIOS = [0.1, 0.5], [0.0, 0.25, 1.0]


@pytest.fixture
def grid(tmp_path: Path) -> CellFolders:
    """Pictures whose red tells the strength and whose green the TAC ratio."""
    folders = CellFolders(tmp_path / "out", STRENGTHS, RATIOS)
    for strength, ratio in folders.cells:
        folders.folder((strength, ratio)).mkdir(parents=True)
        Image.new("RGB", (8, 4), (int(strength * 200), int(ratio * 200), 0)).save(folders.path((strength, ratio), "a"))
    return folders


def test_layout_is_read_back(grid: CellFolders) -> None:
    again = CellFolders.read(grid.root)
    assert (again.strengths, again.tac_ratios, again.names()) == (STRENGTHS, RATIOS, ["a"])
    grid.path((0.1, 0.0), "a").unlink()
    with pytest.raises(InputError, match="no images"):
        again.names()
    Image.new("RGB", (8, 4)).save(grid.path((0.1, 0.0), "b"))
    with pytest.raises(DataError, match="no picture is in all 6 cells"):
        again.names()
    with pytest.raises(InputError, match="holds no sweep"):
        CellFolders.read(grid.root / "strength_0.1")


def test_each_picture_stands_in_its_place(grid: CellFolders) -> None:
    sheet = cell_grid(grid, "a", Image.new("RGB", (8, 4), (0, 0, 255)), cell=40, gap=2)
    found = []
    for y in range(sheet.height):
        for x in range(sheet.width):
            color = sheet.getpixel((x, y))
            if color[2] == 0 and color not in found and color != (0, 0, 0):
                found.append(color)
    wanted = {(int(s * 200), int(r * 200), 0) for s, r in grid.cells}
    assert wanted <= set(found)
    rows = {y: sheet.getpixel((sheet.width - 10, y)) for y in range(sheet.height)}
    greens = [color[1] for _, color in sorted(rows.items()) if color[2] == 0 and color[0] == 100]
    assert greens == sorted(greens) and set(greens) == {0, 50, 200}
    assert sheet.getpixel((10, 20)) == (0, 0, 255)


def test_heat_maps_take_the_direction_into_account() -> None:
    values = {(s, r): s + r for s in STRENGTHS for r in RATIOS}
    up, down = heat_maps({"x": values}, {"x": "higher"}), heat_maps({"x": values}, {"x": "lower"})
    place = (int(up.width * 0.9), int(up.height * 0.72))  # the highest value
    assert sum(up.getpixel(place)[:2]) > 2 * sum(down.getpixel(place)[:2])
    with pytest.raises(InputError, match="no scores"):
        heat_maps({}, {})


def test_figures_are_written_and_found(grid: CellFolders, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.new("RGB", (8, 4)).save(source)
    with pytest.raises(InputError, match="holds no figures"):
        sweep_figures(grid.root)
    scores = [
        {"strength": s, "tac_ratio": r, "scores": {"x": {"value": s}, "y": None, "z": {"value": "inf"}}}
        for s, r in grid.cells
    ]
    write_sweep_figures(grid, {"a": source}, scores, {"x": "higher", "y": "lower", "z": "higher"}, ["a"])
    assert [figure.title for figure in sweep_figures(grid.root)] == ["TAC ratio × strength", "Scores of the sweep"]
