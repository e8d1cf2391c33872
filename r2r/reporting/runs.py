"""Runs as they lie on disk: what `run.json` and `metrics.csv` in a folder tell of settings, costs and outcome.

Nothing here asks a server: a run that was logged offline reports like any other.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from r2r.errors import DataError, InputError
from r2r.reporting.comparison import Comparison
from r2r.reporting.tables import Cell, Column, Table, three_figures

Settings = Mapping[str, object]
_CELL = re.compile(r"(?P<sweep>.*)/strength_(?P<strength>[\d.e-]+)/tac_(?P<ratio>[\d.e-]+)")  # of r2r.sweep
# Where a run lay or what it was called, not what it did.
PLACES = ("input", "output", "name", "paths.output_dir", "paths.log_dir", "resume", "carry_on")


@dataclass(frozen=True)
class Run:
    """One folder and what its `run.json` says; `record` is empty where there is none."""

    name: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, object]:
        """The run's config, flat: `task.optimizer.lr`, without places."""
        return {key: value for key, value in flat(self.record.get("config", {})) if not _is_place(key)}

    @property
    def trained(self) -> bool:
        """Whether this is a training run."""
        return "steps" in self.record

    @property
    def state(self) -> str:
        """The record's status: done, running, interrupted, or failed and why; "no record" without one."""
        return str(self.record.get("status", "no record"))

    @property
    def evals(self) -> float | None:
        """U-Net sample evaluations per image, where the record counts both."""
        return self._per_image("unet_sample_evals")

    @property
    def seconds(self) -> float | None:
        """Seconds per image, without loading the model."""
        return self._per_image("seconds")

    @property
    def memory_gb(self) -> float | None:
        """Peak memory: of the GPU where one was in use, else of the process."""
        gpu = self.record.get("peak_gpu_memory_gb")
        return gpu if gpu is not None else self.record.get("peak_memory_gb")

    @property
    def url(self) -> str | None:
        """The run's page at W&B, where the record has one."""
        return self.record.get("wandb_url")

    @property
    def metrics(self) -> dict[str, float]:
        """Final metrics: of the record, else the last values in `metrics.csv`."""
        return dict(self.record.get("metrics") or last_values(self.folder / "metrics.csv"))

    def _per_image(self, count: str) -> float | None:
        images, total = self.record.get("images"), self.record.get(count)
        return total / images if images and total is not None else None


def read_run(name: str, folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        InputError: there is no such folder.
        DataError: its `run.json` cannot be read.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{name}: {what}: {folder.absolute()}; give the folder that the run wrote")
    if cell := _CELL.fullmatch(folder.absolute().as_posix()):
        sweep, strength, ratio = Path(cell["sweep"]), float(cell["strength"]), float(cell["ratio"])
        record = _record(name, sweep / "run.json")  # work is shared between cells: none has a cost of its own
        config = {**record.get("config", {}), "strength": strength, "tac_ratio": ratio}
        return Run(name, folder, {"status": record.get("status", "no record"), "config": config})
    return Run(name, folder, _record(name, folder / "run.json"))


def _record(name: str, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot read {path}: {error}; repair or remove it") from error
    if not isinstance(record, dict):
        raise DataError(f"{name}: {path} holds no run record; repair or remove it")
    return record


def numbered_runs(run: Run) -> list[Run]:
    """The training runs in the numbered folders of a Hydra multirun, in order; none for any other folder."""
    folders = [path for path in run.folder.iterdir() if path.name.isdigit() and (path / "run.json").is_file()]
    found = [read_run(f"{run.name}/{path.name}", path) for path in sorted(folders, key=lambda path: int(path.name))]
    return [job for job in found if job.trained]


def job_run(name: str, folder: Path, state: str, error: str | None) -> Run:
    """A job of a sweep: its record, with the sweep's word on how it ended; what never started has its config alone."""
    ended = state if error is None else f"{state}: {error}"
    if (folder / "run.json").is_file():
        run = read_run(name, folder)
        return run if state == "done" else replace(run, record={**run.record, "status": ended})
    return Run(name, folder, {"status": ended, "steps": None, "config": job_config(folder / "job.yaml")})


def job_config(path: Path) -> dict[str, Any]:
    """The config a sweep wrote for a job, without what belongs to Hydra; empty when there is none."""
    if not path.is_file():
        return {}
    config = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path), resolve=True))
    return {key: value for key, value in config.items() if key not in ("hydra", "defaults")}


def last_values(path: Path) -> dict[str, float]:
    """The last value of every column of a metrics table, epochs and steps left out; empty without a table."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        cells = [(name, cell) for row in csv.DictReader(file) for name, cell in row.items() if name and cell]
    return {name: float(cell) for name, cell in cells if name not in ("epoch", "step")}


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as dotted names with their values."""
    if not isinstance(settings, Mapping):
        yield prefix, settings
        return
    for key, value in settings.items():
        yield from flat(value, f"{prefix}.{key}" if prefix else str(key))


def changed_settings(runs: Sequence[Run]) -> dict[str, list[object]]:
    """The settings in which the runs differ, each with its value per run (None where a run has none).

    A run whose settings are not known at all differs in nothing.
    """
    settings = [run.settings for run in runs]
    known = [each for each in settings if each]
    names = dict.fromkeys(name for each in known for name in each)
    differ = [name for name in names if any(each.get(name) != known[0].get(name) for each in known)]
    return {name: [each.get(name) for each in settings] for name in differ}


def short_names(names: Sequence[str]) -> list[str]:
    """Dotted names cut to their last part where that is unambiguous."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return [short if last.count(short) == 1 else name for short, name in zip(last, names, strict=True)]


def setting_text(value: object) -> str | None:
    """A setting as a cell: text in full, a dash for none."""
    if isinstance(value, float):
        return f"{value:g}"
    return None if value is None else str(value) if value != "" else "“”"


def training_table(runs: Sequence[Run]) -> Table:
    """One row per training run: what was changed, how far it came, its final metrics, state, time and memory."""
    changed = changed_settings(runs)
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    columns = [Column("Run"), *map(Column, short_names(list(changed))), Column("Steps")]
    columns += [Column(name, three_figures(run.metrics.get(name, 0.0) for run in runs)) for name in metrics]
    columns += [Column("State"), Column("Minutes", 1), Column("Memory [GB]", 1)]
    rows: list[list[Cell]] = []
    for index, run in enumerate(runs):
        seconds = run.record.get("seconds")
        values: list[Cell] = [setting_text(each[index]) for each in changed.values()]
        outcome: list[Cell] = [run.metrics.get(name) for name in metrics]
        end: list[Cell] = [run.state, None if seconds is None else seconds / 60, run.memory_gb]
        rows.append([run.name, *values, run.record.get("steps"), *outcome, *end])
    return Table("Training runs", columns, rows, ["Metrics are the last ones logged."])


def ablation_table(runs: Sequence[Run], comparison: Comparison, columns: Sequence[str]) -> Table:
    """The settings in which runs differ, and what each changes against the first, scene by scene."""
    changed, first = changed_settings(runs), runs[0].name
    changes = comparison.changes(first, columns)
    differences = {row[0]: row[1:] for row in changes.rows} | {first: [None] * len(columns)}
    rows: list[list[Cell]] = []
    for index, run in enumerate(runs):
        settings: list[Cell] = [setting_text(each[index]) for each in changed.values()]
        rows.append([run.name, *settings, *differences[run.name]])
    shown = [Column("Run"), *map(Column, short_names(list(changed))), *changes.columns[1:]]
    return Table(f"Ablation: changes against {first}", shown, rows, changes.notes)


def _is_place(name: str) -> bool:
    return name in PLACES or name.endswith(("output_dir", ".folder", ".dirpath", ".save_dir", ".log_dir"))
