"""Tables as LaTeX source, to be pasted into a paper: booktabs, escaped text, best values bold, intervals small."""

import re
from collections.abc import Iterable, Sequence

_MINUS = re.compile(r"(?<![\w-])-(?=\d)")

_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "\N{NO-BREAK SPACE}": "~",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
    "○": r"$\circ$",
    "–": "--",
    "“": "``",
    "”": "''",
}


def latex_text(text: str) -> str:
    """`text` with every character LaTeX would read as a command written out."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex_table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[tuple[str, str, bool]]], notes: Sequence[str]
) -> str:
    """A `table` environment; each cell is (value, interval or "", whether it is the best of its column)."""
    lines = [
        r"% \usepackage{amssymb,booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        _row(latex_text(heading) for heading in headings),
        r"\midrule",
        *(_row(_cell(*cell) for cell in row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {latex_text(note)}}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: str, interval: str, best: bool) -> str:
    value, interval = (_MINUS.sub("$-$", latex_text(text)) for text in (value, interval))
    return (rf"\textbf{{{value}}}" if best else value) + (rf" {{\scriptsize {interval}}}" if interval else "")
