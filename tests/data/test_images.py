"""Images: loading, errors that name the file, sizes that come back, values that survive the round trip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from r2r.data.images import cover_crop, fit_to_multiple, list_images, load_image, to_pil, to_rgb, to_tensor
from r2r.data.samples import FilePart, LoadedPart, Sample, ShardPart
from r2r.data.views import image_size
from r2r.errors import DataError, InputError


def gradient(width: int, height: int) -> Image.Image:
    pixels = np.arange(width * height * 3, dtype=np.uint64).reshape(height, width, 3)
    return Image.fromarray((pixels % 256).astype(np.uint8))


def test_tensor_round_trip_is_exact() -> None:
    image = gradient(17, 11)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 11, 17)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1
    assert np.array_equal(to_pil(tensor), image)


def test_to_pil_clamps() -> None:
    assert to_pil(torch.full((3, 1, 1), 7.0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("resolution", [None, 64])
@pytest.mark.parametrize("size", [(333, 127), (64, 64), (5, 90), (8, 8)])
def test_fit_to_multiple_and_back(size: tuple[int, int], resolution: int | None) -> None:
    fitted, restore = fit_to_multiple(Image.new("RGB", size), 8, resolution)
    assert fitted.width % 8 == 0 and fitted.height % 8 == 0
    assert restore(fitted).size == size
    if resolution:
        assert min(fitted.size) == 64
    else:
        assert all(abs(new - max(8, old)) <= 4 for new, old in zip(fitted.size, size, strict=True))


def test_fitting_an_image_that_fits_is_the_identity() -> None:
    image = gradient(64, 32)
    fitted, restore = fit_to_multiple(image, 8)
    assert fitted is image
    assert restore(fitted) is image


def test_cover_crop_takes_the_centre() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste("blue", (10, 0, 20, 10))
    cropped = cover_crop(image, (10, 10), Image.Resampling.LANCZOS)
    assert cropped.size == (10, 10)
    assert set(cropped.get_flattened_data()) == {(0, 0, 255)}


def test_alpha_goes_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_palette_transparency_goes_over_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([255, 0, 0])
    image.info["transparency"] = 0
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_tone(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png").getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("empty.png", b"", "empty file"), ("words.png", b"not an image", "not an image"), ("cut.png", None, "truncated")],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        Image.effect_noise((60, 60), 50).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()[:600]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        load_image(tmp_path / "gone.png")


def test_list_images_sorts_and_skips_the_rest(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "notes.txt", ".hidden/x.png", "c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a/z.jpg", "b.PNG", "c.webp"]
    assert len(list_images(tmp_path, recursive=False)) == 2


def test_list_images_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        list_images(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file, not a folder"):
        list_images(tmp_path / "file")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_sizes_of_files_are_upright_and_read_from_the_header(kind: str, turned: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if turned else 1
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "x", kind, exif=exif)
    data = (tmp_path / "x").read_bytes()
    shortened = data if kind == "WEBP" else data[:-500]  # pixels are missing
    (tmp_path / "x").write_bytes(b"before" + shortened + b"after")
    (tmp_path / "y").write_bytes(shortened)
    shard = ShardPart(str(tmp_path / "x"), "x", 6, len(shortened))
    for part in (LoadedPart("x", shortened), FilePart(str(tmp_path / "y")), shard):
        assert image_size(Sample("x", {"image": part})) == ((30, 40) if turned else (40, 30))
    with pytest.raises(DataError, match="not an image: x; remove or replace it"):
        image_size(Sample("x", {"image": LoadedPart("x", b"noise")}))
    with pytest.raises(DataError, match=r"cannot read .*gone: No such file"):
        image_size(Sample("x", {"image": FilePart(str(tmp_path / "gone"))}))
