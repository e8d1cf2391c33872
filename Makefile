# Every target works from a fresh clone, without activating anything, and without a network once installed.
# Paths stay relative and tools run as `python -m`, so that the checkout may lie in a folder with a space.

PYTHON ?= python3# the interpreter that builds .venv
WORKERS ?= 2# processes that share the tests
UV ?= uv# resolves the locks; needed by `make lock` alone

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --upgrade \
	--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-restore demo-pose test check fmt lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

setup: $(STAMP) ## install r2r and its tools into .venv (the only target that needs a network)

demo: $(STAMP) ## translate renders into photos, measure, write a page
	$(PY) -m r2r.demo

demo-restore: $(STAMP) ## restore garments from photos of persons, measure, write a page
	$(PY) -m r2r.evaluate experiment=restore_demo output=logs/demo_restore

demo-pose: $(STAMP) ## move persons into other poses, measure, write a page
	$(PY) -m r2r.evaluate experiment=pose_demo output=logs/demo_pose

test: $(STAMP) ## all tests but slow and gpu ones
	$(PYTEST)

check: $(STAMP) ## formatting, lint, types, layers, fast tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(PYTEST) -m "not slow and not gpu and not e2e"

fmt: $(STAMP) ## format and fix what can be fixed by itself
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

lock: ## resolve requirements*.lock anew from pyproject.toml
	$(LOCK) --all-extras pyproject.toml -o requirements.lock
	$(LOCK) --group build -o requirements-build.lock

$(STAMP): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "r2r needs Python 3.11 or newer, and '$(PYTHON)' is not: make setup PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --require-hashes -r requirements-build.lock
	$(PY) -m pip install --require-hashes --no-build-isolation --use-pep517 -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
