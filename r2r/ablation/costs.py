"""What the rows of an ablation cost: their trainings, and their translations, by the records both leave.

Costs have a table of their own, since unlike scores they differ when the same command runs again.
"""

from pathlib import Path

from omegaconf import DictConfig

from r2r.ablation.rows import Row, place, trainings_of
from r2r.ablation.scoring import Scores
from r2r.reporting import Cell, Column, Table
from r2r.reporting.runs import Run, read_run

COLUMNS = [
    Column("Images"),
    Column("Images seen in training"),
    Column("Training [min]", 1),
    Column("Trained parameters [M]", 2),
    Column("Memory, training [GB]", 1),
    Column("Network evals per image", 1),
    Column("Seconds per image", 2),
    Column("Memory, translating [GB]", 1),
]
NOTES = [
    "Of the first seed. Images seen: batches times their size, repeats counted; of unpaired methods as many renders as "
    "photos. Trained parameters: of everything that is trained, discriminators too.",
    "A training that was interrupted counts from where it went on; jobs ran side by side, one on each core or GPU.",
]


def cost_table(scores: Scores, cfg: DictConfig) -> Table:
    """One row per method that was made, the input left out."""
    output, seed = Path(cfg.output), int(cfg.seeds[0])
    rows = [_row(cfg, row, output, seed) for row in scores.rows.values() if row.model != "none"]
    return Table("What it costs", COLUMNS, rows, NOTES)


def _row(cfg: DictConfig, row: Row, output: Path, seed: int) -> list[Cell]:
    runs = [read_run(name, output / name) for name in trainings_of(cfg, row, seed)]
    made = read_run(row.name, output / place(row.key, seed))
    learned = made.record.get("learning_seconds")  # of a reference, before the first picture
    seconds = [*(run.record["seconds"] for run in runs), *([learned] if learned else [])]
    training: list[Cell] = [
        sum(map(_images_seen, runs)) or None,
        sum(seconds) / 60 if seconds else None,
        sum(run.record["trained_parameters"] for run in runs) / 1e6 if runs else None,
        max((run.memory_gb or 0.0 for run in runs), default=None),
    ]
    return [row.name, *training, _evals(made), made.seconds, made.memory_gb]


def _images_seen(run: Run) -> int:
    return run.record["steps"] * run.record["world_size"] * run.record["config"]["data"]["batch_size"]


def _evals(made: Run) -> float | None:
    images, evals = made.record.get("images"), made.record.get("generator_sample_evals")
    return made.evals if evals is None or not images else evals / images
