# Two commands on a fresh machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml $(shell find cellseg napari_plugin protocols -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: demo test lint bench docs fuzz dist clean help

help:
	@echo "make demo   set up .venv, count the example slides"
	@echo "make test   set up .venv with what the tests need, run them"
	@echo "make lint   ruff and mypy"
	@echo "make bench  speed against SAHI and a plain loop, about ten minutes"
	@echo "make fuzz   damaged and hostile files, for MINUTES=30"
	@echo "make docs   the site, into site/: open site/index.html"
	@echo "make dist   wheel and sdist, the same bytes each time, checked"

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

.venv/installed-test: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[test,napari]"
	@touch $@ .venv/installed

.venv/installed-lint: pyproject.toml | .venv/installed-test
	$(BIN)/python -m pip install --quiet -e ".[lint]"
	@touch $@

# SAHI by itself: it asks for an OpenCV with windows, whose Qt napari cannot live beside.
.venv/installed-bench: pyproject.toml | .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	$(BIN)/python -m pip install --quiet --no-deps "sahi>=0.11.20"
	@touch $@

demo: .venv/installed
	$(BIN)/python example_slides/make.py
	$(BIN)/cellseg count example_slides/generated/fluorescence.ome.tif --output example_slides/results --overwrite
	$(BIN)/cellseg count example_slides/generated/ihc.tif --output example_slides/results --overwrite
	@# Drawn nuclei, one in five of them brown, in three known strengths.
	$(BIN)/cellseg count example_slides/generated/positive.tif --output example_slides/results --overwrite
	$(BIN)/cellseg classify example_slides/results/positive.cellseg --measure dab_od_mean --threshold 0.13,0.38,0.66
	$(BIN)/python example_slides/compare.py

test: .venv/installed-test
	@tools/install-display.sh
	tools/with-display.sh $(BIN)/python -m pytest

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python benchmarks/speed.py

fuzz: .venv/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz --minutes $(or $(MINUTES),30)

docs: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The date of the last change in place of today's: who builds it again gets the same bytes.
dist: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build twine check-wheel-contents
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf .venv dist site example_slides/generated example_slides/results
