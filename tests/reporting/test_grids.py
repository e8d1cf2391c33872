"""The grid holds every picture at its place, scaled, with room for titles."""

from pathlib import Path

from PIL import Image

from r2r.reporting import picture_grid, write_grid


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (16, 24), colour)


def test_pictures_lie_in_their_cells() -> None:
    red, green = plain((255, 0, 0)), plain((0, 255, 0))
    sheet = picture_grid({"left": [red, green], "right": [green, red]}, ["first", "second"], cell=96, gap=8)
    assert sheet.width == 2 * 96 + 3 * 8
    row = 144 + 96 // 9
    for x, y, colour in [(8, 0, red), (112, 0, green), (8, row, green), (112, row, red)]:
        assert sheet.getpixel((x + 48, 16 + y + 72)) == colour.getpixel((0, 0))


def test_titles_and_captions_are_drawn() -> None:
    blank = [plain((255, 255, 255))]
    titled = picture_grid({"photo twin": blank}, ["a red dress"], cell=128, gap=8)
    assert min(titled.crop((0, 0, titled.width, 21)).convert("L").tobytes()) < 80
    assert min(titled.crop((0, 21 + 192, titled.width, titled.height)).convert("L").tobytes()) < 180


def test_written_as_png(tmp_path: Path) -> None:
    write_grid(tmp_path / "grid.png", {"input": [plain((1, 2, 3))]}, ["scene"], cell=64)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"
