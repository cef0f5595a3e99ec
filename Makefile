# Two commands: `make demo` and `make test`. Each makes .venv when it is missing.
# `make soak` attacks what RELIABILITY.md promises, for MINUTES.
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 30
EXTRAS ?= test

.PHONY: demo test lint soak clean

demo: .venv/installed
	$(BIN)/aqa demo

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

soak: .venv/installed
	PYTHONPATH=tests:benchmarks $(BIN)/python -m soak --minutes $(MINUTES)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
