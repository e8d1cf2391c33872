"""The page over many runs: what was read from disk and scored, put into words, columns and links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, overload

from PIL import Image

from r2r.data.images import to_pil
from r2r.metrics import WHOLE, ImageScore
from r2r.reporting.comparison import Comparison
from r2r.reporting.pages import Figure, Finding, Link, Page, Scene
from r2r.reporting.runs import Run, ablation_table, flat, training_table
from r2r.reporting.scenes import Picture
from r2r.reporting.tables import Table

CAVEATS = (
    "Scores against the source reward copying: read them beside those against the target.",
    "Numbers may be compared within a column, whose protocol is stated below; not with numbers measured otherwise.",
    "Intervals are 95 % over scenes: what other scenes of this kind would change, not what another seed would.",
    "Memory is the peak of the GPU, of the process where there was none. A dash: nobody recorded it.",
)


@dataclass(frozen=True)
class Material:
    """What lies on disk: runs of r2r and baselines, both with pictures; training runs; figures of a sweep."""

    runs: Sequence[Run]
    baselines: Sequence[Run]
    training: Sequence[Run]
    figures: Sequence[Figure]

    @property
    def scored(self) -> list[Run]:
        """Everything with pictures, the runs of r2r first."""
        return [*self.runs, *self.baselines]


def report_tables(material: Material, comparison: Comparison | None) -> list[Table]:
    """Scores, what runs change against the first one, regions, costs, training runs: those there is anything for."""
    runs, tables = material.runs, comparison.tables("Comparison") if comparison else []
    if comparison and len(runs) > 1:
        columns = [*comparison.titles(), *chain(*map(comparison.titles, comparison.scenes.regions[:1]))]
        tables.insert(1, ablation_table(runs, comparison, columns))
    return [*tables, training_table(material.training)] if material.training else tables


def report_page(
    title: str,
    material: Material,
    comparison: Comparison | None,
    tables: Sequence[Table],
    caveats: Sequence[str],
    record: Mapping[str, Any],
    max_scenes: int,
) -> Page:
    """The page; `caveats` are of these very pictures, `record` is the run record of the report itself."""
    scenes = gallery(comparison, max_scenes) if comparison else []
    made = [str(run.record["command"]) for run in (*material.runs, *material.training) if "command" in run.record]
    return Page(
        title=title,
        lead=_lead(material, len(comparison.scenes.keys) if comparison else 0),
        columns=columns(comparison) if comparison else [],
        scenes=scenes,
        compared=(0, 1),
        findings=findings(comparison, material.scored[0].name) if comparison else [],
        tables=tables,
        protocols=comparison.protocols() if comparison else {},
        caveats=[*caveats, *CAVEATS] if comparison else (),
        commands=list(dict.fromkeys([record["command"], *made])),
        settings=dict(flat(record["config"])),
        record={**record["versions"], **record["hardware"], "seconds": record["seconds"]},
        figures=material.figures,
        links=links(material),
        gallery_note=f"Below each picture: {told}." if comparison and (told := _told(comparison)) else "",
        gallery_title=_gallery_title(len(scenes), len(comparison.scenes.keys) if comparison else 0),
    )


def findings(comparison: Comparison, first: str) -> list[Finding]:
    """How `first` stands against every other row in the leading column: realism where there is a target."""
    title = next(iter(comparison.columns))
    column = comparison.column(title, changes=True)
    stated: list[Finding] = []
    for other in comparison.methods:
        change = comparison.change(title, first, other) if other != first else None
        if change is not None:
            gain = change.sign * {"lower": -1, "higher": 1, "": 0}[column.better]
            words = {1: "better than", -1: "worse than", 0: "not settled against"}[gain]
            value, interval = column.parts(change)
            holds = {1: True, -1: False, 0: None}[gain]
            stated.append(Finding(f"{first} is {words} {other} by {title}.", f"{value} {interval[:-2]}", holds))
    return stated


def columns(comparison: Comparison) -> list[str]:
    """Columns of the gallery: source, every method, and the true twin where there is one."""
    twin = [comparison.scenes.twin_name] if comparison.scenes.paired else []
    return [*comparison.methods, *twin]


def gallery(comparison: Comparison, most: int) -> list[Scene]:
    """The first scenes, decoded only when the page is written; below each output its leading per-image score."""
    scenes = comparison.scenes
    sequences = [scored.outputs.images for scored in comparison.methods.values()]
    sequences += [scenes.target] if scenes.paired and scenes.target is not None else []
    told = _told(comparison)
    rows: list[Scene] = []
    for index, key in enumerate(scenes.keys[:most]):
        remarks = [""] * len(sequences)
        for place, (name, scored) in enumerate(comparison.methods.items()):
            if told and name != comparison.identity:
                remarks[place] = comparison.column(told).show(scored.per_image[told][index])
        rows.append(Scene(key, key, _Row(sequences, index), remarks))
    return rows


def links(material: Material) -> list[Link]:
    """Where everything lies; runs at W&B twice."""
    kinds = ((material.runs, "run of r2r"), (material.baselines, "baseline"), (material.training, "training run"))
    found: list[Link] = []
    for runs, kind in kinds:
        for run in runs:
            found += [Link(run.name, run.folder, kind)] if run.folder.is_dir() else []
            found += [Link(f"{run.name} at W&B", run.url, kind)] if run.url else []
    return found


class _Row(Sequence[Image.Image]):
    """One scene's pictures, decoded as they are read."""

    def __init__(self, sequences: Sequence[Sequence[Picture]], index: int) -> None:
        self.sequences, self.place = sequences, index

    def __len__(self) -> int:
        return len(self.sequences)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        return to_pil(self.sequences[index][self.place])


def _told(comparison: Comparison) -> str | None:
    """The per-image score told below pictures: the first one inside a region, else the first one."""
    scored = {title: q for title, q in comparison.columns.items() if isinstance(q.score, ImageScore)}
    return next((title for title, q in scored.items() if q.region != WHOLE), next(iter(scored), None))


def _lead(material: Material, scenes: int) -> str:
    counts = {
        ("scene", "scenes"): scenes,
        ("run of r2r", "runs of r2r"): len(material.runs),
        ("baseline", "baselines"): len(material.baselines),
        ("training run", "training runs"): len(material.training),
    }
    told = [f"{count} {one if count == 1 else many}" for (one, many), count in counts.items() if count]
    scored = " All pictures are scored by the same code, under the protocols stated below." if scenes else ""
    return ", ".join(told) + "." + scored


def _gallery_title(shown: int, count: int) -> str:
    return f"All {count} scenes" if shown == count else f"The first {shown} of {count} scenes"


def grid_columns(page: Page, rows: int) -> tuple[dict[str, list[Image.Image]], list[str]]:
    """Pictures by column and captions of the first scenes, for `write_grid`."""
    first = list(page.scenes[:rows])
    pictures = [list(scene.pictures) for scene in first]
    shown = {title: [row[place] for row in pictures] for place, title in enumerate(page.columns)}
    return shown, [scene.caption for scene in first]


def file_names(tables: Sequence[Table]) -> dict[str, Table]:
    """Tables by a file name made of their title: "In garment" becomes in_garment; the second of a name gets _2."""
    found: dict[str, Table] = {}
    for table in tables:
        name = "_".join("".join(c if c.isalnum() else " " for c in table.title.lower()).split())
        taken = sum(each == name or each.startswith(f"{name}_") for each in found)
        found[name if not taken else f"{name}_{taken + 1}"] = table
    return found


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Every table as CSV, LaTeX and Markdown, named by its title."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in file_names(tables).items():
        table.write_csv(folder / f"{name}.csv")
        (folder / f"{name}.tex").write_text(table.to_latex(), encoding="utf-8")
        (folder / f"{name}.md").write_text(f"**{table.title}**\n\n{table.to_markdown()}", encoding="utf-8")
