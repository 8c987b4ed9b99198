# make install | demo | demo-ohif | test | check | docs | demo-models | workflow | benchmark-smoke | wheelhouse. Everything goes into .venv/ in this
# folder, Snakemake into .venv-workflow/, Sphinx into .venv-docs/.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKFLOW := .venv-workflow
WORKFLOW_STAMP := $(WORKFLOW)/.installed
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/.installed

.PHONY: install demo demo-ohif test check docs demo-models workflow benchmark-smoke wheelhouse clean

# On a machine without a network: make install OFFLINE=FOLDER, with what `make wheelhouse` gave on one with.
ifdef OFFLINE
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(OFFLINE))
endif

install: $(STAMP)

# An environment without pip is what an interrupted or refused creation leaves (Debian without python3.11-venv); it is made anew.
# monailabel is installed without its dependencies: one of them (sam2) is an sdist that builds with a 5 GB torch of its own.
# What its server imports is listed in pyproject.toml.
$(STAMP): pyproject.toml
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or 3.12 is needed: make $@ PYTHON=/path/to/python"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps monailabel==0.8.5
	touch $@

demo: $(STAMP)
	$(BIN)/flrplan demo --out demo-output

demo-ohif: $(STAMP)
	$(BIN)/flrplan demo-ohif

# Two processes with a thread each: most tests have work for one, and two threads that wait for each other on a busy core take many times as long.
test: $(STAMP) $(WORKFLOW_STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations=60 --durations-min=4

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The site in build/docs/. A warning, a broken link included, is an error. An environment of its own: the pages are built without
# the package's own requirements, in seconds on a bare machine.
docs: $(DOCS_STAMP)
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --write-all -c docs -d build/doctrees . build/docs
	@echo build/docs/index.html

$(DOCS_STAMP): docs/requirements.txt
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or 3.12 is needed: make $@ PYTHON=/path/to/python"; exit 1; }
	$(DOCS)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -r $<
	touch $@

# Real CTs that the demo models are measured on as well, NAME=CT,LIVER[:VALUE] with blanks between them (so none in a path):
#   make demo-models REAL="lidc-idri-0001=DICOM_FOLDER,LIVER_MASK example_ct=CT_FILE,SEGMENTATION:5"
# Where to get the two: apps/flr_planning/model/demo/README.md. Without them its goals on real CTs read "not measured".
REAL ?=

demo-models: $(STAMP)
	$(BIN)/flrplan demo-models --work build/demo-models $(foreach ct,$(REAL),--real '$(ct)')

workflow: $(WORKFLOW_STAMP)

# Wheels of exactly what is installed in the three environments here, for machines of the same system and version of Python.
# `pip freeze` never names argparse, which unittest2, a requirement of batchgenerators, asks for.
WHEELHOUSE ?= wheelhouse
wheelhouse: $(STAMP) $(WORKFLOW_STAMP) $(DOCS_STAMP)
	mkdir -p $(WHEELHOUSE)
	for bin in $(BIN) $(WORKFLOW)/bin $(DOCS)/bin; do \
	  { $$bin/python -m pip freeze --all --exclude-editable && echo argparse; } >$(WHEELHOUSE)/requirements.part && \
	  $$bin/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEELHOUSE) -r $(WHEELHOUSE)/requirements.part || exit 1; \
	done
	rm $(WHEELHOUSE)/requirements.part
	@echo "$(WHEELHOUSE) and this folder are all that make install OFFLINE=$(WHEELHOUSE) needs"

# An environment of its own: Snakemake's Slurm plugin needs numpy 2, the project needs numpy 1. Snakemake only starts commands,
# and those run with the Python of $(VENV).
$(WORKFLOW_STAMP): benchmark/requirements-workflow.txt
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or 3.12 is needed: make $@ PYTHON=/path/to/python"; exit 1; }
	$(WORKFLOW)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(WORKFLOW)
	$(WORKFLOW)/bin/python -m pip install --quiet -r $<
	touch $@

benchmark-smoke: $(STAMP) $(WORKFLOW_STAMP)
	$(BIN)/python benchmark/run.py --config benchmark/configs/smoke.yaml --work work

clean:
	rm -rf $(VENV) $(WORKFLOW) $(DOCS) build/docs build/doctrees demo-output
