"""The scores of an ablation: every row, averaged over seeds, against true twins, sources and real photos.

Columns have an id, GROUP.METRIC, by which claims and figures name them: `held_out` and `real` are distances of sets to
the photos of the same scenes and to real photos, `twin` compares each picture with its true photo, `twin_garment` does
inside the garment and `twin_face` inside the face, `texture` compares it with its source inside the garment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from r2r.ablation.rows import Row, place
from r2r.ablation.scenes import KINDS, HeldOut
from r2r.cli import build
from r2r.data.pictures import Masks, Pictures
from r2r.errors import InputError
from r2r.metrics import SetScore
from r2r.metrics.features import FeatureCache
from r2r.metrics.statistics import Estimate
from r2r.reporting import Column, Comparison, Outputs, Scenes
from r2r.reporting.measuring import Progress, Quantity
from r2r.reporting.runs import read_run

GROUPS = ("held_out", "real", "twin", "twin_garment", "twin_face", "texture")
REAL = "real photos"


@dataclass(frozen=True)
class Scores:
    """All rows scored; a column is known by its id and lies in one of the comparisons, under a title."""

    rows: Mapping[str, Row]
    scenes: Comparison
    photos: Comparison | None
    titles: Mapping[str, str]  # by column id

    @property
    def count(self) -> int:
        """The number of scenes."""
        return len(self.scenes.scenes.keys)

    def holder(self, column: str) -> Comparison:
        """The comparison that has a column."""
        return self.photos if self.photos is not None and column.startswith("real.") else self.scenes

    def estimate(self, column: str, row: str) -> Estimate | None:
        """A row's score in a column."""
        return self.holder(column).estimate(self.titles[column], self.rows[row].name)

    def change(self, column: str, after: str, before: str) -> Estimate | None:
        """Score of one row minus that of another, resampled together."""
        return self.holder(column).change(self.titles[column], self.rows[after].name, self.rows[before].name)

    def spread(self, column: str, row: str) -> list[Estimate | None]:
        """A row's score for every seed by itself; none for a row made once."""
        return self.holder(column).spread(self.titles[column], self.rows[row].name)

    def floor(self, column: str) -> Estimate | None:
        """What the target itself has in a column."""
        return self.holder(column).floor(self.titles[column])

    def column(self, column: str, changes: bool = False) -> Column:
        """How a column is shown."""
        return self.holder(column).column(self.titles[column], changes)

    def only(self, places: Sequence[int]) -> "Scores":
        """The same on some of the scenes; nothing is measured anew."""
        photos = self.photos.only(places) if self.photos is not None else None
        return Scores(self.rows, self.scenes.only(places), photos, self.titles)


def metrics(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """The scores by group and metric. Raises MissingWeightsError for a network that is not at hand."""
    found: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for section in (cfg.metrics, cfg.with_squeezenet if cfg.squeezenet is not None else {}):
        for group, scores in section.items():
            if group not in GROUPS:
                raise InputError(f"metrics.{group} is none of {', '.join(GROUPS)}")
            wanted = not (group == "real" and cfg.photos is None)
            given = {name: build(each) for name, each in (scores or {}).items() if wanted and each is not None}
            found[str(group)] |= given
    for region in ("garment", "face"):
        if found[f"twin_{region}"] and region not in KINDS[cfg.kind].folders:
            raise InputError(f"metrics.twin_{region}: scenes of kind={cfg.kind} have no mask of the {region}")
    for group, name, score in ((g, n, s) for g, scores in found.items() for n, s in scores.items()):
        sets = isinstance(score, SetScore)
        if sets != (group in ("held_out", "real")) or (sets and score.change is None):
            kind = (
                "a distance of sets with backend=r2r" if group in ("held_out", "real") else "a score of single images"
            )
            raise InputError(f"metrics.{group}.{name} must be {kind}")
    return found


def score(
    cfg: DictConfig,
    rows: Mapping[str, Row],
    held_out: HeldOut,
    photos: HeldOut | None,
    output: Path,
    progress: Progress | None = None,
) -> Scores:
    """Score the pictures of all rows, which lie below `output`."""
    found, cache = metrics(cfg), FeatureCache(output / "features")
    source = Pictures(held_out.paths("input"))
    masks = {name: Masks(held_out.paths(name)) for name in ("garment", "face") if name in KINDS[cfg.kind].folders}
    own = {f"held_out.{name}": Quantity(each, "target") for name, each in found["held_out"].items()}
    own |= {f"twin.{name}": Quantity(each, "target") for name, each in found["twin"].items()}
    for region in masks:
        within = found[f"twin_{region}"].items()
        own |= {f"twin_{region}.{name}": Quantity(each, "target", region) for name, each in within}
    own |= {f"texture.{name}": Quantity(each, "source", "garment") for name, each in found["texture"].items()}
    twins = any(quantity.reference == "target" for quantity in own.values())
    identity = next(row.name for row in rows.values() if row.model == "none")
    outputs = [pictures(cfg, row, held_out, output) for row in rows.values() if row.model != "none"]
    about: dict[str, Any] = {"seed": int(cfg.seeds[0]), "cache": cache, "progress": progress, "identity": identity}
    scenes = Scenes(
        held_out.names,
        source,
        Pictures(held_out.paths("target")) if twins else None,
        paired=twins,
        masks=masks,
        twin_name=cfg.names.twin,
        target_name=cfg.names.held_out,
    )
    compared = Comparison(scenes, outputs, own, **about)
    titles = _titled(own, compared)
    if photos is None:
        return Scores(rows, compared, None, titles)
    far = {f"real.{name}": Quantity(each, "target") for name, each in found["real"].items()}
    others = Scenes(held_out.names, source, Pictures(photos.paths(".")), target_name=REAL)
    real = Comparison(others, outputs, far, **about)
    return Scores(rows, compared, real, _titled(far, real) | titles)


def pictures(cfg: DictConfig, row: Row, held_out: HeldOut, output: Path) -> list[Outputs]:
    """The pictures of a row, once for every seed it was made for."""
    found: list[Outputs] = []
    for seed in list(cfg.seeds)[: 1 if row.once else None]:
        folder = output / place(row.key, seed)
        run = read_run(row.name, folder)
        images = Pictures([folder / f"{name}.png" for name in held_out.names])
        found.append(Outputs(row.name, images, run.evals, run.seconds, folder=folder, settings=run.settings))
    return found


def check_columns(cfg: DictConfig, rows: Mapping[str, Row]) -> None:
    """Raise InputError for a claim about rows or columns that no setting could give."""
    known = [
        f"{g}.{n}" for each in (cfg.metrics, cfg.with_squeezenet) for g, named in each.items() for n in named or {}
    ]
    for number, claim in enumerate(cfg.claims):
        for row in (claim.after, claim.before):
            if row not in rows:
                raise InputError(f"claims[{number}]: {row} is none of the rows {', '.join(rows)}")
        groups = [column.split(".")[0] for column in claim.columns]
        if unknown := [c for c, g in zip(claim.columns, groups, strict=True) if c not in known or g not in GROUPS]:
            raise InputError(f"claims[{number}]: {unknown[0]} is none of the columns {', '.join(dict.fromkeys(known))}")


def _titled(quantities: Mapping[str, Quantity], comparison: Comparison) -> dict[str, str]:
    if len(comparison.columns) != len(quantities):
        raise InputError(f"two metrics of one name among {', '.join(quantities)}; leave one out")
    return dict(zip(quantities, comparison.columns, strict=True))
