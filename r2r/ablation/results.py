"""What the scores of an ablation say: tables, claims with verdicts, and the record of every number."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from r2r.ablation.scoring import Scores
from r2r.metrics import Estimate
from r2r.reporting import Cell, Column, Finding, Table
from r2r.reporting.comparison import EVALS, VERDICTS
from r2r.reporting.score_records import numbers
from r2r.reporting.tables import signed

HOLDS, FAILS, OPEN = "holds", "fails", "not settled"
FLOOR = "targets themselves"


def score_table(scores: Scores, title: str, notes: Sequence[str] = ()) -> Table:
    """One row per method, every column with its interval; below, what the targets themselves have."""
    columns = list(scores.titles)
    rows: list[list[Cell]] = []
    for key, row in scores.rows.items():
        evals = scores.scenes.methods[row.name].outputs.evals
        rows.append([row.name, *(scores.estimate(column, key) for column in columns), evals])
    rows.append([FLOOR, *(scores.floor(column) for column in columns), None])
    references = [number for number, row in enumerate(scores.rows.values()) if row.model == "none"]
    shown = [Column("Images"), *map(scores.column, columns), EVALS]
    return Table(title, shown, rows, list(notes), frozenset([*references, len(rows) - 1]))


def change_table(scores: Scores, full: str) -> Table:
    """What the full method changes against every other row, scene by scene."""
    columns, others = list(scores.titles), [key for key in scores.rows if key != full]
    rows: list[list[Cell]] = [
        [scores.rows[key].name, *(scores.change(column, full, key) for column in columns)] for key in others
    ]
    shown = [Column("Against"), *(scores.column(column, changes=True) for column in columns)]
    return Table(f"What “{scores.rows[full].name}” changes", shown, rows, [VERDICTS])


def seed_table(scores: Scores, seeds: Sequence[int]) -> Table:
    """The score of every seed by itself; rows made once have one."""
    columns = list(scores.titles)
    rows: list[list[Cell]] = []
    for key, row in scores.rows.items():
        several = {column: scores.spread(column, key) for column in columns}
        if any(several.values()):
            rows.append([row.name, *(_listed(scores.column(column), several[column]) for column in columns)])
    shown = [Column("Images"), *(Column(scores.column(column).heading) for column in columns)]
    return Table(f"Seed by seed ({', '.join(map(str, seeds))})", shown, rows)


def findings(
    every: Scores, cfg: DictConfig, groups: Mapping[str, Scores] = MappingProxyType({})
) -> list[tuple[Finding, dict[str, Any]]]:
    """Every claim in every column that there is, with its verdict: as a sentence, and as a record.

    A claim `within` one of the groups of scenes is about these alone.
    """
    found: list[tuple[Finding, dict[str, Any]]] = []
    for claim in cfg.claims:
        within = claim.get("within")
        scores = every if within is None else groups[within]
        for column in (each for each in claim.columns if each in scores.titles):
            change = scores.change(column, claim.after, claim.before)
            verdict = judge(change, scores.column(column).better)
            after, before = (scores.rows[claim[which]].name for which in ("after", "before"))
            where = "" if within is None else f" ({within})"
            text = f"{claim.text}{where}: {scores.titles[column]}, {after} minus {before}."
            holds = {HOLDS: True, FAILS: False, OPEN: None}[verdict]
            about = {
                "claim": claim.text,
                "within": within,
                "after": claim.after,
                "before": claim.before,
                "column": column,
            }
            about |= {"title": scores.titles[column], "verdict": verdict, "change": numbers(change)}
            found.append((Finding(text, f"{signed(change)}: {verdict}", holds), about))
    return found


def judge(change: Estimate | None, better: str) -> str:
    """Whether a change is for the better by its whole interval, for the worse, or neither."""
    gain = 0 if change is None else change.sign * {"lower": -1, "higher": 1}[better]
    return {1: HOLDS, -1: FAILS, 0: OPEN}[gain]


def notes(scores: Scores, seeds: Sequence[int]) -> list[str]:
    """How the numbers were averaged and what the references mean."""
    several = f" {len(seeds)} seeds: each picture score is averaged over seeds, scene by scene, then scenes are "
    several += "resampled; KID is averaged over seeds, the same resampled scenes in each."
    photos = len(scores.photos.scenes.target or []) if scores.photos is not None else 0
    told = [f"{scores.count} held-out scenes, 95 % bootstrap intervals over scenes.{several if len(seeds) > 1 else ''}"]
    told += ["KID: exact unbiased estimate; to held-out photos, pairs of one scene are left out."]
    told += [f"Real photos: {photos}, nobody rendered them; they share no scene with anything here."] if photos else []
    return [*told, f"“{FLOOR}”: twins with themselves; sets, one half of the target with the other (wider intervals)."]


def record(scores: Scores, cfg: DictConfig, groups: Mapping[str, Scores]) -> dict[str, Any]:
    """What `scores.json` holds; also read by `r2r.evaluate beside.NAME=FOLDER`."""
    protocols: dict[str, Any] = {}
    for comparison in filter(None, (scores.scenes, scores.photos)):
        protocols |= comparison.protocols()
    columns: dict[str, Any] = {}
    for column, title in scores.titles.items():
        shown = scores.column(column)
        columns[title] = {"id": column, "better": shown.better, "digits": shown.digits, "protocol": protocols[title]}
    full = cfg.full
    changes = [
        {"column": title, "after": scores.rows[full].name, "before": scores.rows[key].name}
        | (numbers(scores.change(column, full, key)) or {})
        for column, title in scores.titles.items()
        for key in scores.rows
        if key != full
    ]
    return {
        "scenes": scores.count,
        "seeds": list(cfg.seeds),
        "columns": columns,
        "rows": [_row(scores, key) for key in scores.rows],
        "changes": changes,
        "groups": {
            name: {"scenes": part.count, "rows": [_row(part, key) for key in part.rows]}
            for name, part in groups.items()
        },
    }


def _row(scores: Scores, key: str) -> dict[str, Any]:
    row, outputs = scores.rows[key], scores.scenes.methods[scores.rows[key].name].outputs
    return {
        "key": key,
        "name": row.name,
        "kind": "identity" if row.model == "none" else "method",
        "scores": {title: numbers(scores.estimate(column, key)) for column, title in scores.titles.items()},
        "seeds": {title: [numbers(e) for e in scores.spread(column, key)] for column, title in scores.titles.items()},
        "evals": outputs.evals,
    }


def _listed(column: Column, values: Sequence[Estimate | None]) -> str:
    return " / ".join(column.parts(value)[0] for value in values)
