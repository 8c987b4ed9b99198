# make install | demo | demo-ohif | test | check | demo-models | benchmark-smoke. Everything goes into .venv/ in this folder.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo demo-ohif test check demo-models benchmark-smoke clean

install: $(STAMP)

# monailabel is installed without its dependencies: one of them (sam2) is an sdist that builds with a 5 GB torch of its own.
# What its server imports is listed in pyproject.toml.
$(STAMP): pyproject.toml
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or 3.12 is needed: make $@ PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps monailabel==0.8.5
	touch $@

demo: $(STAMP)
	$(BIN)/flrplan demo --out demo-output

demo-ohif: $(STAMP)
	$(BIN)/flrplan demo-ohif

test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo-models: $(STAMP)
	$(BIN)/flrplan demo-models --work build/demo-models

benchmark-smoke: $(STAMP)
	$(BIN)/python benchmark/smoke.py --work work

clean:
	rm -rf $(VENV) demo-output
