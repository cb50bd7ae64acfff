# make demo: compare four networks on real handwriting.  make test: the fast tests.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
# on Windows: make BIN=.venv/Scripts ...

.PHONY: demo test check format lint types floors slow triton torture clean

.venv/installed: pyproject.toml setup.py constraints.txt $(wildcard src/mixlab/kernels/cpu/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/installed
	@$(BIN)/python examples/demo.py

test: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL)

check: lint types floors test

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/pyright

floors: .venv/installed
	$(BIN)/lint-imports

slow: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"

# the kernels for GPUs, without one: run by Triton's interpreter, and compiled (Triton takes 0.7 GB of disk)
triton: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt triton
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(PARALLEL) -m slow tests/kernels/test_triton.py
	$(BIN)/python -m pytest $(PARALLEL) -m slow tests/kernels/test_triton_compiles.py

# everything that mixlab must survive; goes on where it stopped, and writes the table of docs/reliability.md
torture: .venv/installed
	$(BIN)/python -m torture; status=$$?; $(BIN)/python -m torture --sheet; exit $$status

clean:
	rm -rf .venv build dist runs
