"""Every score of a method's images, read as a stream: one value per image and column, and features of the whole set."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import overload

import torch

from r2r.data.pictures import Files
from r2r.metrics import WHOLE, Backbone, ImageScore, Protocol
from r2r.metrics.distances import SetScore
from r2r.metrics.features import FeatureCache
from r2r.metrics.realism import Features
from r2r.reporting.scenes import BACKGROUND, Batch, Chosen, Inside, Outputs, Picture, Reference, Scenes, batches

Score = ImageScore | SetScore
Described = dict[tuple[str, str], Features]  # by backbone id and region
GREY = "mid-grey outside the mask"
Progress = Callable[[str, int, int], None]  # what is being scored, images read so far, images to read in all


@dataclass(frozen=True)
class Quantity:
    """What a column holds: a score, against the source or the target, in a region."""

    score: Score
    reference: Reference
    region: str = WHOLE


@dataclass(frozen=True)
class Scored:
    """A method with what was measured: one value per scene and column (nan: empty region), and features.

    `runs` are the runs of a method that was run several times (seeds): then values are means over them, scene by scene,
    and features have one more dimension in front.
    """

    outputs: Outputs
    per_image: Mapping[str, list[float]]
    features: Described
    runs: tuple["Scored", ...] = ()

    @classmethod
    def of_runs(cls, runs: Sequence["Scored"]) -> "Scored":
        """The mean of several runs of one method; its pictures are those of the first run."""
        if len(runs) == 1:
            return runs[0]
        first = runs[0]
        columns = {title: zip(*(run.per_image[title] for run in runs), strict=True) for title in first.per_image}
        values = {title: [sum(each) / len(runs) for each in scenes] for title, scenes in columns.items()}
        features = {key: torch.stack([run.features[key] for run in runs]) for key in first.features}
        known = [run.outputs.evals for run in runs if run.outputs.evals is not None]
        evals = sum(known) / len(runs) if len(known) == len(runs) else None
        return cls(replace(first.outputs, evals=evals, seconds=None), values, features, tuple(runs))

    def only(self, places: Sequence[int]) -> "Scored":
        """The same method on some of the scenes, by number; features of regions are left out."""
        return Scored(
            replace(self.outputs, images=Chosen(self.outputs.images, places)),
            {title: [values[place] for place in places] for title, values in self.per_image.items()},
            {key: held[..., list(places), :] for key, held in self.features.items() if key[1] == WHOLE},
            tuple(run.only(places) for run in self.runs),
        )


class Measuring:
    """Scores methods on the same scenes; `columns` are all quantities by title.

    A `Score` is taken against every reference, in every region; a `Quantity` is itself.
    """

    def __init__(
        self,
        scenes: Scenes,
        scores: Sequence[Score | Quantity],
        cache: FeatureCache,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        self.scenes, self.cache, self.batch_size, self.progress = scenes, cache, batch_size, progress
        found = _quantities(scenes, scores)
        sets = [(each.score, each.region) for each in found if isinstance(each.score, SetScore)]
        self.set_regions = tuple(dict.fromkeys([WHOLE, *(region for _, region in sets)]))
        self.columns = {_title(quantity, scenes): quantity for quantity in found}
        self.backbones: dict[str, Backbone] = {score.backbone.id: score.backbone for score, _ in sets}
        self._sizes: set[tuple[int, int]] = set()
        self._present: dict[str, list[int]] = {}
        self._done, self._total = 0, 0

    @property
    def image_columns(self) -> dict[str, Quantity]:
        """The columns that have a value for every single image."""
        return {title: q for title, q in self.columns.items() if isinstance(q.score, ImageScore)}

    def expect(self, methods: int, described: int, others: int = 0) -> None:
        """How much will be read: `methods` for their image scores, `described` images for features in every region.

        `others` are pictures of other scenes, for features of the whole.
        """
        passes = len(self.backbones) * len(self.set_regions)
        self._total += methods * len(self.scenes.keys) * bool(self.image_columns) + described * passes
        self._total += others * len(self.backbones)

    def score(self, outputs: Outputs) -> Scored:
        """All there is to know of one method. Raises InputError for images that do not fit their references."""
        return Scored(outputs, self.per_image(outputs), self.features(outputs.name, outputs.images, self.set_regions))

    def features(self, name: str, images: Sequence[Picture], regions: Sequence[str] = (WHOLE,)) -> Described:
        """Features of a set by backbone id and region, from the cache where they are known.

        Regions need the pictures of the scenes, in their order; a region that fewer than two scenes have is left out.
        """
        found: Described = {}
        for region, (key, backbone) in product(regions, self.backbones.items()):
            shown = images if region == WHOLE else Inside(self.scenes, images, region, self.present(region))
            with self._stage(name, len(images)) as read:
                if len(shown) > 1 or region == WHOLE:
                    found[key, region] = self.cache.features(backbone, _Counted(shown, read), _ids(shown))
        return found

    def present(self, region: str) -> list[int]:
        """The scenes that have a region."""
        if region not in self._present:
            scenes = range(len(self.scenes.keys))
            self._present[region] = [index for index in scenes if bool(self.scenes.mask(region, index).any())]
        return self._present[region]

    def per_image(self, outputs: Outputs) -> dict[str, list[float]]:
        """Every image score, column by column; nan for a scene without the region."""
        values = {title: [math.nan] * len(self.scenes.keys) for title in self.image_columns}
        if not values:
            return values
        with self._stage(outputs.name, len(self.scenes.keys)) as read:
            for batch in batches(self.scenes, outputs, self.batch_size):
                self._sizes.add((batch.images.shape[-2], batch.images.shape[-1]))
                for title, quantity in self.image_columns.items():
                    for place, value in _values(quantity, batch):
                        values[title][place] = value
                for _ in batch.index:
                    read()
        return values

    def protocol(self, title: str, n: int) -> Protocol:
        """Protocol of a column whose values come from `n` scenes."""
        quantity, scenes = self.columns[title], self.scenes
        names = {"source": scenes.source_name, "target": scenes.twin_name}
        if isinstance(quantity.score, SetScore):
            target = scenes.target or []
            whole = quantity.region == WHOLE
            base = quantity.score.protocol(n, len(target) if whole else n, scenes.paired, quantity.region)
            base |= {"target": _known_as(scenes.target_name, target), "sizes made equal": scenes.resize}
            return base if whole else base | {"inside the region": GREY} | self._masks(quantity.region)
        reference = scenes.source if quantity.reference == "source" else scenes.target or []
        name = _known_as(names[quantity.reference], reference)
        base = quantity.score.protocol(name, quantity.region, self._size, n) | {"sizes made equal": scenes.resize}
        return base | self._masks(quantity.region)

    def _masks(self, region: str) -> Protocol:
        """The masks that make a region, by their contents."""
        masks = self.scenes.masks
        regions = list(masks) if region == BACKGROUND else [region]
        return {f"masks {each}": _known_as(each, masks[each]) for each in regions if each in masks}

    @property
    def _size(self) -> str:
        """Height x width of the images; the range where there are several."""
        sizes = [f"{height}x{width}" for height, width in sorted(self._sizes)]
        return sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}" if sizes else "none"

    @contextmanager
    def _stage(self, name: str, count: int) -> Iterator[Callable[[], None]]:
        """Counts what is read; at the end the whole stage counts, however much of it came from the cache."""
        start = self._done

        def read() -> None:
            self._done = min(self._done + 1, start + count)
            self._report(name)

        self._report(name)
        yield read
        self._done = start + count
        self._report(name)

    def _report(self, name: str) -> None:
        if self.progress is not None:
            self.progress(name, self._done, self._total)


class _Counted(Sequence[Picture]):
    """Pictures that tell when one of them is read."""

    def __init__(self, pictures: Sequence[Picture], read: Callable[[], None]) -> None:
        self.pictures, self.read = pictures, read

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        self.read()
        return self.pictures[index]


def _quantities(scenes: Scenes, scores: Sequence[Score | Quantity]) -> list[Quantity]:
    """The columns in their order: whole images first, sets before single images."""
    everywhere = [each for each in scores if not isinstance(each, Quantity)]
    sets = [score for score in everywhere if isinstance(score, SetScore)] if scenes.target is not None else []
    found = [each for each in scores if isinstance(each, Quantity)]
    for region in (WHOLE, *scenes.regions):
        # A mask belongs to a scene: it serves the target only where that shows the same scenes.
        found += [Quantity(score, "target", region) for score in sets if scenes.paired or region == WHOLE]
        for reference in scenes.references:
            found += [Quantity(score, reference, region) for score in everywhere if isinstance(score, ImageScore)]
    return found


def _values(quantity: Quantity, batch: Batch) -> list[tuple[int, float]]:
    """Image scores of one batch with their places; images without the region are left out."""
    reference, mask = batch.references[quantity.reference], batch.masks.get(quantity.region)
    assert isinstance(quantity.score, ImageScore)
    if mask is None:
        return list(zip(batch.index, quantity.score.measure(batch.images, reference, None).tolist(), strict=True))
    rows = mask.flatten(1).any(1).nonzero().flatten().tolist()
    if not rows:
        return []
    values = quantity.score.measure(batch.images[rows], reference[rows], mask[rows]).tolist()
    return list(zip([batch.index[row] for row in rows], values, strict=True))


def _title(quantity: Quantity, scenes: Scenes) -> str:
    """What is measured, against what, where: "SSIM to source in garment", "KID to photos (r2r-features)"."""
    if isinstance(quantity.score, SetScore):
        name, reference = quantity.score.title, scenes.target_name
    else:
        name, reference = (
            quantity.score.name,
            {"source": scenes.source_name, "target": scenes.twin_name}[quantity.reference],
        )
    end = min((place for bracket in (" (", " [") if (place := name.find(bracket)) >= 0), default=len(name))
    where = "" if quantity.region == WHOLE else f" in {quantity.region}"
    return f"{name[:end]} to {reference}{where}{name[end:]}"


def _ids(pictures: Sequence[Picture]) -> list[str] | None:
    return pictures.ids() if isinstance(pictures, Files | Inside) else None


def _known_as(name: str, pictures: Sequence[object]) -> str:
    """A name with a hash of the contents where the pictures are files: other pictures make another protocol."""
    if not isinstance(pictures, Files):
        return name
    return f"{name} {hashlib.sha256(' '.join(pictures.ids()).encode()).hexdigest()[:12]}"
