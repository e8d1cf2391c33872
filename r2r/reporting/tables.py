"""A table of scores with intervals, for the terminal, CSV, Markdown, LaTeX and HTML."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.table import Table as RichTable
from rich.text import Text

from r2r.metrics import Estimate
from r2r.reporting.latex import latex_table

Cell = str | int | float | Estimate | None  # None: does not apply
Better = Literal["lower", "higher", ""]
_ARROWS = {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑", "": ""}
_DIRECTIONS = {"lower": -1, "higher": 1, "": 0}
_VERDICTS = {1: " ✓", -1: " ✗", 0: " ○"}


@dataclass(frozen=True)
class Column:
    """One column: its title, the digits after the point, and which direction is better ("" for neither).

    A column of `changes` shows signs, and behind each interval whether it lies on the better side of zero (✓), on the
    worse one (✗), or on both (○).
    """

    title: str
    digits: int = 3
    better: Better = ""
    changes: bool = False

    @property
    def heading(self) -> str:
        """Title with an arrow towards the better side."""
        return self.title + _ARROWS[self.better]

    def show(self, cell: Cell) -> str:
        """The cell as text: "value [low, high]" for an estimate, a dash where it does not apply."""
        return " ".join(filter(None, self.parts(cell)))

    def parts(self, cell: Cell) -> tuple[str, str]:
        """`show` in two: the value, and the interval of an estimate ("" for others)."""
        if not isinstance(cell, Estimate):
            return "–" if cell is None else self._number(cell) if isinstance(cell, float) else str(cell), ""
        verdict = _VERDICTS[cell.sign * _DIRECTIONS[self.better]] if self.changes and self.better else ""
        return self._number(cell.value), f"[{self._number(cell.low)}, {self._number(cell.high)}]{verdict}"

    def _number(self, value: float) -> str:
        return f"{value:{'+' if self.changes else ''}.{self.digits}f}"


def three_figures(values: Iterable[float]) -> int:
    """Digits after the point that show the middle one of `values` (by size) with three figures."""
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    return max(0, 2 - math.floor(math.log10(sizes[len(sizes) // 2]))) if sizes else 3


def signed(change: Estimate | None) -> str:
    """A change by itself, with its sign and its interval, in three figures; a dash for None."""
    return Column("", three_figures([change.value] if change else []), changes=True).show(change)


@dataclass(frozen=True)
class Span:
    """Where an estimate lies within its column, in percent of the column's range."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Shown:
    """A cell in two parts, so that the interval can be set smaller or on a line of its own; `best` of its column."""

    value: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first column names the row, `notes` are printed below.

    `references` are the numbers of rows that do not compete: the input itself, or the best a score can be.
    """

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    references: frozenset[int] = frozenset()

    def texts(self) -> list[list[str]]:
        """Every cell as text."""
        return [[column.show(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def best(self, index: int) -> set[int]:
        """Rows that hold the best value of column `index`, ties included.

        None where no direction is better, in a column of changes, and where fewer than two rows compete.
        """
        column, direction = self.columns[index], _DIRECTIONS[self.columns[index].better]
        competing = [(number, row[index]) for number, row in enumerate(self.rows) if number not in self.references]
        values = {number: direction * value for number, cell in competing if (value := _number(cell)) is not None}
        if not direction or column.changes or len(values) < 2:
            return set()
        return {number for number, value in values.items() if value == max(values.values())}

    def shown(self) -> list[list[Shown]]:
        """Every cell with what is set apart in it."""
        best = [self.best(index) for index in range(len(self.columns))]
        return [
            [Shown(*self.columns[index].parts(cell), number in best[index]) for index, cell in enumerate(row)]
            for number, row in enumerate(self.rows)
        ]

    def to_rich(self) -> RichTable:
        """For the terminal: intervals on a second line, so that the table stays narrow; best values bold."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold", caption_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(
                Text(column.heading), justify="right" if index else "left", vertical="middle", overflow="fold"
            )
        for row in self.shown():
            table.add_row(*(_rich(cell) for cell in row))
        table.caption = Text("\n".join(self.notes))
        return table

    def to_markdown(self) -> str:
        """For a README or a commit message; best values bold."""
        lines = [[column.heading for column in self.columns]]
        lines.append(["---"] + ["---:"] * (len(self.columns) - 1))
        lines += [
            [f"{f'**{cell.value}**' if cell.best else cell.value} {cell.interval}".rstrip() for cell in row]
            for row in self.shown()
        ]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return body + "".join(f"\n\n{note}" for note in self.notes) + "\n"

    def to_latex(self) -> str:
        """For a paper: booktabs rules, best values bold, intervals small, notes below."""
        rows = [[(cell.value, cell.interval, cell.best) for cell in row] for row in self.shown()]
        return latex_table(self.title, [column.heading for column in self.columns], rows, self.notes)

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
        """Position of each finite estimate of column `index` between the column's lowest and highest bound."""
        cells = [cell if isinstance(cell := row[index], Estimate) and _finite(cell) else None for row in self.rows]
        estimates = [cell for cell in cells if cell is not None]
        low = min((estimate.low for estimate in estimates), default=0.0)
        scale = 100 / (max((estimate.high for estimate in estimates), default=0.0) - low or 1.0)
        return [_span(cell, low, scale) if cell is not None else None for cell in cells]


def write_rows(path: Path, rows: list[dict[str, str | float]]) -> None:
    """Per-image scores as CSV: one dict per image, all with the same keys."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.low, estimate.value, estimate.high)))


def _number(cell: Cell) -> float | None:
    """What of a cell can be compared; None for text, empty cells and undefined values."""
    value = cell.value if isinstance(cell, Estimate) else cell
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def _rich(cell: Shown) -> Text:
    interval = cell.interval.replace(", ", ",\N{NO-BREAK SPACE}")
    return Text.assemble((cell.value, "bold" if cell.best else ""), "\n" * bool(interval), interval)


def _span(estimate: Estimate, low: float, scale: float) -> Span:
    return Span(*((bound - low) * scale for bound in (estimate.low, estimate.value, estimate.high)))


def _values(cell: Cell, expand: bool) -> list[str | int | float]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return ["" if cell is None else cell] + ["", ""] * expand
