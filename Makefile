# Needs Python 3.10 or newer, make and git; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# More than there are processors, because long tests mostly wait; see WAITERS in tests/conftest.py.
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 4)')
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
OUTPUT ?= ..
# Where `make judges` and `make bench ONLY=peers` install servers and peers.
export JUDGES ?= $(HOME)/.cache/cookiecutter-celery-aws
# Arguments for pytest.
TESTS ?=
# A copy of mermaid.min.js that draws the diagrams of the site.
MERMAID ?=
# The benchmark to run, such as delivery; by default all except peers, which takes longest.
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
demo: $(READY) ## Generate a project with the default answers and run it on this machine
	@$(BIN)/python tools/demo.py

.PHONY: new
new: $(READY) ## Ask the questions and generate a project in OUTPUT=..
	@$(BIN)/cookiecutter . --output-dir '$(OUTPUT)' $(ANSWERS)

.PHONY: example
example: $(READY) ## Generate a project with the example NAME=reports in OUTPUT=..
	@$(BIN)/python tools/example.py '$(NAME)' --output-dir '$(OUTPUT)' $(ANSWERS)

.PHONY: test
test: $(READY) check ## Run all checks and a selection of the tests, in some minutes
	$(PYTEST) -m "not slow" $(TESTS)

.PHONY: test-all
test-all: $(READY) check ## Run all checks and tests, in about an hour
	$(PYTEST) $(TESTS)

.PHONY: judges
judges: ## Install more servers for `make test-all`, as root: RabbitMQ 4, LocalStack
	tools/localstack '$(JUDGES)/localstack' '$(PYTHON)'
	tools/rabbitmq trixie '$(JUDGES)/rabbitmq-trixie'
	tools/rabbitmq forky '$(JUDGES)/rabbitmq-forky'

.PHONY: pictures
pictures: $(READY) ## Draw the pictures of docs/: the timeouts, the demo and, in Chromium, the console
	@$(BIN)/python tools/pictures.py >/dev/null
	@$(BIN)/python tools/demo.py --picture docs/demo.svg
	@$(BIN)/python tools/console.py

.PHONY: site
site: $(READY) ## Build the documentation site in .site/html, and check its links
	@$(BIN)/python tools/site.py $(if $(MERMAID),--mermaid '$(MERMAID)')

.PHONY: schema
schema: $(READY) ## Write the JSON schema of contracts from their fields and rules
	@$(BIN)/python tools/schema.py

.PHONY: check
check: $(READY) ## Lint and check types
	$(BIN)/ruff check --config pyproject.toml .
	$(BIN)/ruff format --config pyproject.toml --check .
	$(BIN)/mypy

.PHONY: format
format: $(READY) ## Format the code and apply the linter's fixes
	@$(BIN)/ruff check --config pyproject.toml --fix --exit-zero --silent .
	$(BIN)/ruff format --config pyproject.toml .
	$(BIN)/ruff check --config pyproject.toml .

.PHONY: bench
bench: $(READY) ## Measure speed, and write docs/benchmarks.md; ONLY=delivery measures one kind
	@$(BIN)/python -m benchmarks --keep $(ONLY)

.PHONY: lock
lock: $(READY) ## Pin the newest versions of everything, here and in projects
	$(BIN)/python tools/lock.py
