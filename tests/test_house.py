"""The house rules that no tool enforces: lean imports, floors, locks, sizes, nothing about machines in the files."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SCRIPTS = PROJECT["scripts"]
MODULES = sorted(path for root in ("r2r", "hydra_plugins") for path in (ROOT / root).rglob("*.py"))
# Distributions whose import name differs from their own.
DISTRIBUTIONS = {
    "cleanfid": "clean-fid",
    "huggingface_hub": "huggingface-hub",
    "hydra": "hydra-core",
    "PIL": "pillow",
    "torch_fidelity": "torch-fidelity",
    "wandb_workspaces": "wandb-workspaces",
    "yaml": "pyyaml",
}

FLOORS = {
    "torch": "2.11",
    "lightning": "2.6.6",
    "diffusers": "0.40",
    "transformers": "5.6",
    "hydra-core": "1.3.5",
    "torchmetrics": "1.8",
}


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def locked() -> dict[str, Version]:
    pins = re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return {name: Version(version) for name, version in pins}


def tracked_text() -> dict[str, str]:
    """Every text file of the project, by its path; the walk stands in for git, which an unpacked archive lacks."""
    roots = ["r2r", "hydra_plugins", "conf", "tests", "notebooks", "experiments", ".ci"]
    paths = [path for root in roots for path in (ROOT / root).rglob("*")] + list(ROOT.glob("*"))
    paths += [ROOT / ".gitignore", ROOT / ".pre-commit-config.yaml"]
    kinds = {"", ".py", ".yaml", ".toml", ".md", ".lock", ".json", ".html", ".ipynb", ".txt", ".svg"}
    files = [path for path in paths if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files if path != Path(__file__)}


def python(*arguments: str) -> str:
    """Standard output of a fresh interpreter in the checkout."""
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_is_lean() -> None:
    heavy = "{'torch', 'lightning', 'diffusers', 'transformers', 'wandb', 'mitsuba'}"
    assert python("-c", f"import r2r, sys; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


@pytest.mark.parametrize("target", SCRIPTS.values(), ids=SCRIPTS)
def test_help_needs_no_torch(target: str) -> None:
    module = target.split(":")[0]
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('torch imported:', 'torch' in sys.modules))\n"
        f"sys.argv = [{module!r}, '--help']\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    shown = python("-c", code)
    assert "torch imported: False" in shown
    assert len(shown.splitlines()) > 3, "help is empty"


@pytest.mark.parametrize("target", SCRIPTS.values(), ids=SCRIPTS)
def test_console_script_can_be_called_without_arguments(target: str) -> None:
    module, function = target.split(":")
    main = getattr(importlib.import_module(module), function)
    bound = inspect.signature(main, follow_wrapped=False).bind()  # a TypeError when an argument is required
    assert not bound.args and not bound.kwargs


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_floor_is_stated_and_met(name: str, floor: str) -> None:
    specifier = requirements(PROJECT["dependencies"])[name].specifier
    stated = [Version(part.version) for part in specifier if part.operator == ">="]
    assert stated == [max(stated[0], Version(floor))]
    assert specifier.contains(locked()[name])


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3", "2.6.5"])
def test_unsafe_lightning_is_refused(version: str) -> None:
    assert not requirements(PROJECT["dependencies"])["lightning"].specifier.contains(version)


def test_lock_covers_every_requirement_with_hashes() -> None:
    wanted = requirements(PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines])
    pins = locked()
    assert not {name for name, wish in wanted.items() if not wish.specifier.contains(pins[name])}
    for lock in ["requirements.lock", "requirements-build.lock"]:
        entries = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text().split("\n", 2)[2])
        assert all("--hash=sha256:" in entry for entry in entries), lock


def test_every_import_is_declared() -> None:
    optional = [line for name, lines in EXTRAS.items() if name != "dev" for line in lines]
    declared = {name.lower() for name in requirements(PROJECT["dependencies"] + optional)}
    undeclared = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"r2r", "hydra_plugins"}:
                if DISTRIBUTIONS.get(top, top).lower() not in declared:
                    undeclared[top] = path.name
    assert not undeclared


def test_no_function_over_sixty_lines() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long[f"{path.name}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert not long


def test_files_stay_readable() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 350}


def test_experiments_are_short_diffs_headed_by_a_question() -> None:
    experiments = sorted((ROOT / "conf").rglob("experiment/*.yaml"))
    assert experiments
    for path in experiments:
        lines = path.read_text().splitlines()
        assert lines[0] == "# @package _global_", path.name
        assert lines[1].startswith("# ") and "?" in "".join(lines[1:6]), f"{path.name} asks no question"
        assert len([line for line in lines if line and not line.startswith("#")]) <= 25, path.name


def test_files_name_no_machine_and_no_registry() -> None:
    machine = r"(?<![\w.:/-])/(?:home|root|work|tmp|opt|mnt|Users)/\w"
    registry = r"pypi\.org|pythonhosted|(?<!no-emit-)index-url|find-links|download\.pytorch\.org|registry\.npmjs"
    pattern = re.compile(f"{machine}|{registry}")
    found = {name: match.group() for name, text in tracked_text().items() if (match := pattern.search(text))}
    assert not found


def test_files_leave_nothing_for_later() -> None:
    pattern = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    assert not [name for name, text in tracked_text().items() if pattern.search(text) and not name.endswith(".lock")]


def test_what_the_readme_lists_as_features_is_given_in_tests() -> None:
    """Every option of the table, by its name, or where it is a choice of a group, as it stands there."""
    table = (ROOT / "README.md").read_text().partition("features of finetuning")[2].partition("\n\n")[0]
    spans = [span for row in table.splitlines()[2:] for span in re.findall(r"`([^`]+)`", row.split("|")[1])]
    options = [span.strip("'").split("=")[0] for span in " ".join(spans).split() if "=" in span]
    assert len(options) > 15
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    assert not [option for option in options if option.lstrip("+") not in tests]
