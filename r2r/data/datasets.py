"""Data sets on disk as one list of samples: shards, plain folders, SynFashion and Face Synthetics.

| layout | what is read | caption |
|---|---|---|
| `shards` | `{root}/{split}-*.tar` (WebDataset) | `captions.json` by key, JSON field, `.txt` member |
| `folder` | images under `root`, recursively | `captions.json`, `metadata.jsonl`, or same-name `.txt` |
| `synfashion` | as `folder` | as `folder`, else the name of the category folder |
| `face_synthetics` | `NNNNNN.png` with `NNNNNN_seg.png` | as `folder` |
| `viton_hd`, `dresscode`, `deepfashion` | see `r2r.data.garment_layouts` | `captions.json` by image path |

Keys in caption files are paths relative to `root` (shards: sample keys). Folders may have `train/` and `val/` inside;
then those are the splits, and `metadata.jsonl` may also lie in them, with paths relative to them. Without a `val` split
a fixed hold-out is made (`hold_out`).
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from r2r.data.captions import read_captions
from r2r.data.garment_layouts import deepfashion, dresscode, viton_hd
from r2r.data.images import list_images
from r2r.data.samples import FilePart, Part, Sample
from r2r.data.shards import index_shards, shard_addresses
from r2r.errors import DataError, InputError


def find_samples(
    root: str | Path, layout: str, captions: str | Path | None = None, val_fraction: float = 0.05
) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples of local data, sorted.

    Raises: DataError when the root is missing or empty, a shard is broken, or there are no training samples.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown data.layout {layout!r}; known: {', '.join(LAYOUTS)}")
    root = Path(root).expanduser()
    if not root.is_dir() and root.suffix != ".tar":
        raise DataError(f"data.root is not a folder: {root.absolute()}; relative paths start where you call from")
    words = _captions(root, captions)
    train, val = (
        [replace(sample, caption=words.get(sample.key, sample.caption)) for sample in LAYOUTS[layout](root, split)]
        for split in ("train", "val")
    )
    return (train, val) if val else hold_out(train, val_fraction)


def hold_out(samples: list[Sample], fraction: float) -> tuple[list[Sample], list[Sample]]:
    """Split off `fraction` of the identities (at least one of two or more) by a hash of their names.

    The split depends on the names alone, never on the seed; what has no identity in its JSON goes by its key.
    """
    if fraction <= 0:
        return samples, []
    identities = [sample.identity() for sample in samples]
    ranked = sorted(set(identities), key=lambda name: (zlib.crc32(name.encode()), name))
    held = set(ranked[: min(len(ranked) - 1, max(1, round(fraction * len(ranked))))])
    sides: tuple[list[Sample], list[Sample]] = [], []
    for sample, identity in zip(samples, identities, strict=True):
        sides[identity in held].append(sample)
    return sides


def shards(root: Path, split: str) -> list[Sample]:
    """Local WebDataset shards; samples keep their key. Raises: DataError when there are none to train on."""
    found = shard_addresses(root, split)
    if not found and split == "train":
        names = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
        raise DataError(f"no {split}-*.tar in {root.absolute()}, which holds {names}; set data.root to the shards")
    return index_shards(found)


def folder(root: Path, split: str) -> list[Sample]:
    """Images of any folder; the key is the path relative to `root`."""
    if (root / "train").is_dir():
        return image_samples(root / split, root) if (root / split).is_dir() else []
    return image_samples(root, root) if split == "train" else []


def image_samples(place: Path, root: Path) -> list[Sample]:
    """Images below `place` with their `.txt` files, keyed by path relative to `root`. Raises: DataError for none."""
    try:
        paths = list_images(place)
    except InputError as error:
        raise DataError(str(error)) from error
    return [Sample(path.relative_to(root).as_posix(), _with_text(path)) for path in paths]


def synfashion(root: Path, split: str) -> list[Sample]:
    """SynFashion (FashionR2R): renders in category folders; the category is the caption when no other is given.

    The inner layout of the download is not documented. Read here: any image, whose category is the name of the first
    folder below the root ("half skirt/0001_front.png"). The four views of one project are not told apart, so the
    hold-out may share garments with the training set; make `train/` and `val/` folders where that matters.
    """
    samples = folder(root, split)
    return [s if "txt" in s.parts else replace(s, caption=_category(s.key, split)) for s in samples]


def face_synthetics(root: Path, split: str) -> list[Sample]:
    """Microsoft Face Synthetics: `NNNNNN.png` and `NNNNNN_seg.png`; landmarks are ignored.

    Classes run from 0 (background) to 18, 255 is ignore. The mask is everything in front of the background: here the
    whole head is what a translation must keep, as the garment is elsewhere.
    """
    faces = [s for s in folder(root, split) if not s.key.endswith("_seg.png")]
    return [replace(s, parts={**s.parts, "seg.png": _segmentation(s)}) for s in faces]


LAYOUTS: dict[str, Callable[[Path, str], list[Sample]]] = {
    "shards": shards,
    "folder": folder,
    "synfashion": synfashion,
    "face_synthetics": face_synthetics,
    "viton_hd": viton_hd,
    "dresscode": dresscode,
    "deepfashion": deepfashion,
}


def _captions(root: Path, captions: str | Path | None) -> dict[str, str]:
    words = read_captions(root, captions)
    for split in ("train", "val"):
        words |= {f"{split}/{key}": caption for key, caption in read_captions(root / split).items()}
    return words


def _with_text(path: Path) -> dict[str, Part]:
    parts: dict[str, Part] = {"image": FilePart(str(path))}
    text = path.with_suffix(".txt")
    return parts | {"txt": FilePart(str(text))} if text.is_file() else parts


def _category(key: str, split: str) -> str | None:
    folders = key.removeprefix(f"{split}/").split("/")[:-1]
    return folders[0].replace("_", " ") if folders else None


def _segmentation(sample: Sample) -> Part:
    image = Path(sample.parts["image"].name)
    return FilePart(str(image.with_name(f"{image.stem}_seg.png")))
