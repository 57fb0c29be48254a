# Two commands on a fresh machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml $(shell find cellseg napari_plugin protocols -type f -not -name '*.pyc' 2>/dev/null)

.PHONY: demo test lint bench fuzz dist clean help

help:
	@echo "make demo   set up .venv, count the example slides"
	@echo "make test   set up .venv with what the tests need, run them"
	@echo "make lint   ruff and mypy"
	@echo "make bench  speed against SAHI and a plain loop, about ten minutes"
	@echo "make fuzz   damaged and hostile files, for MINUTES=30"
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
	@# The file does not say its pixel size: how large a nucleus is, in pixels, sets the scale.
	$(BIN)/cellseg count example_slides/generated/ihc.tif --diameter 10 --output example_slides/results --overwrite
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

# The date of the last change in place of today's: who builds it again gets the same bytes.
dist: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build twine check-wheel-contents
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf .venv dist example_slides/generated example_slides/results
