"""From scores and pictures to tables, grids and pages people can read."""

from r2r.reporting.comparison import Comparison
from r2r.reporting.grids import picture_grid, write_grid
from r2r.reporting.pages import Figure, Finding, Link, Page, Scene, write_page
from r2r.reporting.scenes import Outputs, Scenes
from r2r.reporting.tables import Cell, Column, Table, write_rows

__all__ = [
    "Cell",
    "Column",
    "Comparison",
    "Figure",
    "Finding",
    "Link",
    "Outputs",
    "Page",
    "Scene",
    "Scenes",
    "Table",
    "picture_grid",
    "write_grid",
    "write_page",
    "write_rows",
]
