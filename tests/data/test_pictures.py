"""Folders that belong together by name, and pictures decoded on demand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r2r.data.images import load_image, to_tensor
from r2r.data.pictures import Masks, Pictures, common_names, picture_size, pictures
from r2r.errors import DataError, InputError


def noise(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "RGBA" else Image.fromarray(pixels, "RGBA")


def write(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def test_names_are_relative_paths_without_suffix(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "more/a.webp", ".hidden/a.png"):
        write(tmp_path / name, noise((4, 4)))
    (tmp_path / "notes.txt").write_text("no picture")
    assert {name: path.name for name, path in pictures(tmp_path).items()} == {
        "a": "a.png",
        "b": "b.jpg",
        "more/a": "a.webp",
    }
    write(tmp_path / "a.jpg", noise((4, 4)))
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png have one name"):
        pictures(tmp_path)


def test_common_names() -> None:
    folders = {"source": ["b", "a", "c"], "outputs": ["a", "b", "c"]}
    assert common_names(folders) == (["b", "a", "c"], {})
    folders["outputs"] = ["x", "b", "c"]
    assert common_names(folders, skip=True) == (["b", "c"], {"source": ["a"], "outputs": ["x"]})
    with pytest.raises(
        InputError, match=r"source has 1 \(a\); outputs has 1 \(x\) beyond the 2 all share.*missing=skip"
    ):
        common_names(folders)


def test_no_common_name_is_an_error_even_when_skipping() -> None:
    folders = {"source": [f"s{index}" for index in range(7)], "outputs": ["t"]}
    with pytest.raises(InputError, match=r"source has 7 \(s0, s1, s2, s3, s4, \.\.\.\); outputs has 1 \(t\)"):
        common_names(folders, skip=True)


def test_pictures_decode_as_the_loader_does(tmp_path: Path) -> None:
    grey16 = Image.fromarray((np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8))
    paths = [write(tmp_path / f"{mode}.png", noise((8, 6), mode=mode)) for mode in ("RGB", "RGBA", "L", "LA", "P")]
    paths.append(write(tmp_path / "grey16.png", grey16))
    found = Pictures(paths)
    assert len(found) == 6
    for picture, path in zip(found, paths, strict=True):
        assert picture.shape == (3, 6, 8)
        assert torch.equal(picture, to_tensor(load_image(path)))
    assert torch.equal(found[-1], found[2:][3])


def test_pictures_are_resized_where_sizes_differ(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.png", noise((8, 6))), write(tmp_path / "b.png", noise((16, 12)))]
    resized = Pictures(paths, sizes=[(8, 6), (8, 6)])
    assert torch.equal(resized[0], Pictures(paths)[0])
    assert torch.equal(resized[1], to_tensor(load_image(paths[1]).resize((8, 6), Image.Resampling.LANCZOS)))
    assert torch.equal(resized[1:][0], resized[1])


def test_ids_follow_the_content_and_the_size(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.png", noise((8, 6))), write(tmp_path / "b.png", noise((8, 6), seed=1))]
    paths.append(tmp_path / "c.png")
    paths[2].write_bytes(paths[0].read_bytes())
    plain, resized = Pictures(paths).ids(), Pictures(paths, [(8, 6)] * 3).ids()
    assert plain[0] == plain[2] != plain[1]
    assert set(plain).isdisjoint(resized)


def test_size_from_the_header_is_the_decoded_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = write(tmp_path / "turned.jpg", noise((8, 6)), exif=exif)
    plain = write(tmp_path / "plain.png", noise((8, 6)))
    for path in (turned, plain):
        assert picture_size(path) == load_image(path).size
    assert picture_size(turned) == (6, 8)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            picture_size(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255, 128, 127], [False, True, True, False]),
        ([0, 1, 1, 0], [False, True, True, False]),
        ([0, 3, 18, 7], [False, True, True, True]),
        ([0, 0, 0, 0], [False] * 4),
    ],
)
def test_masks_of_both_kinds(tmp_path: Path, values: list[int], expected: list[bool]) -> None:
    path = write(tmp_path / "mask.png", Image.fromarray(np.array([values], dtype=np.uint8)))
    assert Masks([path])[0].tolist() == [[expected]]
    doubled = Masks([path], sizes=[(8, 2)])[0]
    assert doubled.shape == (1, 2, 8)
    assert doubled[:, ::2, ::2].tolist() == [[expected]]


def test_masks_of_other_modes(tmp_path: Path) -> None:
    region = Image.new("1", (4, 2))
    region.putpixel((1, 1), 1)
    for mode in ("1", "L", "RGB", "RGBA"):
        mask = Masks([write(tmp_path / f"{mode}.png", region.convert(mode))])[0]
        assert mask.nonzero().tolist() == [[0, 1, 1]], mode


def test_broken_files_are_named_when_read(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = [tmp_path / "broken.png"]
    for sequence in (Pictures(broken), Masks(broken)):
        with pytest.raises(DataError, match=r"broken\.png"):
            sequence[0]
