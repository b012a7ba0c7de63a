# Each target installs what it needs into .venv. Set PYTHON to choose the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo tensorboard test check bench format clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vidclf needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/vidclf demo

# make tensorboard ARGS="--logdir DIR"; without it: what is under runs/ and multirun/.
LOGS := --logdir_spec runs:runs,multirun:multirun
tensorboard: install
	$(BIN)/tensorboard $(if $(findstring --logdir,$(ARGS)),,$(LOGS)) $(ARGS)

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

# make bench ARGS="size=10% only=extraction,backbone"; experiments/benchmark/README.md says what is measured.
bench: .venv/installed-bench
	$(BIN)/python -m experiments.benchmark.bench $(ARGS)

.venv/installed-bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache
