"""The held-out scenes as folders of pictures: what every row translates, and what it is compared with.

`scenes/{input,target,garment}/NAME.png` and, for the figure, a few of them again in `scenes/some`; `photos/NAME.png`
are the real photos. A folder appears when it is whole, and holds a record of what it was made from.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from r2r.cli import build, compose, flat
from r2r.errors import DataError, InputError
from r2r.provenance import write_json

if TYPE_CHECKING:
    from r2r.data import ImageDataModule
    from r2r.data.samples import Sample

RECORD = "scenes.json"
MEMBERS = {"input": "rendered", "target": "photo", "garment": "garment_mask"}  # of a studio pair, by folder


@dataclass(frozen=True)
class HeldOut:
    """Pictures by name in one folder; `about` is what each sample's json says, in the order of the names."""

    folder: Path
    names: list[str]
    about: list[Mapping[str, Any]]

    def paths(self, kind: str) -> list[Path]:
        """The pictures of one kind: "input", "target", "garment" of scenes, "." of photos."""
        return [self.folder / kind / f"{name}.png" for name in self.names]

    def groups(self, fields: Sequence[str]) -> dict[str, list[int]]:
        """Scenes by the values of a json field, for every field that has several among them."""
        found: dict[str, list[int]] = {}
        for field in fields:
            values = [str(each.get(field)) for each in self.about]
            if len(set(values)) > 1:
                found |= {f"{field}: {v}": [i for i, w in enumerate(values) if w == v] for v in sorted(set(values))}
        return found


def held_out_scenes(cfg: DictConfig, output: Path) -> HeldOut:
    """Decode the chosen held-out scenes into `scenes`, unless they are there.

    Raises:
        DataError: fewer than two scenes fit.
        InputError: the folder holds other scenes.
    """
    data = _datamodule("studio", {"data": dict(cfg.data)}, cfg.resolution)
    wanted = dict(cfg.where)
    fitting = [s for s in data.val_samples if not wanted or _fits(s.fields(), wanted)]
    chosen = spread(fitting, cfg.num_scenes)
    if len(chosen) < 2:
        raise DataError(f"{data.root}: {len(chosen)} held-out scenes {wanted or ''}; the scores need two at least")

    def write(folder: Path) -> None:
        for sample, name in zip(chosen, names(chosen), strict=True):
            view = data.view(sample, None)
            for kind, member in MEMBERS.items():
                _save(view[member], folder / kind / f"{name}.png")
        some = spread(names(chosen), cfg.trade_off.num_scenes)
        for kind in MEMBERS:
            for name in some:
                (folder / "some" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / kind / f"{name}.png", folder / "some" / kind / f"{name}.png")

    parts = [f"{member}.png" for member in MEMBERS.values()]
    about = {"resolution": cfg.resolution, "figure": cfg.trade_off.num_scenes}
    return _kept(output / "scenes", chosen, parts, about, write)


def reference_photo(cfg: DictConfig, output: Path) -> None:
    """Write training photo number `cfg.reference` to `reference.png`, for rows that learn from a single picture.

    Raises InputError when there is no such photo.
    """
    if cfg.reference is None:
        return
    data = _datamodule("studio_photos", {"data": dict(cfg.data)}, cfg.resolution)
    if not 0 <= cfg.reference < len(data.train_samples):
        raise InputError(
            f"reference={cfg.reference} must lie in [0, {len(data.train_samples) - 1}], the training photos"
        )
    _save(data.view(data.train_samples[cfg.reference], None)["image"], output / "reference.png")


def real_photos(cfg: DictConfig, output: Path) -> HeldOut | None:
    """Decode the held-out real photos into `photos`, unless they are there; None without any given."""
    if cfg.photos is None:
        return None
    data = _datamodule("photos", {"data": {"root": cfg.photos}}, cfg.resolution)
    chosen = spread(data.val_samples, cfg.num_photos)

    def write(folder: Path) -> None:
        for sample, name in zip(chosen, names(chosen), strict=True):
            _save(data.view(sample, None)["image"], folder / f"{name}.png")

    return _kept(output / "photos", chosen, None, {"resolution": cfg.resolution}, write)


def spread(items: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of the items, evenly spread over them; all for None, or when there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def names(samples: Sequence["Sample"]) -> list[str]:
    """File names of samples: keys, with slashes replaced."""
    return [Path(sample.key).with_suffix("").as_posix().replace("/", "_") for sample in samples]


def _datamodule(group: str, settings: Mapping[str, Any], resolution: int) -> "ImageDataModule":
    given = [f"data={group}", *flat(settings), "data.num_workers=0", f"model.resolution={resolution}"]
    data = build(compose("train", given).data)
    data.setup("fit")
    return data


def _fits(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(str(fields.get(name)) == str(value) for name, value in wanted.items())


def _kept(folder: Path, samples: "list[Sample]", members: list[str] | None, about: Any, write: Any) -> HeldOut:
    """The folder with these samples: written beside and renamed, or as it is when it holds the very same."""
    record = {"digest": _digest(samples, members), "names": names(samples), **about}
    if len(set(record["names"])) < len(samples):
        raise DataError(f"{len(samples)} samples share names; give each a key of its own")
    known = folder / RECORD
    if known.is_file():
        before = json.loads(known.read_text(encoding="utf-8"))
        if changed := [name for name in record if before.get(name) != record[name]]:
            raise InputError(
                f"{folder} holds other pictures ({changed[0]} differs: other data, number or size); choose another "
                "output folder"
            )
    else:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        write_json(partial / RECORD, record)
        os.replace(partial, folder)
    return HeldOut(folder, record["names"], [sample.fields() for sample in samples])


def _digest(samples: "list[Sample]", members: list[str] | None) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for member in members or sorted(sample.parts):
            digest.update(hashlib.sha256(sample.part(member).read()).digest())
    return digest.hexdigest()[:16]


def _save(picture: Any, path: Path) -> None:
    from PIL import Image

    from r2r.data.images import to_pil

    path.parent.mkdir(parents=True, exist_ok=True)
    image = to_pil(picture) if len(picture) == 3 else Image.fromarray((picture[0].numpy() * 255).astype("uint8"))
    image.save(path, compress_level=1)
