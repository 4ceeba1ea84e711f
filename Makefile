# `make demo` and `make test` work in a fresh clone: they set up .venv when it is missing, or when what it is made
# from has changed. Needed beforehand: Python 3.11 or newer with venv and pip; a C++ compiler (the neurons' kernels).

PYTHON  ?= python3
# Test processes that run at once, each with one thread.
WORKERS ?= 2

VENV      := .venv
BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWER     := .venv-lower
# Old packages meet new ones below them, which deprecate what they call. Without the tests that need the peers or the developers' tools.
LOWER_TESTS ?= tests/test_*.py tests/analysis tests/cli tests/convert tests/data tests/dynamics tests/graph tests/models \
  tests/nn tests/objectives tests/recipes tests/report tests/train

# OpenMP threads that spin while they wait take the cores from those that work: passive waiting costs nothing here.
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo check test test-lower bench robustness lint format clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## create .venv with the exact versions of constraints.txt (once, about two minutes)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  f"spikestill needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: say make PYTHON=python3.11")'
	@echo "setting up $(VENV) with the versions of constraints.txt: once, about two minutes"
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev,events,export,report,peers]'
	@touch $@

demo: $(INSTALLED)  ## an ANN on real handwriting, and the best spiking network of it, a few minutes on two cores
	$(BIN)/spikestill demo

check: lint  ## lint, types, layers and the fast tests: under three minutes
	$(PYTEST) -m "not slow"

test: $(INSTALLED)  ## every test: under fifteen minutes on two cores, set-up included
	$(PYTEST)

test-lower:  ## the fast tests with the oldest versions that pyproject.toml allows, in .venv-lower: about 20 minutes
	test -x $(LOWER)/bin/pip || $(PYTHON) -m venv $(LOWER)
	$(PYTHON) .ci/lower_bounds.py > $(LOWER)/constraints.txt
	$(LOWER)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWER)/constraints.txt \
	  --editable '.[events,export,report]' pytest hypothesis
	OMP_NUM_THREADS=1 $(LOWER)/bin/python -m pytest -m "not slow" -W ignore::DeprecationWarning $(LOWER_TESTS)

bench: $(INSTALLED)  ## time and memory beside SpikingJelly and snnTorch: about 45 minutes on two cores; can go on
	$(BIN)/python -m benchmarks $(BENCH)
	$(BIN)/python -m benchmarks.events
	$(BIN)/python -m benchmarks.floor
	$(BIN)/python -m benchmarks.loop

robustness: $(INSTALLED)  ## 200 kills of trainings, locks under kills, damaged files: some hours; the kills can go on
	$(BIN)/python -m tests.robustness.locks
	$(BIN)/python -m tests.robustness.kills --kills 200 --json runs/kills.json
	$(BIN)/python -m tests.robustness.fuzz --mutations 3000

lint: $(INSTALLED)  ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)  ## lay the code out and mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build products; .venv, .venv-lower and runs stay
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
