"""Images as files, PIL images and tensors: loading with clear errors, resizing by stated rules, and back."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps
from PIL.ContainerIO import ContainerIO
from torch import Tensor

from r2r.errors import DataError, InputError

QUARTER_TURNS = (5, 6, 7, 8)  # of EXIF's orientations
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def list_images(folder: str | Path, recursive: bool = True) -> list[Path]:
    """Image files under `folder`, sorted by their path relative to it.

    Raises: InputError when the folder is missing, not a folder, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{what}: {folder.absolute()}; give a folder of images")
    found = folder.rglob("*") if recursive else folder.glob("*")
    visible = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    paths = sorted(p for p in visible if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not paths:
        raise InputError(f"no images in {folder.absolute()}: looked for {' '.join(EXTENSIONS)}")
    return paths


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as upright RGB; alpha over white.

    Raises: DataError naming the file when it is missing, empty, truncated, or not an image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """Decode the bytes of an image file as upright RGB; `name` is what errors call it.

    Raises: DataError when the bytes are empty, truncated, or not an image.
    """
    return to_rgb(_open(data, name))


def decode_mask(data: bytes, name: str) -> Image.Image:
    """Decode the bytes of a label or mask image as one channel (mode L), values untouched.

    Raises: DataError when the bytes are empty, truncated, or not an image.
    """
    image = _open(data, name)
    return image if image.mode in ("L", "P") else image.convert("L")


def _open(data: bytes, name: str) -> Image.Image:
    if not data:
        raise DataError(f"empty file (0 bytes): {name}; remove or replace it")
    with _told_by_name(name):
        image = Image.open(io.BytesIO(data))
        image.load()
        return ImageOps.exif_transpose(image)


def upright_size(file: io.BufferedReader | io.BytesIO | ContainerIO[bytes], name: str) -> tuple[int, int]:
    """Width and height of the decoded image, read from its header alone; `name` is what errors call it.

    Raises: DataError when the file does not begin like an image.
    """
    with _told_by_name(name), Image.open(file) as image:
        # A PNG's own `getexif` decodes the pixels first, as its orientation may lie behind them.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in QUARTER_TURNS
        width, height = image.size
        return (height, width) if turned else (width, height)


@contextmanager
def _told_by_name(name: str) -> Iterator[None]:
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise DataError(f"not an image: {name}; remove or replace it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"broken or truncated image: {name} ({error}); remove or replace it") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB version of any PIL image: alpha composited over white, 16-bit greys scaled to 8 bits."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def cover_crop(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Training view of `size` (width, height): resized to just cover that, then the centre of it."""
    width, height = covering_size(image.size, size)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    resized = image if (width, height) == image.size else image.resize((width, height), resample)
    return resized.crop((left, top, left + size[0], top + size[1]))


def covering_size(original: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The smallest width and height of the same proportions, to the nearest pixel, that cover `size`."""
    scale = max(size[0] / original[0], size[1] / original[1])
    width, height = (max(low, round(side * scale)) for side, low in zip(original, size, strict=True))
    return width, height


def fit_to_multiple(
    image: Image.Image, multiple: int, resolution: int | None = None
) -> tuple[Image.Image, Callable[[Image.Image], Image.Image]]:
    """Resize so that both sides are multiples of `multiple`, and return the way back to the original size.

    Rule: with `resolution`, first scale so that the short side equals it (aspect ratio kept); then resize each side to
    its nearest multiple (at least one). Nothing is cropped or padded. `restore` resizes to the original size (Lanczos).
    """
    original = image.size
    scaled = original if resolution is None else _scaled(original, resolution)
    width, height = (max(multiple, int(side / multiple + 0.5) * multiple) for side in scaled)

    def restore(result: Image.Image) -> Image.Image:
        return result if result.size == original else result.resize(original, Image.Resampling.LANCZOS)

    fitted = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    return fitted, restore


def to_tensor(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """RGB image as float32 in [-1, 1]."""
    pixels = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().div_(127.5).sub_(1.0)


def digest(image: Float[Tensor, "c h w"]) -> str:
    """A name of content and shape: an upright and a lying picture of one colour have equal bytes."""
    found = blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
    found.update(image.numpy().tobytes())
    return found.hexdigest()


def to_pil(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """Tensor in [-1, 1] (clamped) as an 8-bit RGB image, rounded to the nearest value."""
    pixels = image.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _scaled(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    scale = short_side / min(size)
    width, height = (max(short_side, round(side * scale)) for side in size)
    return width, height
