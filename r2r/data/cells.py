"""Where the pictures of a sweep lie: `strength_<s>/tac_<r>/<relative name>.png` below one folder."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from r2r.data.folders import find_jobs
from r2r.data.pictures import pictures
from r2r.errors import DataError, InputError

Cell = tuple[float, float]  # strength, TAC ratio
_PLACE = re.compile(r"strength_([\d.e-]+)/tac_([\d.e-]+)")


class CellFolders:
    """The folders of a grid of strengths and TAC ratios."""

    def __init__(self, root: Path, strengths: Sequence[float], tac_ratios: Sequence[float]) -> None:
        self.root, self.strengths, self.tac_ratios = root, sorted(set(strengths)), sorted(set(tac_ratios))

    @classmethod
    def read(cls, root: Path) -> "CellFolders":
        """The grid that lies in a folder. Raises InputError when there is none."""
        places = (_PLACE.fullmatch(path.relative_to(root).as_posix()) for path in root.glob("strength_*/tac_*"))
        cells = [(float(place[1]), float(place[2])) for place in places if place]
        if not cells:
            raise InputError(f"{root} holds no sweep: no folders strength_*/tac_*; give the output folder of r2r.sweep")
        return cls(root, [strength for strength, _ in cells], [ratio for _, ratio in cells])

    @property
    def cells(self) -> list[Cell]:
        """Every cell, row by row of strengths."""
        return list(product(self.strengths, self.tac_ratios))

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell's pictures."""
        return self.root / f"strength_{cell[0]:g}" / f"tac_{cell[1]:g}"

    def jobs(self, source: Path) -> dict[Path, Path]:
        """Each image below `source` with its name in every cell.

        Raises InputError for no images, an output inside the input, or two inputs of one name.
        """
        return {path: target.relative_to(self.root) for path, target in find_jobs(source, self.root).items()}

    def complete(self, name: Path) -> bool:
        """Whether the picture of that name is in every cell."""
        return all((self.folder(cell) / name).is_file() for cell in self.cells)

    def names(self) -> list[str]:
        """Names, without suffix, of the pictures that every cell has. Raises DataError when there are none."""
        found = [set(pictures(self.folder(cell))) for cell in self.cells]
        if not (common := sorted(set.intersection(*found))):
            raise DataError(
                f"{self.root}: no picture is in all {len(found)} cells; go on with the sweep by resume={self.root}"
            )
        return common

    def path(self, cell: Cell, name: str) -> Path:
        """The picture of a name (without suffix) in a cell."""
        return self.folder(cell) / f"{name}.png"
