# Each target installs what it needs into .venv. Set PYTHON to choose the interpreter (3.11 or newer).
# TORCH_INDEX=URL takes torch from another index first: pytorch.org names one of CPU builds, which need no CUDA.
PYTHON ?= python3
BIN := .venv/bin
# uv installs faster than pip, where it is there and reaches the same packages.
PIP := $(BIN)/pip install --disable-pip-version-check
INSTALL = { command -v uv >/dev/null && uv pip install --python $(BIN)/python $(1); } || $(PIP) $(1)

.PHONY: install demo tensorboard test check bench format clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vidclf needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: torch with CUDA, torchvision and others, 6.6 GB on disk; this takes some minutes."
	$(if $(TORCH_INDEX),$(call INSTALL,torch torchvision --index-url $(TORCH_INDEX)))
	$(call INSTALL,--editable '.[dev]')
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
bench: .venv/installed-bench .venv/installed-keras
	$(BIN)/python -m experiments.benchmark.bench $(ARGS)

.venv/installed-bench: .venv/installed
	$(call INSTALL,--editable '.[dev,bench]')
	touch $@

# The tutorial's own stack, in an environment of its own: what the benchmark compares with.
KERAS := .venv/keras
.venv/installed-keras: | .venv/installed
	$(PYTHON) -m venv --clear $(KERAS)
	$(KERAS)/bin/pip install --quiet --disable-pip-version-check \
		'tensorflow-cpu>=2.20' 'opencv-python-headless>=4.10' 'numpy>=2' 'pillow>=10' || { \
		echo "Keras cannot be installed for $$($(PYTHON) --version): TensorFlow 2.21 has wheels for 3.11 to 3.13." \
		"Set PYTHON=, or measure the rest: $(BIN)/python -m experiments.benchmark.bench" >&2; \
		exit 1; }
	touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache
