# Two commands: `make demo` and `make test`. Each makes .venv when it is missing.
# `make test-slow` runs the tests that take long; `make soak` attacks what
# RELIABILITY.md promises, for MINUTES; `make docs` builds the site.
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 30
EXTRAS ?= test
#: One thread per test process: the processors are taken by the processes.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal
MODULES = $(patsubst %.py,-m %,$(notdir $(wildcard $(1)/*.py)))
#: Tests may be untyped where types say nothing; what is typed is checked.
UNTYPED = --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls \
	--allow-untyped-decorators --allow-any-generics --no-check-untyped-defs \
	--no-warn-unused-ignores

.PHONY: demo test test-slow lint mypy soak docs clean

demo: .venv/installed
	$(BIN)/aqa demo

test: .venv/installed
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/installed
	$(PYTEST) -m slow

soak: .venv/installed
	PYTHONPATH=tests:benchmarks $(BIN)/python -m soak --minutes $(MINUTES)

lint: .venv/installed mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: .venv/installed
	$(BIN)/mypy -p aqa $(call MODULES,benchmarks)
	$(BIN)/mypy $(UNTYPED) -p soak $(call MODULES,tests)

docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info
