"""The held-out scenes as folders of pictures: what every row translates, and what it is compared with.

`scenes/{input,target,garment}/NAME.png` and, for the figure, a few of them again in `scenes/some`; `photos/NAME.png`
are the real photos. A folder appears when it is whole, and holds a record of what it was made from.

There are three kinds of scenes: a render with its photo twin and the mask of the garment in both; a person with one of
the garments they wear, flat, the mask of that, and in `parsing` a label map (ATR) of the person, in which the other
garments are left out; and a person in two pictures, with the label map of the first, and of the second the keypoints
and the masks of garments and face.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from omegaconf import DictConfig
from PIL import Image

from r2r.cli import build, compose, flat
from r2r.data.curation import occlusion
from r2r.data.images import to_pil
from r2r.data.people import SLOTS
from r2r.errors import DataError, InputError
from r2r.parsing import ATR_18, REGIONS
from r2r.provenance import write_json

if TYPE_CHECKING:
    from r2r.data import ImageDataModule
    from r2r.data.samples import Sample

RECORD = "scenes.json"
PARSED = {"face": "face", "hair": "hair", "skin": "left-arm", "shoes": "left-shoe", "accessories": "bag"}  # as ATR
PARSED |= {"upper": "upper-clothes", "lower": "pants", "full": "dress"}
VISIBLE = 0.01  # of the picture: garments that show less are no scene
FACE = 0.002  # of the picture: nor are pairs whose target shows less of a face
LARGE = 0.1  # of the height, by which keypoints move on average: from here on a change of pose is large
COVERED = 0.03  # of a garment's outline: from here on it counts as covered


@dataclass(frozen=True)
class Kind:
    """Which config of data shows such scenes, what of its items lies in which folder, and the files it comes from."""

    data: str
    folders: Mapping[str, str]
    files: tuple[str, ...]


KINDS = {
    "translation": Kind(
        "studio",
        {"input": "rendered", "target": "photo", "garment": "garment_mask"},
        ("rendered.png", "photo.png", "garment_mask.png"),
    ),
    "restoration": Kind(
        "studio_restoration",
        {"input": "person", "target": "flat", "garment": "flat_mask", "parsing": "parsing"},
        ("photo.png", "parsing.png"),
    ),
    "pose": Kind(
        "studio_pose",
        {
            "input": "source",
            "target": "target",
            "garment": "garment",
            "face": "face",
            "parsing": "parsing",
            "poses": "pose",
        },
        ("source.photo.png", "source.parsing.png", "target.photo.png", "target.parsing.png", "target.pose.json"),
    ),
}


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
        """Scenes by the values of a json field, for every field that has several among them; two scenes at least."""
        found: dict[str, list[int]] = {}
        for field in fields:
            values = [str(each.get(field)) for each in self.about]
            if len(set(values)) > 1:
                found |= {f"{field}: {v}": [i for i, w in enumerate(values) if w == v] for v in sorted(set(values))}
        return {name: places for name, places in found.items() if len(places) > 1}


def held_out_scenes(cfg: DictConfig, output: Path) -> HeldOut:
    """Decode the chosen held-out scenes into `scenes`, unless they are there.

    Raises:
        DataError: fewer than two scenes fit.
        InputError: the folder holds other scenes.
    """
    kind = KINDS[cfg.kind]
    data = _datamodule(kind.data, {"data": dict(cfg.data)}, cfg.resolution)
    wanted = dict(cfg.where)
    fitting = [s for s in data.val_samples if not wanted or _fits(s.fields(), wanted)]
    if cfg.kind != "translation":
        fitting = [s for s in fitting if _shows(data.view(s, None))]
    chosen = spread(fitting, cfg.num_scenes)
    if len(chosen) < 2:
        raise DataError(f"{data.root}: {len(chosen)} held-out scenes {wanted or ''}; the scores need two at least")

    def write(folder: Path) -> None:
        for sample, name in zip(chosen, names(chosen), strict=True):
            view = _drawn(data.view(sample, None))
            for place, part in kind.folders.items():
                _save(view[part], folder / place / f"{name}.png")
        some = spread(names(chosen), cfg.trade_off.num_scenes)
        for place in kind.folders:
            for name in some:
                (folder / "some" / place).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / place / f"{name}.png", folder / "some" / place / f"{name}.png")

    about = {"resolution": cfg.resolution, "figure": cfg.trade_off.num_scenes}
    return _kept(output / "scenes", chosen, list(kind.files), about, write, data)


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

    return _kept(output / "photos", chosen, None, {"resolution": cfg.resolution}, write, data)


def spread(items: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of the items, evenly spread over them; all for None, or when there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def names(samples: Sequence["Sample"]) -> list[str]:
    """File names of samples: keys without suffix, slashes replaced; the garment's, where a sample names one."""
    found = [Path(sample.key).with_suffix("").as_posix().replace("/", "_") for sample in samples]
    members = [Path(sample.member).stem if sample.member else "" for sample in samples]
    return [f"{name}_{member}" if member else name for name, member in zip(found, members, strict=True)]


def _datamodule(group: str, settings: Mapping[str, Any], resolution: int) -> "ImageDataModule":
    given = [f"data={group}", *flat(settings), "data.num_workers=0", f"model.resolution={resolution}"]
    data = build(compose("train", given).data)
    data.setup("fit")
    return data


def _fits(fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(str(fields.get(name)) == str(value) for name, value in wanted.items())


def _shows(view: dict[str, Any]) -> bool:
    """Whether there is enough to see of the garment, and of the face where that counts."""
    if "target" not in view:
        return bool(view["garment_mask"].float().mean() >= VISIBLE)
    drawn = _drawn(view)
    return bool(drawn["garment"].float().mean() >= VISIBLE and drawn["face"].float().mean() >= FACE)


def _drawn(view: dict[str, Any]) -> dict[str, Any]:
    """What a view shows, and what is written beside it: label maps as ATR, masks, keypoints."""
    if "target" in view and "source" in view:
        height, width = view["target"].shape[1:]
        view["pose"] = {"openpose_18": view["target_pose"].tolist(), "size": [width, height]}
        view["parsing"] = atr_labels(view["source_parsing"][0].numpy(), SLOTS)
        view["garment"] = _any_of(view["target_parsing"], SLOTS)
        view["face"] = _any_of(view["target_parsing"], ("face", "hair"))
    elif "parsing" in view:
        view["parsing"] = atr_labels(view["parsing"][0].numpy(), (view["slot"],))
    return view


def _any_of(parsing: torch.Tensor, regions: Sequence[str]) -> torch.Tensor:
    return torch.isin(parsing, torch.tensor([REGIONS.index(name) for name in regions], dtype=torch.uint8))


def moved(source: Float[np.ndarray, "18 3"], target: Float[np.ndarray, "18 3"], height: int) -> float:
    """How far keypoints that both poses know move on average, their common middle aside, in heights of the picture."""
    both = (source[:, 2] > 0) & (target[:, 2] > 0)
    if not both.any():
        return float("inf")
    first, second = (pose[both, :2] - pose[both, :2].mean(axis=0) for pose in (source, target))
    return float(np.linalg.norm(first - second, axis=1).mean() / height)


def atr_labels(regions: UInt8[np.ndarray, "h w"], slots: Sequence[str]) -> UInt8[np.ndarray, "h w"]:
    """A label map (ATR) from a region map, in which garments of other slots are background."""
    table = np.zeros(len(REGIONS), np.uint8)
    for region, label in PARSED.items():
        if region in slots or region not in SLOTS:
            table[REGIONS.index(region)] = ATR_18.index(label)
    return table[regions]


def _about(sample: "Sample", data: "ImageDataModule") -> Mapping[str, Any]:
    """What a sample's JSON says; of a garment also which it is and if anything covers it; of a pose if it is far."""
    if data.view_name not in ("restoration", "pose"):
        return sample.fields()
    view = data.view(sample, None)
    if data.view_name == "pose":
        far = moved(view["source_pose"].numpy(), view["target_pose"].numpy(), view["target"].shape[1]) > LARGE
        return {**sample.fields(), "change": "large" if far else "small"}
    covered = occlusion(view["garment_mask"][0].numpy(), view["parsing"][0].numpy()) > COVERED
    return {**sample.fields(), "slot": view["slot"], "covered": "yes" if covered else "no"}


def _kept(
    folder: Path,
    samples: "list[Sample]",
    members: list[str] | None,
    about: Any,
    write: Any,
    data: "ImageDataModule",
) -> HeldOut:
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
    return HeldOut(folder, record["names"], [_about(sample, data) for sample in samples])


def _digest(samples: "list[Sample]", members: list[str] | None) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        own = [sample.member] if members and sample.member else []
        for member in [*members, *own] if members else sorted(sample.parts):
            digest.update(hashlib.sha256(sample.part(member).read()).digest())
    return digest.hexdigest()[:16]


def _save(picture: Any, path: Path) -> None:
    """An image, a mask, a label map that is an array already, or keypoints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, dict):
        write_json(path.with_suffix(".json"), picture)
        return
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    else:
        image = to_pil(picture) if len(picture) == 3 else Image.fromarray((picture[0].numpy() * 255).astype("uint8"))
    image.save(path, compress_level=1)
