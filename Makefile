# One virtual environment, one pinned list of packages, one way to run everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
JOBS ?= 2
NOTEBOOKS := tests/unit/test_notebooks.py

export MPLBACKEND ?= Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-checked test-notebooks lint bench docs clean
.DELETE_ON_ERROR:

help:
	@echo "make setup   create $(VENV) with the pinned packages and this project (editable)"
	@echo "make demo    run the main job: three designs with and without the storm"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make test    lint, notebooks, tests"
	@echo "make bench   benchmarks (minutes)"
	@echo "make docs    documentation as HTML in docs/_build/html"
	@echo "make clean   remove build products and caches; keeps results/ and $(VENV)"

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: pilotzone needs Python >= 3.11 and '$(PYTHON)' is missing or older; try: make setup PYTHON=python3.11" >&2; exit 1; }
	@echo "setup: installing the packages pinned in constraints.txt into $(VENV) (first time: a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $@
	@echo "setup: done"

demo: setup
	@$(BIN)/pilotzone demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy sim
	$(BIN)/lint-imports

# The checked build, in which every index is looked at: the oracle's networks, full columns, a run that once broke the heap.
BROKE_THE_HEAP := tests/trust/test_trust_cases.py::test_it_ends_as_it_should_and_alike_on_both_paths[pbft-domain-lost]

# The checked build compiles on one core, for minutes, while the notebooks compile the fast one on another; lint fills up.
test: setup
	@$(MAKE) --no-print-directory -j $(JOBS) --output-sync=target test-checked test-notebooks lint
	$(BIN)/pytest -q -n $(JOBS) --ignore=$(NOTEBOOKS)

test-checked: setup
	PILOTZONE_CHECKED=1 $(BIN)/pytest -q tests/properties/test_kernel_oracle.py tests/unit/test_memory.py "$(BROKE_THE_HEAP)"

test-notebooks: setup
	$(BIN)/pytest -q $(NOTEBOOKS)

bench: setup
	$(BIN)/pilotzone bench

docs: setup
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find sim tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
