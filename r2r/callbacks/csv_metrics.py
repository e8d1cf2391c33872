"""Metrics as one CSV file that survives a resume.

Lightning's own `CSVLogger` deletes the file of an earlier run in the same folder; this one continues it.
"""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger


class CsvMetrics(Logger):
    """Appends one row for each logged step to `<folder>/metrics.csv`; new columns are added as they appear."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._rows: list[dict[str, str]] = []
        self._columns: list[str] = []  # of the file, once it was read

    @property
    def name(self) -> str:
        """A fixed name; the folder is what tells runs apart."""
        return "csv"

    @property
    def version(self) -> str:
        """Not used: one file for each output folder."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the resolved config lies beside the metrics."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep one row until `save`."""
        self._rows.append({"step": str(step), **{key: f"{value:.8g}" for key, value in metrics.items()}})
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Append the rows kept; rewrite the file when there is a new column."""
        if not self._rows:
            return
        given, grown = {key for row in self._rows for key in row}, False
        if not given <= set(self._columns):  # else the file, which grows with the run, is not read
            old, self._columns = self._read()
            if grown := not self.path.is_file() or not given <= set(self._columns):
                self._rows = old + self._rows
                self._columns += sorted(given - set(self._columns))
                self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w" if grown else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if grown:
                writer.writeheader()
            writer.writerows(self._rows)
        self._rows.clear()

    def _read(self) -> tuple[list[dict[str, str]], list[str]]:
        if not self.path.is_file():
            return [], ["step"]
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader), list(reader.fieldnames or ["step"])
