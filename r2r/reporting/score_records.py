"""Scores as they lie on disk (`scores.json`), every number with its protocol, and evaluations side by side."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r2r.errors import DataError, InputError
from r2r.metrics import Estimate
from r2r.reporting.comparison import Comparison
from r2r.reporting.tables import Cell, Column, Table

Record = Mapping[str, Any]
SCORES = "scores.json"


def score_record(comparison: Comparison) -> dict[str, Any]:
    """What `scores.json` holds: columns with protocols, rows with estimates and costs, and all paired changes.

    Each row tells its `kind`: identity (the source itself), method, or floor (the target against itself).
    """
    protocols, names = comparison.protocols(), list(comparison.methods)
    columns = {
        title: {"better": quantity.score.better, "digits": comparison.column(title).digits, "region": quantity.region}
        | {"protocol": protocols[title]}
        for title, quantity in comparison.columns.items()
    }
    rows = [_row(comparison, name) for name in names]
    floor = {title: numbers(comparison.floor(title)) for title in columns}
    rows.append({"name": comparison.floor_name, "kind": "floor", "scores": floor})
    changes = [
        {"column": title, "after": after, "before": before, **(numbers(comparison.change(title, after, before)) or {})}
        for title in columns
        for number, after in enumerate(names)
        for before in names[:number]
    ]
    return {"scenes": len(comparison.scenes.keys), "columns": columns, "rows": rows, "changes": changes}


def read_scores(folder: Path) -> Record:
    """The scores an evaluation wrote.

    Raises:
        InputError: the folder holds none.
        DataError: they cannot be read.
    """
    path = folder / SCORES
    if not path.is_file():
        raise InputError(f"no {SCORES} in {folder.absolute()}; give the output folder of python -m r2r.evaluate")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: record[name] for name in ("scenes", "columns", "rows", "changes")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; evaluate again") from error


def joint_table(title: str, records: Mapping[str, Record]) -> Table:
    """The rows of several evaluations in one table; a column holds scores of one title and one protocol.

    Where evaluations mean something else by a title, each meaning has its own numbered column, and a note says in what
    they differ. Rows are called "evaluation: method" where there is more than one evaluation.
    """
    columns: list[tuple[Column, Mapping[str, object]]] = []
    placed: dict[tuple[str, str], int] = {}
    for name, record in records.items():
        for heading, about in record["columns"].items():
            alike = [i for i, (held, kept) in enumerate(columns) if held.title == heading and kept == about["protocol"]]
            placed[name, heading] = alike[0] if alike else len(columns)
            if not alike:
                columns.append((Column(heading, about["digits"], about["better"]), about["protocol"]))
    rows: list[list[Cell]] = []
    references: set[int] = set()
    for name, record in records.items():
        for row in record["rows"]:
            cells: list[Cell] = [None] * len(columns)
            for heading, numbers in row["scores"].items():
                cells[placed[name, heading]] = estimate(numbers)
            references |= set() if row["kind"] == "method" else {len(rows)}
            rows.append([f"{name}: {row['name']}" if len(records) > 1 else row["name"], *cells])
    numbered, notes = _numbered(columns)
    return Table(title, [Column("Images"), *numbered], rows, notes, frozenset(references))


def estimate(numbers: Mapping[str, Any] | None) -> Estimate | None:
    """An estimate as `scores.json` holds it."""
    if numbers is None:
        return None
    value, low, high = (float(numbers[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, int(numbers["n"]), float(numbers["level"]))


def _numbered(columns: list[tuple[Column, Mapping[str, object]]]) -> tuple[list[Column], list[str]]:
    """Columns told apart by a number where they share a title, and what sets them apart."""
    titles, notes, shown = [column.title for column, _ in columns], list[str](), list[Column]()
    for place, (column, protocol) in enumerate(columns):
        number = titles[:place].count(column.title) + 1
        if titles.count(column.title) > 1:
            alike = [other for held, other in columns if held.title == column.title]
            apart = [key for key in protocol if any(other.get(key) != protocol[key] for other in alike)]
            settings = ", ".join(f"{key} {protocol[key]}" for key in apart)
            notes.append(f"{column.title} #{number}: {settings or 'without the settings of the others'}.")
            column = Column(f"{column.title} #{number}", column.digits, column.better)
        shown.append(column)
    return shown, notes


def _row(comparison: Comparison, name: str) -> dict[str, Any]:
    outputs = comparison.methods[name].outputs
    return {
        "name": name,
        "kind": "identity" if name == comparison.identity else "method",
        "scores": {title: numbers(comparison.estimate(title, name)) for title in comparison.columns},
        "costs": {"evals": outputs.evals, "seconds": outputs.seconds, "memory_gb": outputs.memory_gb},
        "folder": None if outputs.folder is None else str(outputs.folder),
        "settings": dict(outputs.settings),
    }


def numbers(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate for a file. JSON knows no infinity: it becomes text that `float` reads back."""
    if estimate is None:
        return None
    return {name: value if math.isfinite(value) else str(value) for name, value in vars(estimate).items()}
