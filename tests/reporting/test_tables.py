"""Tables say the same in the terminal, CSV, Markdown and LaTeX, and know their best values."""

import csv
import io
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from r2r.metrics import Estimate
from r2r.reporting import Column, Table, write_rows
from r2r.reporting.latex import latex_text
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
    assert Column("x", 1).parts("folder [1, 2]") == ("folder [1, 2]", "")


@pytest.mark.parametrize(
    ("better", "bounds", "shown"),
    [
        ("higher", (0.1, 0.3), "+0.20 [+0.10, +0.30] ✓"),
        ("lower", (0.1, 0.3), "+0.20 [+0.10, +0.30] ✗"),
        ("lower", (-0.3, 0.3), "+0.20 [-0.30, +0.30] ○"),
        ("", (0.1, 0.3), "+0.20 [+0.10, +0.30]"),
    ],
)
def test_changes_say_whether_they_are_for_the_better(better: str, bounds: tuple[float, float], shown: str) -> None:
    assert Column("SSIM", 2, better, changes=True).show(Estimate(0.2, *bounds, 12)) == shown


def test_best_values() -> None:
    columns = [Column("Images"), Column("KID", 1, "lower"), Column("SSIM", 1, "higher"), Column("n")]
    rows = [
        ["input", Estimate(9.0, 8.0, 9.0, 3), 1.0, 5],
        ["a", Estimate(2.0, 1.0, 3.0, 3), 0.5, 7],
        ["b", Estimate(1.0, 0.0, 3.0, 3), 0.5, 8],
        ["c", Estimate(math.nan, 0.0, 3.0, 3), None, 9],
        ["floor", Estimate(0.0, 0.0, 0.0, 3), None, 10],
    ]
    table = Table("t", columns, rows, references=frozenset({0, 4}))
    assert [table.best(index) for index in range(4)] == [set(), {2}, {1, 2}, set()]
    assert Table("t", columns, rows).best(1) == {4}
    assert Table("one competes", columns, rows[:2], references=frozenset({0})).best(1) == set()
    assert Table("t", [Column("x"), Column("KID", 1, "lower", changes=True)], [["a", 1.0], ["b", 2.0]]).best(1) == set()
    assert "| b | **1.0** [0.0, 3.0] | **0.5** | 8 |" in table.to_markdown()
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(table.to_rich())
    bold = re.findall(r"\x1b\[1m *([0-9.]+) *\x1b\[0m", console.export_text(styles=True))
    assert bold == ["0.5", "1.0", "0.5"]


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
    assert lines[3] == "| r2r | **0.200** [0.100, 0.300] | 0.81 [0.80, 0.83] | 58 |"
    assert lines[-1] == "KID: backbone r2r-features."


def test_latex_is_complete_and_escaped(table: Table) -> None:
    table = Table("50 % of {all}", table.columns, [*table.rows, ["my_run", Estimate(-0.1, -0.2, 0.1, 3), None, None]])
    text = table.to_latex()
    assert r"\caption{50 \% of \{all\}}" in text
    assert r"Images & KID~$\downarrow$ & SSIM~$\uparrow$ & Evals \\" in text
    assert r"r2r & 0.200 {\scriptsize [0.100, 0.300]} & 0.81 {\scriptsize [0.80, 0.83]} & 58 \\" in text
    assert r"my\_run & \textbf{$-$0.100} {\scriptsize [$-$0.200, 0.100]} & -- & -- \\" in text
    opened, closed = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert opened == closed[::-1] == ["table", "tabular"]
    assert {line.count(" & ") for line in text.splitlines() if line.endswith(r" \\")} == {3}
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_latex_reads_no_character_as_a_command() -> None:
    assert latex_text(r"a\b_c^d~e&f%g$h#i") == (
        r"a\textbackslash{}b\_c\textasciicircum{}d\textasciitilde{}e\&f\%g\$h\#i"
    )


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


def test_infinite_scores_have_no_span() -> None:
    rows = [["input", Estimate(math.inf, math.inf, math.inf, 3)], ["a", Estimate(20.0, 18.0, 22.0, 3)]]
    table = Table("PSNR", [Column("Images"), Column("PSNR", 1, "higher")], rows)
    assert table.spans(1)[0] is None
    assert table.spans(1)[1] is not None and table.spans(1)[1].high == pytest.approx(100)
    assert table.texts()[0][1] == "inf [inf, inf]"


def test_rows_per_image(tmp_path: Path) -> None:
    write_rows(tmp_path / "per_image.csv", [{"key": "a", "ssim": 0.5}, {"key": "b, c", "ssim": 0.25}])
    with (tmp_path / "per_image.csv").open(encoding="utf-8") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["a", "b, c"]


def test_three_figures() -> None:
    assert [three_figures([value]) for value in (190.6, -1.5, 0.041, 0.00012, 0.0)] == [0, 2, 4, 6, 3]
