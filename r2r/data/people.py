"""From undecoded samples of people to tensors: garments to restore (`RestorationView`), poses to transfer (`PoseView`).

Samples have the members of the studio's shards: `photo.png`, `parsing.png`, `pose.json`, `flat.png`, `flat_mask.png`,
`flat_2.png` and `flat_2_mask.png` where a second garment is worn, and a JSON. Of the JSON `garments` (category, slot,
caption of each), `label_set` (of the parsing, "ATR_18" when not given), `subject`, `seed` and `identity` are read.
Scenes without a person are passed over.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from r2r.data.captions import CaptionRule
from r2r.data.images import decode_image, digest
from r2r.data.keypoints import read_pose
from r2r.data.samples import LoadedPart, Sample, spread_domains
from r2r.data.views import Geometry, binary_foreground, chance_at
from r2r.errors import DataError
from r2r.parsing import REGIONS, region_map
from r2r.pose import openpose_to_coco

FLATS = ("flat.png", "flat_2.png")  # of the first and second garment in the JSON
SLOTS = ("upper", "lower", "full")  # regions that are garments


@dataclass(frozen=True)
class RestorationView:
    """A person, and one of the garments they wear, flat (`RestorationBatch`); one entry for each garment."""

    geometry: Geometry
    captions: CaptionRule
    seed: int = 0

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """One for each garment of each person; `Sample.member` is its flat picture."""
        return (
            entry
            for sample in samples
            if shows_person(sample)
            for entry in spread_domains([sample], [flat for flat in FLATS if flat in sample.parts])
        )

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance, garment = chance_at(self.seed, place), worn_garment(sample)
        flat, flip = sample.member or FLATS[0], self.geometry.flips(chance)
        regions = parsing_regions(self.geometry, sample, flip)
        item = {
            "person": self.geometry.image(sample.part("photo.png"), flip),
            "flat": self.geometry.image(sample.part(flat), flip),
            "garment_mask": torch.from_numpy(regions == REGIONS.index(garment["slot"]))[None],
            "parsing": torch.from_numpy(regions)[None],
            "category": str(garment.get("category", garment["slot"])),
            "slot": garment["slot"],
            "caption": self.captions(_of_garment(sample, garment), chance),
            "key": sample.key,
        }
        item |= {f"{name}_digest": digest(item[name]) for name in ("person", "flat")}
        mask = flat.replace(".png", "_mask.png")
        if mask in sample.parts:
            item["flat_mask"] = self.geometry.mask(sample.part(mask), flip, binary_foreground)
        return item


@dataclass(frozen=True)
class PoseView:
    """A person, and the same person in another picture (`PoseBatch`); one entry for each ordered pair.

    `self_pairs` adds each picture as its own target. Samples that are pairs already, with members "source.photo.png"
    and so on, are taken as they are.
    """

    geometry: Geometry
    captions: CaptionRule
    seed: int = 0
    self_pairs: bool = False

    def entries(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Pairs within runs of samples of one identity, which the studio writes one after the other."""
        for _, run in groupby((s for s in samples if "source.photo.png" in s.parts or has_pose(s)), Sample.identity):
            views = list(run)
            if "source.photo.png" in views[0].parts:
                yield from self._given(views)
            else:
                yield from (_pair(a, b) for a, b in product(views, views) if self.self_pairs or a is not b)

    def __call__(self, sample: Sample, place: int | None) -> dict[str, Any]:
        chance = chance_at(self.seed, place)
        caption, flip = self.captions(sample, chance), self.geometry.flips(chance)
        item: dict[str, Any] = {"caption": caption, "key": sample.key}
        for end in ("source", "target"):
            part = sample.part(f"{end}.photo.png")
            image = decode_image(part.read(), part.name)
            pose = read_pose(sample.part(f"{end}.pose.json"), image.size)
            pose = self.geometry.keypoints(pose, image.size, flip).astype(np.float32)
            item[end] = self.geometry.picture(image, flip)
            item[f"{end}_digest"] = digest(item[end])
            item[f"{end}_pose"] = torch.from_numpy(pose)
            item[f"{end}_keypoints"] = torch.from_numpy(openpose_to_coco(pose))
            if f"{end}.parsing.png" in sample.parts:
                regions = parsing_regions(self.geometry, sample, flip, f"{end}.parsing.png")
                item[f"{end}_parsing"] = torch.from_numpy(regions)[None]
        return item

    def _given(self, pairs: list[Sample]) -> Iterator[Sample]:
        """Pairs as a data set lists them; its pictures come in as sources at least."""
        sources = {pair.parts["source.photo.png"].name: pair for pair in pairs}
        return iter(pairs + [_with_itself(pair) for pair in sources.values()] if self.self_pairs else pairs)


def shows_person(sample: Sample) -> bool:
    """Whether a sample has a person, their parsing and a flat garment: what restoration needs."""
    complete = {"photo.png", "parsing.png", FLATS[0]} <= set(sample.parts)
    return complete and ("pose.json" in sample.parts or sample.fields().get("subject") == "person")


def has_pose(sample: Sample) -> bool:
    """Whether a sample has a person and their keypoints: what pose transfer needs."""
    return {"photo.png", "pose.json"} <= set(sample.parts)


def worn_garment(sample: Sample) -> dict[str, Any]:
    """The JSON of the garment whose flat picture is `Sample.member`. Raises: DataError when it has no known slot."""
    number = FLATS.index(sample.member or FLATS[0])
    garments = sample.fields().get("garments", [])
    garment = garments[number] if number < len(garments) else {}
    if garment.get("slot") not in SLOTS:
        raise DataError(
            f"sample {sample.key}: garment {number + 1} of its JSON has no slot ({', '.join(SLOTS)}) but {garment}; "
            "write the data again with this version of r2r.studio"
        )
    return garment


def parsing_regions(
    geometry: Geometry, sample: Sample, flip: bool, member: str = "parsing.png"
) -> UInt8[np.ndarray, "h w"]:
    """The parsing as indices of `r2r.parsing.REGIONS`. Raises: DataError for numbers its label set does not have."""
    part, label_set = sample.part(member), str(sample.fields().get("label_set", "ATR_18"))
    try:
        return region_map(geometry.labels(part, flip), label_set)
    except DataError as error:
        raise DataError(f"{part.name}: {error}") from error


def _of_garment(sample: Sample, garment: dict[str, Any]) -> Sample:
    """What a caption rule is to word: the garment, not the person."""
    part = LoadedPart(f"garment of {sample.key}", json.dumps(garment).encode())
    return Sample(sample.key, {"json": part}, None if garment.get("caption") else sample.caption)


def _pair(source: Sample, target: Sample) -> Sample:
    ends = (("source", source), ("target", target))
    parts = {f"{end}.{name}": part for end, sample in ends for name, part in sample.parts.items()}
    words = {name: target.parts[name] for name in ("json", "txt") if name in target.parts}
    return Sample(f"{source.key}_to_{target.key}", parts | words, target.caption)


def _with_itself(pair: Sample) -> Sample:
    """The pair of a pair's source and the same picture again."""
    sources = {name: part for name, part in pair.parts.items() if name.startswith("source.")}
    targets = {name.replace("source.", "target.", 1): part for name, part in sources.items()}
    return replace(pair, key=f"{pair.key.split('_to_')[0]}_to_itself", parts={**pair.parts, **targets})
