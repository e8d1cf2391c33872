"""Methods compared on the same scenes: scored against their sources, true twins where there are any, and the target.

A column is one score, against one reference, in one region. Image scores are per image first; set scores (KID, FID)
belong to a set. All methods show the same scenes in the same order, so differences between them are taken scene by
scene, and where each scene has a true twin in the target, set scores leave same-scene pairs out.

Two rows stand beside the methods: the source itself, which is perfect wherever copying is rewarded, and the target
against itself, which is what a perfect translation could reach.

A method may have been run several times (seeds). Its image scores are then means over the runs, scene by scene, and its
KID is the mean over the runs; intervals resample scenes, the same ones in every run. `spread` tells the runs apart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import torch

from r2r.errors import InputError
from r2r.metrics import WHOLE, Estimate, ImageScore, Protocol, bootstrap_mean, paired_difference
from r2r.metrics.distances import SetScore
from r2r.metrics.features import FeatureCache
from r2r.metrics.realism import Features
from r2r.metrics.statistics import generator
from r2r.reporting.measuring import Described, Measuring, Progress, Quantity, Score, Scored
from r2r.reporting.scenes import Outputs, Scenes
from r2r.reporting.tables import Cell, Column, Table, three_figures

IDENTITY, FLOOR = "input", "target vs target"
EVALS, SECONDS = Column("U-Net evals per image", 1, "lower"), Column("Seconds per image", 2, "lower")
MEMORY = Column("Memory [GB]", 1, "lower")
VERDICTS = "✓ better, ✗ worse, ○ not settled: by the 95 % interval of the paired difference, each taken by itself."


class Comparison:
    """Scores of several methods on the same scenes; the source itself is scored as a method named `identity`."""

    def __init__(
        self,
        scenes: Scenes,
        methods: Sequence[Outputs | Sequence[Outputs]],
        scores: Mapping[str, Score | Quantity],
        seed: int = 0,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
        *,
        identity: str = IDENTITY,
        floor: Outputs | None = None,
        batch_size: int = 8,
    ) -> None:
        """Score everything once; images are decoded as they are needed. Set scores are left out without a target.

        Several outputs in place of one are the runs of one method, called by the name of the first.
        A score is taken against every reference in every region; a `Quantity` in place of it is one column.

        `floor` holds other pictures of the target domain, to be measured against the target in place of its halves.

        Raises InputError, before any image is read, for names used twice, a method with another number of images, or
        sets that a score cannot work with; while reading, for images whose size differs from their reference's.
        """
        self.scenes, self.seed, self.identity = scenes, seed, identity
        self.floor_name = floor.name if floor else FLOOR
        self._measuring = Measuring(scenes, list(scores.values()), cache or FeatureCache(), batch_size, progress)
        self._known: dict[tuple[str, ...], Estimate | None] = {}
        given = [[each] if isinstance(each, Outputs) else list(each) for each in methods]
        runs = [[Outputs(identity, scenes.source)], *given]
        outputs = [each for several in runs for each in several]
        self._check([several[0].name for several in runs], outputs)
        twins = Outputs(FLOOR, scenes.target) if floor is None and scenes.paired and scenes.target is not None else None
        described = sum(map(len, [scenes.target or [], *(each.images for each in outputs)]))
        self._measuring.expect(len(outputs) + (twins is not None), described, len(floor.images) if floor else 0)
        self._target: Described = {}
        if scenes.target is not None:
            regions = self._measuring.set_regions
            self._target = self._measuring.features(scenes.target_name, scenes.target, regions)
        self.methods = {
            several[0].name: Scored.of_runs([self._measuring.score(each) for each in several]) for several in runs
        }
        self._twins = self._measuring.per_image(twins) if twins else {}
        self._others = self._measuring.features(floor.name, floor.images) if floor else None

    @property
    def columns(self) -> dict[str, Quantity]:
        """Every column by its title: sets and whole images first, then region by region."""
        return self._measuring.columns

    def estimate(self, column: str, method: str) -> Estimate | None:
        """A method's score with its interval; None where no scene has the region."""
        return self._once(("estimate", column, method), lambda: self._estimate(column, self.methods[method]))

    def change(self, column: str, after: str, before: str) -> Estimate | None:
        """Score of `after` minus score of `before`, resampled together.

        None where it is infinite, no scene has the region, or the backend of a set score cannot tell.
        """
        return self._once(("change", column, after, before), lambda: self._change(column, after, before))

    def floor(self, column: str) -> Estimate | None:
        """What the target (or the pictures given as floor) has in a column; None where that says nothing."""
        return self._once(("floor", column), lambda: self._floor(column))

    def spread(self, column: str, method: str) -> list[Estimate | None]:
        """The score of every run of a method that was run several times, each by itself; none for a single run."""
        return [self._estimate(column, run) for run in self.methods[method].runs]

    def only(self, places: Sequence[int]) -> "Comparison":
        """The same comparison on some of the scenes, by number, nothing measured anew; sets as whole images alone."""
        part = copy(self)
        part.scenes, part._known = self.scenes.only(places), {}
        part.methods = {name: scored.only(places) for name, scored in self.methods.items()}
        part._twins = {title: [values[place] for place in places] for title, values in self._twins.items()}
        whole = {key: features for key, features in self._target.items() if key[1] == WHOLE}
        paired = self.scenes.paired
        part._target = {key: features[list(places)] if paired else features for key, features in whole.items()}
        return part

    def protocols(self) -> dict[str, Protocol]:
        """The protocol of every column."""
        estimates = {title: self.estimate(title, self.identity) for title in self.columns}
        return {title: self._measuring.protocol(title, each.n if each else 0) for title, each in estimates.items()}

    def column(self, title: str, changes: bool = False) -> Column:
        """How a column is shown: its direction, and digits that fit its values."""
        score = self.columns[title].score
        estimates = [self.estimate(title, name) for name in self.methods]
        fitting = three_figures(each.value for each in estimates if each)
        return Column(title, fitting if isinstance(score, SetScore) else score.digits, score.better, changes)

    def titles(self, region: str = WHOLE) -> list[str]:
        """The columns of one region."""
        return [title for title, quantity in self.columns.items() if quantity.region == region]

    def table(
        self, title: str, notes: Sequence[str] = (), columns: Sequence[str] | None = None, costs: bool = True
    ) -> Table:
        """One row per method, between the input's and the floor's; by default the columns of whole images."""
        titles = self.titles() if columns is None else list(columns)
        prices = [EVALS, SECONDS] if costs and any(_priced(each.outputs) for each in self.methods.values()) else []
        rows: list[list[Cell]] = []
        for name, method in self.methods.items():
            price: list[Cell] = [method.outputs.evals, method.outputs.seconds]
            rows.append([name, *(self.estimate(each, name) for each in titles), *price[: len(prices)]])
        floor: list[Cell] = [self.floor(each) for each in titles]
        if any(cell is not None for cell in floor):
            rows.append([self.floor_name, *floor, *[None] * len(prices)])
        shown = [Column("Images"), *map(self.column, titles), *prices]
        return Table(title, shown, rows, list(notes), frozenset({0, len(self.methods)}))

    def changes(self, before: str, columns: Sequence[str] | None = None) -> Table:
        """What every method changes against `before`, scene by scene; against the input only what lies at the target.

        Scores against the source have nothing to tell there: any change of the input is a loss.
        """
        whole = {title: self.columns[title] for title in self.titles()}
        telling = [title for title, q in whole.items() if before != self.identity or q.reference == "target"]
        titles = telling if columns is None else list(columns)
        others = [name for name in self.methods if name not in (before, self.identity)]
        rows: list[list[Cell]] = [[name, *(self.change(title, name, before) for title in titles)] for name in others]
        shown = [Column("Images"), *(self.column(title, changes=True) for title in titles)]
        regions = {self.columns[title].region for title in titles} - {WHOLE}
        where = f" in {', '.join(sorted(regions))}" if regions else ""
        return Table(f"Change against {before}{where}", shown, rows, [VERDICTS])

    def costs(self) -> Table:
        """What an image costs with each method, where that is known."""
        outputs = [each.outputs for name, each in self.methods.items() if name != self.identity]
        rows: list[list[Cell]] = [[each.name, each.evals, each.seconds, each.memory_gb] for each in outputs]
        return Table("Costs", [Column("Images"), EVALS, SECONDS, MEMORY], rows)

    def tables(self, title: str, notes: Sequence[str] = ()) -> list[Table]:
        """All there is to show: scores, changes, then each region, then costs."""
        first = next((name for name in self.methods if name != self.identity), self.identity)
        several = len(self.methods) > 2
        found = [self.table(title, [*notes, *self.notes()], costs=False), self.changes(self.identity)]
        found += [self.changes(first)] if several else []
        for region in self.scenes.regions:
            titles = self.titles(region)
            found.append(self.table(f"In {region}", self._region_notes(region), titles, costs=False))
            found += [self.changes(first, titles)] if several else []
        found.append(self.costs())
        return [table for table in found if table.rows and len(table.columns) > 1 and _filled(table)]

    def notes(self) -> list[str]:
        """How to read the two rows beside the methods."""
        first = (
            f"{len(self.scenes.keys)} scenes, 95 % intervals. “{self.identity}” is the source itself: scores against "
            "the source reward copying, read them beside those against the target."
        )
        twins = ["image scores are those of the true twins"] if self._twins else []
        floor = "; ".join([*self._floor_notes(), *twins])
        return [first, *([f"“{self.floor_name}”: {floor}."] if floor else []), *self._cautions()]

    def _cautions(self) -> list[str]:
        counts, sets = (len(self.scenes.keys), len(self.scenes.target or [])), list[str]()
        for title in self.titles():
            score = self.columns[title].score
            caution = score.caution(*counts) if isinstance(score, SetScore) else None
            sets += [f"{title}: {caution}."] if caution else []
        return sets

    def _floor_notes(self) -> list[str]:
        sets = [title for title in self.titles() if isinstance(self.columns[title].score, SetScore)]
        if not sets or self._others is not None:
            return []
        count = len(self.scenes.target or [])
        if not any(self.floor(title) for title in sets):
            return [f"no set scores, {count} target images are too few to be halved"]
        halves = f"two random halves of the target ({count // 2} and {count - count // 2} images, seed {self.seed})"
        biased = ["FID is higher for smaller sets"] if any("FID" in title for title in sets) else []
        return [f"set scores are between {halves}, so with wider intervals", *biased]

    def per_image_rows(self) -> list[dict[str, str | float]]:
        """One row per scene and method, for CSV; nan where the scene lacks the region."""
        return [
            {"key": key, "method": name, **{column: values[index] for column, values in scored.per_image.items()}}
            for index, key in enumerate(self.scenes.keys)
            for name, scored in self.methods.items()
        ]

    def _check(self, names: Sequence[str], outputs: Sequence[Outputs]) -> None:
        names, scenes = [*names, self.floor_name], len(self.scenes.keys)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"two rows named {', '.join(twice)}; rename the method")
        for each in outputs:
            if len(each.images) != scenes:
                raise InputError(f"{each.name}: {len(each.images)} images for {scenes} scenes; give one for each")
        for quantity in self.columns.values():
            if isinstance(quantity.score, SetScore):
                quantity.score.check(scenes, len(self.scenes.target or []))

    def _region_notes(self, region: str) -> list[str]:
        n = len(self.scenes.keys)
        missing = n - len(self._measuring.present(region))
        return [f"{missing} of {n} scenes have no {region} and are left out."] if missing else []

    def _once(self, key: tuple[str, ...], compute: Callable[[], Estimate | None]) -> Estimate | None:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def _estimate(self, column: str, scored: Scored) -> Estimate | None:
        quantity = self.columns[column]
        if isinstance(quantity.score, ImageScore):
            return self._mean(scored.per_image[column])
        key = (quantity.score.backbone.id, quantity.region)
        if key not in self._target:
            return None
        return _if_possible(quantity.score, scored.features[key], self._target[key], self.scenes.paired)

    def _change(self, column: str, after: str, before: str) -> Estimate | None:
        quantity, new, old = self.columns[column], self.methods[after], self.methods[before]
        if isinstance(score := quantity.score, SetScore):
            if not self.estimate(column, after):
                return None
            key = (score.backbone.id, quantity.region)
            return score.difference(new.features[key], old.features[key], self._target[key], self.scenes.paired)
        pairs = zip(new.per_image[column], old.per_image[column], strict=True)
        present = [pair for pair in pairs if not any(map(math.isnan, pair))]
        if not present or not all(math.isfinite(a - b) for a, b in present):
            return None
        return paired_difference([a for a, _ in present], [b for _, b in present], seed=self.seed)

    def _floor(self, column: str) -> Estimate | None:
        quantity = self.columns[column]
        if isinstance(score := quantity.score, ImageScore):
            return self._mean(self._twins[column]) if self._twins else None
        target = self._target.get((score.backbone.id, quantity.region))
        if target is None:
            return None
        if self._others is not None:
            others = self._others.get((score.backbone.id, quantity.region))
            return None if others is None else _if_possible(score, others, target)
        order, half = torch.randperm(len(target), generator=generator(self.seed)), len(target) // 2
        return _if_possible(score, target[order[:half]], target[order[half:]])

    def _mean(self, values: Sequence[float]) -> Estimate | None:
        present = [value for value in values if not math.isnan(value)]
        return bootstrap_mean(present, seed=self.seed) if present else None


def _if_possible(score: SetScore, left: Features, right: Features, paired: bool = False) -> Estimate | None:
    """A set score; None for sets too small for it: halves of the target, scenes that have a region."""
    try:
        score.check(left.shape[-2], right.shape[-2])
    except InputError:
        return None
    return score.estimate(left, right, paired)


def _priced(outputs: Outputs) -> bool:
    return outputs.evals is not None or outputs.seconds is not None


def _filled(table: Table) -> bool:
    return any(cell is not None for row in table.rows for cell in row[1:])
