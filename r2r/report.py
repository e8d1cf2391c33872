"""`python -m r2r.report source=DIR target=DIR runs.full=DIR baselines.cut=DIR output=DIR`: one page over many runs.

All pictures are scored anew, by the code of r2r.evaluate, so that every column follows one protocol by construction.
What a run's settings and costs were is read from its folder: no server is asked, runs logged offline count alike.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from r2r.cli import verb
from r2r.errors import InputError
from r2r.evaluate import RESIZED, check_output, output_folders, score
from r2r.provenance import run_record, write_json

if TYPE_CHECKING:
    from r2r.reporting import Comparison, Page, Table
    from r2r.reporting.run_page import Material
    from r2r.reporting.runs import Run
    from r2r.reporting.wandb_report import Board

PAGE, SPEC = "index.html", "wandb_report.json"

# Mappings that take any key: what is compared is named on the command line (runs.NAME=FOLDER).
_OPEN = {name: DictConfig({}, flags={"struct": False}) for name in ("runs", "baselines", "masks")}
ConfigStore.instance().store(name="open_report_mappings", node=_OPEN)


def report(cfg: DictConfig) -> None:
    """Read, score, and write page, tables, grid and record into `cfg.output`; publish where that is asked for.

    Raises:
        InputError: before any work, for folders that are missing or do not fit together, or W&B without an account.
        MissingWeightsError: before any work, for a network of a score that is not at hand.
        DataError: for an image or a run record that cannot be read.
    """
    from r2r.reporting.run_page import report_page, report_tables

    material = gather(cfg)
    board = _board(cfg, material)
    comparison, caveats = compare(cfg, material.scored)
    tables = report_tables(material, comparison)
    config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    record = run_record(config, protocols=comparison.protocols() if comparison else {})
    page = report_page(cfg.title, material, comparison, tables, caveats, record, cfg.max_scenes)
    folder = Path(cfg.output)
    write(folder, page, comparison, cfg.grid_scenes)
    write_json(folder / "run.json", record)
    show(tables, folder / PAGE)
    write_for_wandb(folder, page, board, publishing=cfg.wandb is not None)


def gather(cfg: DictConfig) -> "Material":
    """What the folders of runs tell. Raises InputError for missing folders, none at all, and names given twice."""
    from r2r.reporting.figures import sweep_figures
    from r2r.reporting.run_page import Material
    from r2r.reporting.runs import read_run

    ours = [read_run(str(name), Path(folder)) for name, folder in cfg.runs.items()]
    baselines = [read_run(str(name), Path(folder)) for name, folder in cfg.baselines.items()]
    if not ours and not baselines:
        raise InputError("nothing to report: give runs.NAME=FOLDER, baselines.NAME=FOLDER, or both")
    if twice := {run.name for run in ours} & {run.name for run in baselines}:
        raise InputError(f"runs and baselines are both called {', '.join(sorted(twice))}; rename one")
    folders = [run.folder for run in (*ours, *baselines)]
    check_output(Path(cfg.output), [cfg.source, cfg.target, cfg.sweep, *cfg.masks.values(), *folders])
    trained = {run.name: training(run) for run in ours}
    figures = sweep_figures(Path(cfg.sweep)) if cfg.sweep is not None else []
    runs = [run for run in ours if not trained[run.name]]
    return Material(runs, baselines, list(chain(*trained.values())), figures)


def training(run: "Run") -> "list[Run]":
    """The training runs a folder stands for: itself, or the jobs of a sweep; none for a folder of pictures."""
    from r2r.launching import read_jobs
    from r2r.reporting.runs import job_run, numbered_runs

    if run.trained:
        return [run]
    jobs = read_jobs(run.folder).values()
    places = {job.job: Path(job.folder) for job in jobs}
    moved = {number: run.folder / place.name for number, place in places.items() if not place.is_dir()}
    listed = [job_run(f"{run.name}/{job.job}", (places | moved)[job.job], job.state, job.error) for job in jobs]
    return listed or numbered_runs(run)


def compare(cfg: DictConfig, scored: "Sequence[Run]") -> "tuple[Comparison | None, list[str]]":
    """Score all pictures as r2r.evaluate does, after its checks; and what a reader must know of them.

    None when there are no pictures.
    """
    if not scored:
        return None, []
    if cfg.source is None:
        raise InputError("source=FOLDER is missing: the pictures that all the others were made of")
    cfg = OmegaConf.create({**cfg, "outputs": {run.name: str(run.folder) for run in scored}})
    comparison, given = score(cfg, output_folders(cfg))
    left_out = "; ".join(f"{title} {', '.join(names)}" for title, names in given.left_out.items())
    caveats = [f"Left out, since not in every folder: {left_out}."] if left_out else []
    return comparison, caveats + ([f"Sizes were made equal: {RESIZED}."] if given.resized else [])


def write(folder: Path, page: "Page", comparison: "Comparison | None", grid_scenes: int) -> None:
    """Page, tables, grid and per-image scores."""
    from r2r.reporting import write_grid, write_page, write_rows
    from r2r.reporting.run_page import grid_columns, write_tables

    write_tables(folder, page.tables)
    if comparison is not None:
        write_rows(folder / "per_image.csv", comparison.per_image_rows())
        write_grid(folder / "grid.png", *grid_columns(page, grid_scenes))
    write_page(folder / PAGE, page)


def write_for_wandb(folder: Path, page: "Page", board: "Board", publishing: bool) -> None:
    """The W&B report as a file, where its library is installed; and at W&B, where that is asked for."""
    from PIL import Image

    from r2r.reporting.wandb_report import publish, report_spec

    pictures = {path.stem: path for path in [folder / "grid.png"] if path.is_file()}
    try:
        write_json(folder / SPEC, report_spec(page, board, list(pictures)))
    except InputError as error:
        print(f"{SPEC} is left out: {error}")
    if publishing:
        print("W&B: " + publish(page, board, {name: Image.open(path) for name, path in pictures.items()}))


def show(tables: "Sequence[Table]", page: Path) -> None:
    """The first tables and the place of the page, on the terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=max(Console().width, 124))
    for table in tables[:2]:
        console.print(table.to_rich())
        console.print()
    console.print(Text(f"report: {page.absolute()} ({len(tables)} tables)"), soft_wrap=True)


def _board(cfg: DictConfig, material: "Material") -> "Board":
    """Where W&B's runs are. Raises InputError when publishing is asked for and cannot work."""
    from r2r.reporting.wandb_report import Board, check_publishable

    if cfg.wandb not in (None, "publish"):
        raise InputError(f"wandb={cfg.wandb} is not known; use wandb=publish, or leave it out")
    curves = dict.fromkeys(name for run in material.training for name in run.metrics)
    board = Board(cfg.wandb_project, cfg.wandb_entity, list(curves))
    if cfg.wandb is not None:
        check_publishable(board)
    return board


@verb("report")
def main(cfg: DictConfig) -> None:
    """Write a report."""
    report(cfg)


if __name__ == "__main__":
    main()
