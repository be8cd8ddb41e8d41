# make demo    install, run the demo's two grids and print their summaries and answers
# make test    install, and run the tests: minutes. make test-all: those too that say they are slow; what CI runs
# make report  install, make an experiment's report and print where it is; EXPERIMENT=by_layer says whose
# make run DATA=folder [BACKBONE=vgg16] [NAME=...] [SIZE=224] [BUDGET="5 ms"] [RULES='ignore: [old]']
#              the same for your own images: verdict, report and the exported model; BUDGET: what it may take, see README.md
# make photos  install, and do the same with photographs of solar cells that the package index has
#
# make study   run the experiments of docs/study/config.yaml (hours), keep their cells and renew the tables of docs/study.md
#
# make lint, format, clean: see below. Every command uses .venv. CORES=4 sets how many cores are used, PYTHON=... which
# Python makes .venv, TORCH=cpu or cuda which torch it has, EXTRAS="photos cluster" which of envs/extras (envs/install.sh),
# PYTEST="-k masks" what pytest is told.

# The first Python that is new enough; envs/install.sh says so if there is none.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
EXPERIMENT ?= demo
REPORT = results/experiments/$(EXPERIMENT)/report.html
BIN = .venv/bin
# Imports of torch take twice as long without compiled files, so let jobs use and write them.
unexport PYTHONDONTWRITEBYTECODE

# Does nothing where .venv has the pinned packages, and those of the extras.
INSTALL = PYTHON="$(PYTHON)" TORCH="$(TORCH)" EXTRAS="$(strip $(EXTRAS) $(1))" sh envs/install.sh

.PHONY: demo run photos report study test test-all slowest lint format install clean

# The thesis's question, and then the same with what was found since.
demo: install
	$(BIN)/snakemake demo --cores $(CORES)
	$(BIN)/snakemake demo_repaired --cores $(CORES)

# The configuration, own/NAME.yaml, is written once and is yours to edit.
run: install
	@test -n "$(DATA)" || { echo 'make run DATA=folder [BACKBONE=vgg16] [NAME=...] [SIZE=224] [BUDGET="5 ms"] [RULES=...] [CORES=...]' >&2; exit 2; }
	@name=$$($(BIN)/python scripts/configure.py "$(DATA)" $(BACKBONE:%=--backbone %) $(NAME:%=--name %) $(SIZE:%=--size %) \
	$(if $(BUDGET),--budget "$(BUDGET)") $(if $(RULES),--rules '$(RULES)')) \
	&& $(BIN)/snakemake results/datasets/$$name/manifest.json --configfile own/$$name.yaml --cores $(CORES) \
	&& $(BIN)/python scripts/describe.py --dataset results/datasets/$$name --configfile own/$$name.yaml \
	&& $(BIN)/snakemake $$name results/experiments/$$name/report_models.html --configfile own/$$name.yaml --cores $(CORES)

photos:
	@$(call INSTALL,solar)
	$(BIN)/snakemake solar results/experiments/solar/report_models.html --configfile config/photos.yaml --cores $(CORES)

# Tests run side by side, but for those on a cluster: there is one a machine. A part may have nothing to run (status 5).
# `make slowest` names the twenty that took longest when they last ran.
test: MARK = -m "not slow"
test test-all:
	@$(call INSTALL,all)
	@nothing=5; for part in "tests/unit tests/workflow -n $(CORES) --dist worksteal" tests/cluster; do \
	$(BIN)/python -m pytest $$part $(MARK) $(PYTEST); status=$$?; \
	case $$status in 0) nothing=0 ;; 5) ;; *) exit $$status ;; esac; done; exit $$nothing

slowest:
	@$(BIN)/python tests/slowest.py

report: install
	$(BIN)/snakemake $(REPORT) --cores $(CORES)
	@echo $(CURDIR)/$(REPORT)

study: install
	$(BIN)/snakemake all $$($(BIN)/python benchmarks/study.py --needs) --configfile docs/study/config.yaml --cores $(CORES)
	$(BIN)/python benchmarks/study.py

lint:
	@$(call INSTALL,dev)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules workflow/Snakefile
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format:
	@$(call INSTALL,dev)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules workflow/Snakefile

install:
	@$(call INSTALL)

# A link's target is left as it is, and so is the link: results may lie on another disk.
clean:
	@for folder in results .snakemake; do if [ -L $$folder ]; \
	then echo "$$folder is a symbolic link to $$(readlink $$folder): both stay as they are" >&2; \
	else rm -rf $$folder; fi; done
