# make demo   sets everything up and runs the main job (DEMO_WAV=my.wav sends your own recording)
# make test   sets everything up and runs every check and test
# make venv   only sets everything up, in .venv
# make lint   style and types;  make format mends the style;  make clean removes .venv and caches
#
# All paths are relative, so that a folder with a space in its name is fine, and tools run as
# `python -m`: the first line of an installed script cannot hold a long path or one with spaces.

SHELL := /bin/sh
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format venv clean

demo: $(STAMP)
	@$(PY) -m semaphone demo $(if $(DEMO_WAV),--input "$(DEMO_WAV)")

test: lint
	@$(PY) -m pytest

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Semaphone needs Python 3.10 or newer; name one with: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (once, some minutes)"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
