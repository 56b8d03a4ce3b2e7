# make demo   install, then run the whole pipeline on the testbed     make test   install, then run the tests
# make lint   style and types                                         make bench  measure against peers (minutes)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/python run_pipeline.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.bench_fit
	$(BIN)/python -m benchmarks.bench_lasso
	$(BIN)/python -m benchmarks.bench_rank
	$(BIN)/python -m benchmarks.bench_memory
	$(BIN)/python -m benchmarks.bench_collect
	$(BIN)/python -m benchmarks.bench_causal
	$(BIN)/python -m benchmarks.bench_scaling
	$(BIN)/python -m benchmarks.bench_topology
	$(BIN)/python -m benchmarks.bench_frozen_v5
	$(BIN)/python -m benchmarks.bench_scenario
	$(BIN)/python -m benchmarks.bench_geometry
	$(BIN)/python -m benchmarks.bench_modulators

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: with it there, nothing else asks the registry for a build with CUDA packages
$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two)"
	$(PIP) torch
	$(PIP) --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-launchers.txt $(VENV)/.installed
	$(PIP) --requirement requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev
	$(PIP) --requirement requirements-bench.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis artifacts outputs multirun wandb
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
