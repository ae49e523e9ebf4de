# Needs Python 3.10 or newer, make and git; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# More than there are processors, as what takes long waits for most of its time; see WAITERS in tests/conftest.py.
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 3)')
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
OUTPUT ?= ..
# What to hand on to pytest.
TESTS ?=
# Benchmarks to run, such as delivery; all of them unless named.
ONLY ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is required; choose one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.PHONY: demo
demo: $(READY) ## Bake the default answers and watch the result work, on this machine
	@$(BIN)/python tools/demo.py

.PHONY: new
new: $(READY) ## Answer the questions and get a project, in OUTPUT=.. unless you say otherwise
	@$(BIN)/cookiecutter . --output-dir '$(OUTPUT)' $(ANSWERS)

.PHONY: test
test: $(READY) check ## Run all checks, and a choice of the tests that takes minutes
	$(PYTEST) -m "not slow" $(TESTS)

.PHONY: test-all
test-all: $(READY) check ## Run all of them, which takes half an hour or more
	@rm -f .proven.json
	$(PYTEST) --proven .proven.json $(TESTS)

.PHONY: badges
badges: $(READY) ## Show in README what the last run of all tests has proven
	@$(BIN)/python tools/badges.py

.PHONY: pictures
pictures: $(READY) ## Draw the pictures of docs/ anew: the timeouts, and the demo
	@$(BIN)/python tools/pictures.py >/dev/null
	@$(BIN)/python tools/demo.py --picture docs/demo.svg

.PHONY: check
check: $(READY) ## Lint and check types
	$(BIN)/ruff check --config pyproject.toml .
	$(BIN)/ruff format --config pyproject.toml --check .
	$(BIN)/mypy

.PHONY: format
format: $(READY) ## Format the code and apply the linter's fixes
	$(BIN)/ruff check --config pyproject.toml --fix .
	$(BIN)/ruff format --config pyproject.toml .

.PHONY: bench
bench: $(READY) ## Measure what README says of speed, and have it say that
	@$(BIN)/python -m benchmarks --keep $(ONLY)

.PHONY: lock
lock: $(READY) ## Pin the newest versions of everything, here and in projects
	$(BIN)/python tools/lock.py
