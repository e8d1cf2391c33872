"""A table of scores with intervals, for the terminal, CSV, Markdown and HTML."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.table import Table as RichTable
from rich.text import Text

from r2r.metrics import Estimate

Cell = str | int | float | Estimate | None  # None: does not apply
_ARROWS = {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑", "": ""}


@dataclass(frozen=True)
class Column:
    """One column: its title, the digits after the point, and which direction is better ("" for neither)."""

    title: str
    digits: int = 3
    better: Literal["lower", "higher", ""] = ""

    @property
    def heading(self) -> str:
        """Title with an arrow towards the better side."""
        return self.title + _ARROWS[self.better]

    def show(self, cell: Cell) -> str:
        """The cell as text: "value [low, high]" for an estimate, a dash where it does not apply."""
        if cell is None:
            return "–"
        if isinstance(cell, Estimate):
            return f"{cell.value:.{self.digits}f} [{cell.low:.{self.digits}f}, {cell.high:.{self.digits}f}]"
        return f"{cell:.{self.digits}f}" if isinstance(cell, float) else str(cell)


def three_figures(values: Iterable[float]) -> int:
    """Digits after the point that show the middle one of `values` (by size) with three figures."""
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    return max(0, 2 - math.floor(math.log10(sizes[len(sizes) // 2]))) if sizes else 3


@dataclass(frozen=True)
class Span:
    """Where an estimate lies within its column, in percent of the column's range."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first column names the row, `notes` are printed below."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    def texts(self) -> list[list[str]]:
        """Every cell as text."""
        return [[column.show(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def to_rich(self) -> RichTable:
        """For the terminal: intervals on a second line, so that the table stays narrow."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", caption_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(
                Text(column.heading), justify="right" if index else "left", vertical="middle", overflow="fold"
            )
        for row in self.texts():
            table.add_row(*(Text(cell.replace(" [", "\n[").replace(", ", ",\N{NO-BREAK SPACE}")) for cell in row))
        table.caption = Text("\n".join(self.notes))
        return table

    def to_markdown(self) -> str:
        """For a README or a commit message."""
        lines = [[column.heading for column in self.columns]]
        lines.append(["---"] + ["---:"] * (len(self.columns) - 1))
        lines += self.texts()
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return body + "".join(f"\n\n{note}" for note in self.notes) + "\n"

    def write_csv(self, path: Path) -> None:
        """Full precision; an estimate takes three columns: value, low, high."""
        wide = [any(isinstance(row[i], Estimate) for row in self.rows) for i in range(len(self.columns))]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                name
                for column, expand in zip(self.columns, wide, strict=True)
                for name in (
                    [column.title, f"{column.title} low", f"{column.title} high"] if expand else [column.title]
                )
            )
            for row in self.rows:
                writer.writerow(
                    value for cell, expand in zip(row, wide, strict=True) for value in _values(cell, expand)
                )

    def spans(self, index: int) -> list[Span | None]:
        """Position of each estimate of column `index` between the column's lowest and highest bound."""
        cells = [row[index] for row in self.rows]
        estimates = [cell for cell in cells if isinstance(cell, Estimate)]
        low = min((estimate.low for estimate in estimates), default=0.0)
        scale = 100 / (max((estimate.high for estimate in estimates), default=0.0) - low or 1.0)
        return [_span(cell, low, scale) if isinstance(cell, Estimate) else None for cell in cells]


def write_rows(path: Path, rows: list[dict[str, str | float]]) -> None:
    """Per-image scores as CSV: one dict per image, all with the same keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _span(estimate: Estimate, low: float, scale: float) -> Span:
    return Span(*((bound - low) * scale for bound in (estimate.low, estimate.value, estimate.high)))


def _values(cell: Cell, expand: bool) -> list[str | int | float]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return ["" if cell is None else cell] + ["", ""] * expand
