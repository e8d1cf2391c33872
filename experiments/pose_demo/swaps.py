"""Clothes of one person, face of another: one model, no training; rows as a picture grid.

make demo-pose
python experiments/pose_demo/swaps.py --scenes logs/demo_pose/scenes --output DIR

Scenes are those that `r2r.evaluate` writes for experiments of `kind: pose`: each person is drawn in the pose of its
target, first as they are, then in the clothes of another one, then with the face and the hair of that one. DIR gets the
pictures in three folders, and `swaps.png`.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image

from r2r.cli import compose
from r2r.reporting.grids import write_grid
from r2r.translate import translate

ROWS = {
    "A, moved": None,
    "in the clothes of B": "[upper,lower,full,shoes,accessories]",
    "with face and hair of B": "[face,hair]",
}


def main() -> None:
    """Choose scenes and donors, draw the three rows, put them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--names", nargs="*", help="scenes to show; some, evenly spaced, unless given")
    options = parser.parse_args()
    found = sorted(path.stem for path in (options.scenes / "input").glob("*.png"))
    names = options.names or found[:: max(1, len(found) // 5)][:5]
    donors = {name: found[(found.index(name) + len(found) // 2) % len(found)] for name in names}
    chosen = options.output / "chosen"
    for folder, source in (("input", "input"), ("poses", "poses"), ("parsing", "parsing"), ("target", "target")):
        _copy(options.scenes / source, chosen / folder, {name: name for name in names})
    for folder in ("input", "parsing"):
        _copy(options.scenes / folder, chosen / f"donor_{folder}", donors)
    columns = {title: _pictures(chosen / folder, names) for title, folder in (("A", "input"), ("B", "donor_input"))}
    for title, lent in ROWS.items():
        place = options.output / title.replace(" ", "_").replace(",", "")
        _draw(options.model, chosen, place, lent)
        columns[title] = _pictures(place, names)
    columns["A in this pose, true photo"] = _pictures(chosen / "target", names)
    write_grid(options.output / "swaps.png", columns, names, cell=192)


def _draw(model: str, chosen: Path, place: Path, lent: str | None) -> None:
    given = ["task=pose_transfer", f"model={model}", f"source={chosen / 'input'}", f"poses={chosen / 'poses'}"]
    given += ["pairing=name", f"task.parsing={chosen / 'parsing'}", f"output={place}", "device=cpu"]
    if lent is not None:
        given += [f"task.donors={chosen / 'donor_input'}", f"task.donor_parsing={chosen / 'donor_parsing'}"]
        given += [f"task.lent={lent}"]
    translate(compose("translate", given))


def _copy(source: Path, target: Path, names: dict[str, str]) -> None:
    """Files of `source` under other names: of each entry the value becomes the key."""
    target.mkdir(parents=True, exist_ok=True)
    for name, original in names.items():
        file = next(source.glob(f"{original}.*"))
        shutil.copyfile(file, target / f"{name}{file.suffix}")


def _pictures(folder: Path, names: list[str]) -> list[Image.Image]:
    return [Image.open(folder / f"{name}.png") for name in names]


if __name__ == "__main__":
    main()
