"""Tiny shards and folders for the data tests; an image's colour tells which sample it is."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def png(colour: tuple[int, int, int] | int, size: tuple[int, int] = (12, 10), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(buffer, "PNG", **options)
    return buffer.getvalue()


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples.items():
            for name, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def scene(index: int) -> dict[str, bytes]:
    """A studio sample: rendered (index, 0, 0), photo (index, 255, 0)."""
    words = {"caption": f"Shirt {index}", "category": "shirt", "texture": "stripes", "seed": index}
    mask = Image.new("L", (12, 10), 0)
    mask.paste(255, (0, 0, 6, 10))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return {
        "rendered.png": png((index, 0, 0)),
        "photo.png": png((index, 255, 0)),
        "garment_mask.png": buffer.getvalue(),
        "json": json.dumps(words).encode(),
    }


def write_studio(root: Path, train: int = 10, val: int = 5, shards: int = 2) -> Path:
    for split, count in (("train", train), ("val", val)):
        for shard in range(shards if split == "train" else 1):
            keys = range(shard, count, shards) if split == "train" else range(count)
            write_shard(root / f"{split}-{shard:04d}.tar", {f"{split}{i}": scene(i) for i in keys})
    return root


def write_images(folder: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png((i, 0, 0)))
    return folder
