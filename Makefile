# make demo    install, run the demo and print its summary
# make test    install, and run the tests
#
# make run, make lint, make clean: see below. Every command uses .venv, which `make .venv` alone creates too.

PYTHON ?= $(firstword $(foreach v,3.13 3.12 3.11 3,$(shell command -v python$(v) 2>/dev/null)))
CORES ?= $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())")
BIN = .venv/bin
# Imports of torch take twice as long without compiled files, so let jobs use and write them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint format clean

demo: .venv/installed
	$(BIN)/snakemake demo --cores $(CORES)

test: .venv/installed
	$(BIN)/python -m pytest $(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

.venv/installed: envs/requirements.txt envs/install.sh
	PYTHON="$(PYTHON)" sh envs/install.sh

clean:
	rm -rf results .snakemake
