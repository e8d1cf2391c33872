"""Tables say the same in the terminal, CSV and Markdown."""

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from r2r.metrics import Estimate
from r2r.reporting import Column, Table, write_rows
from r2r.reporting.tables import three_figures


@pytest.fixture
def table() -> Table:
    columns = [Column("Images"), Column("KID", 3, "lower"), Column("SSIM", 2, "higher"), Column("Evals")]
    rows = [
        ["input | render", Estimate(0.41234, 0.3, 0.5, 12), None, None],
        ["r2r", Estimate(0.2, 0.1, 0.3, 12), Estimate(0.815, 0.8, 0.83, 12), 58],
    ]
    return Table("Held-out scenes", columns, rows, ["KID: backbone r2r-features."])


def test_cells_as_text(table: Table) -> None:
    assert table.texts() == [
        ["input | render", "0.412 [0.300, 0.500]", "–", "–"],
        ["r2r", "0.200 [0.100, 0.300]", "0.81 [0.80, 0.83]", "58"],
    ]
    assert Column("x", 1).show(0.25) == "0.2"


def test_terminal_shows_all_at_ninety_columns(table: Table) -> None:
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(table.to_rich())
    text = console.export_text()
    for part in ("Held-out scenes", "KID\xa0↓", "SSIM\xa0↑", "0.412", "0.500]", "58", "backbone r2r-features"):
        assert part in text
    assert "…" not in text


def test_markdown_escapes_and_aligns(table: Table) -> None:
    lines = table.to_markdown().splitlines()
    assert lines[0] == "| Images | KID\xa0↓ | SSIM\xa0↑ | Evals |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2] == "| input \\| render | 0.412 [0.300, 0.500] | – | – |"
    assert lines[-1] == "KID: backbone r2r-features."


def test_csv_keeps_full_precision(table: Table, tmp_path: Path) -> None:
    table.write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["KID"] == "0.41234"
    assert rows[0]["SSIM high"] == ""
    assert float(rows[1]["SSIM low"]) == 0.8
    assert rows[1]["Evals"] == "58"


def test_spans_fill_the_column(table: Table) -> None:
    spans = table.spans(1)
    assert spans[0] is not None and spans[1] is not None
    assert spans[0].high == pytest.approx(100)
    assert spans[1].low == pytest.approx(0)
    assert table.spans(2)[0] is None
    assert table.spans(3) == [None, None]


def test_rows_per_image(tmp_path: Path) -> None:
    write_rows(tmp_path / "per_image.csv", [{"key": "a", "ssim": 0.5}, {"key": "b, c", "ssim": 0.25}])
    with (tmp_path / "per_image.csv").open(encoding="utf-8") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["a", "b, c"]


def test_three_figures() -> None:
    assert [three_figures([value]) for value in (190.6, -1.5, 0.041, 0.00012, 0.0)] == [0, 2, 4, 6, 3]
