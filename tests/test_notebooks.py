"""Notebooks: stripped, portable, importing what is there; executed by nbmake in the slow suite."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w.:/-])(?:/(?:home|root|work|tmp|opt|mnt|data|Users|usr|var)/\w|[A-Z]:\\)")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def imported(source: str) -> list[tuple[str, str]]:
    """Every `from r2r... import name` as module and name."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    found = [(node.module or "", alias.name) for node in nodes for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] == "r2r"]


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 3


@every_notebook
def test_nothing_of_a_run_is_kept(path: Path) -> None:
    """No outputs, no counts, no times, no machine's kernel: a diff shows what was written by hand."""
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and list(notebook.metadata.language_info) == [
        "name"
    ]
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id


@every_notebook
def test_it_opens_with_a_title_and_stays_readable(path: Path) -> None:
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S", first.source)
    assert all(cell.source.strip() for cell in notebook.cells)
    assert not [cell.id for cell in notebook.cells if len(cell.source.splitlines()) > 30]


@every_notebook
def test_it_names_no_place_of_one_machine(path: Path) -> None:
    assert ABSOLUTE.search(path.read_text(encoding="utf-8")) is None


@every_notebook
def test_what_it_imports_is_there(path: Path) -> None:
    names = [pair for source in code(nbformat.read(path, nbformat.NO_CONVERT)) for pair in imported(source)]
    assert names
    assert not [(module, name) for module, name in names if not hasattr(importlib.import_module(module), name)]


@pytest.mark.slow
@every_notebook
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    """In a fresh kernel, without a network; it writes nothing beside itself."""
    before = {each.name for each in path.parent.iterdir()}
    places = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **places, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    plugins = ["-p", "no:xdist", "-p", "no:cacheprovider"]
    call = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=600", *plugins, "-o", "addopts=", str(path)]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    assert {each.name for each in path.parent.iterdir()} == before
