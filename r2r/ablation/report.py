"""What an ablation writes: tables, scores, findings, the trade-off figure, a grid and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.text import Text

from r2r.ablation.costs import cost_table
from r2r.ablation.results import change_table, findings, notes, record, score_table, seed_table
from r2r.ablation.scenes import HeldOut, spread
from r2r.ablation.scoring import Scores
from r2r.cli import flat
from r2r.data.cells import CellFolders
from r2r.data.images import load_image
from r2r.provenance import write_json
from r2r.reporting import Figure, Finding, Page, Table, write_grid, write_page, write_rows
from r2r.reporting.figures import cell_grid, heat_maps
from r2r.reporting.run_page import columns, gallery, grid_columns

CAVEATS = (
    "Intervals say what other scenes would change; how much another seed changes stands in the table seed by seed.",
    "KID depends on its backbone, named in the column: do not compare it across backbones, or with the paper's.",
    "Scores against the source reward copying, the input itself is perfect there: read them beside realism.",
)
MAPS = ("Detail SSIM to source in garment", "KID to target")  # what the heat maps show, by the start of their titles


def write_report(cfg: DictConfig, scores: Scores, held_out: HeldOut, run: Mapping[str, Any]) -> None:
    """Write everything to `cfg.output`; print the table, the verdicts and the place of the page."""
    output = Path(cfg.output)
    groups = {name: scores.only(places) for name, places in held_out.groups(cfg.groups).items()}
    tables, judged = all_tables(cfg, scores, groups), findings(scores, cfg, groups)
    figures, costs = trade_off_figures(cfg, held_out), cost_table(scores, cfg)
    costs.write_csv(output / "costs.csv")
    (output / "costs.md").write_text(costs.to_markdown(), encoding="utf-8")
    _write_tables(output, tables, scores)
    write_json(output / "scores.json", record(scores, cfg, groups))
    write_json(output / "findings.json", {"findings": [about for _, about in judged]})
    shown = page(cfg, scores, [*tables, costs], [finding for finding, _ in judged], figures, run)
    pictures, captions = grid_columns(shown, cfg.num_grid_scenes)
    write_grid(output / "grid.png", pictures, captions)
    for figure, name in zip(figures, ("trade_off", "heat_maps"), strict=False):
        figure.picture.save(output / f"{name}.png", optimize=True)
    write_page(output / "index.html", shown)
    write_json(output / "run.json", {**run, "findings": [about for _, about in judged]})
    _tell(tables, [finding for finding, _ in judged], output)


def all_tables(cfg: DictConfig, scores: Scores, groups: Mapping[str, Scores]) -> list[Table]:
    """Scores, changes, seeds where there are several, and each group of scenes."""
    seeds = list(cfg.seeds)
    tables = [score_table(scores, str(cfg.title), notes(scores, seeds)), change_table(scores, cfg.full)]
    tables += [seed_table(scores, seeds)] if len(seeds) > 1 else []
    return tables + [score_table(part, f"{name}, {part.count} scenes") for name, part in groups.items()]


def trade_off_figures(cfg: DictConfig, held_out: HeldOut) -> list[Figure]:
    """The grid of pictures and the heat maps of the sweep over strength and TAC ratio, where there was one."""
    if not cfg.trade_off.num_scenes:
        return []
    root = Path(cfg.output) / "trade_off"
    folders, swept = CellFolders.read(root), json.loads((root / "run.json").read_text(encoding="utf-8"))
    names = spread(folders.names(), cfg.trade_off.shown)
    grids = [cell_grid(folders, name, load_image(held_out.folder / "input" / f"{name}.png")) for name in names]
    values: dict[str, dict[tuple[float, float], float]] = {}
    for title in swept["better"]:
        cells = {(each["strength"], each["tac_ratio"]): each["scores"][title] for each in swept["cells"]}
        if title.startswith(MAPS) and " in " not in title.removeprefix(MAPS[0]) and all(cells.values()):
            values[title] = {cell: float(numbers["value"]) for cell, numbers in cells.items()}
    told = f"{len(folders.names())} scenes, first seed."
    figures = [
        Figure("TAC ratio × strength", _stacked(grids), "Strength from left to right, TAC ratio from top to bottom.")
    ]
    maps = heat_maps(values, swept["better"]) if values else None
    return figures + ([Figure("Texture fidelity and realism", maps, f"Means of {told}")] if maps else [])


def page(
    cfg: DictConfig,
    scores: Scores,
    tables: Sequence[Table],
    judged: Sequence[Finding],
    figures: Sequence[Figure],
    run: Mapping[str, Any],
) -> Page:
    """The page: slider, verdicts, figures, tables, scenes, and how it was made."""
    compared = scores.scenes
    shown, names = columns(compared), [row.name for row in scores.rows.values()]
    protocols = compared.protocols() | (scores.photos.protocols() if scores.photos is not None else {})
    return Page(
        title=str(cfg.title),
        lead=f"{scores.count} held-out scenes, {len(scores.rows)} rows, seeds {', '.join(map(str, cfg.seeds))}; the "
        "pictures are those of the first seed.",
        columns=shown,
        scenes=gallery(compared, cfg.max_page_scenes),
        compared=(shown.index(compared.identity), shown.index(names[list(scores.rows).index(cfg.full)])),
        findings=judged,
        tables=tables,
        protocols=protocols,
        caveats=CAVEATS,
        commands=[run["command"]],
        settings=dict(entry.split("=", 1) for entry in flat(run["config"])),
        record={**run["versions"], **run["hardware"], "seconds": run["seconds"]},
        figures=figures,
        gallery_title=f"{min(scores.count, cfg.max_page_scenes)} of {scores.count} held-out scenes",
    )


def _write_tables(output: Path, tables: Sequence[Table], scores: Scores) -> None:
    tables[0].write_csv(output / "table.csv")
    markdown = "\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in tables)
    (output / "table.md").write_text(markdown, encoding="utf-8")
    (output / "table.tex").write_text("\n".join(table.to_latex() for table in tables), encoding="utf-8")
    write_rows(output / "per_image.csv", scores.scenes.per_image_rows())


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), (255, 255, 255))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def _tell(tables: Sequence[Table], judged: Sequence[Finding], output: Path) -> None:
    console = Console(width=max(Console().width, 140))
    for table in tables[:2]:
        console.print(table.to_rich())
    for each in judged:
        mark = {True: ("✓", "green"), False: ("✗", "red"), None: ("○", "dim")}[each.holds]
        console.print(Text.assemble(mark, " ", each.text, " ", (each.numbers, "dim")))
    console.print(Text(f"tables, pictures and page: {(output / 'index.html').absolute()}"), soft_wrap=True)
