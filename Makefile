# Needs Python 3.10 or newer, make and git; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# More than there are processors, as what takes long waits for most of its time; see WAITERS in tests/conftest.py.
WORKERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 4)')
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
OUTPUT ?= ..
# Where other servers for the library's tests are kept; tests/test_judges.py looks there.
export JUDGES ?= $(HOME)/.cache/cookiecutter-celery-aws
# What to hand on to pytest.
TESTS ?=
# A copy of mermaid.min.js that draws the diagrams of the site.
MERMAID ?=
# Benchmarks to run, such as delivery; all of them unless named, but for peers, which takes longest.
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

.PHONY: example
example: $(READY) ## Get a project with an example in it, NAME=reports, in OUTPUT=.. unless you say otherwise
	@$(BIN)/python tools/example.py '$(NAME)' --output-dir '$(OUTPUT)' $(ANSWERS)

.PHONY: test
test: $(READY) check ## Run all checks, and a choice of the tests that takes minutes
	$(PYTEST) -m "not slow" $(TESTS)

.PHONY: test-all
test-all: $(READY) check ## Run all of them, which takes half an hour or more
	$(PYTEST) $(TESTS)

.PHONY: judges
judges: ## Install what `make test-all` also runs the library on, as root: RabbitMQ 4, LocalStack
	tools/rabbitmq trixie '$(JUDGES)/rabbitmq-trixie'
	tools/rabbitmq forky '$(JUDGES)/rabbitmq-forky'
	tools/localstack '$(JUDGES)/localstack' '$(PYTHON)'

.PHONY: pictures
pictures: $(READY) ## Draw the pictures of docs/ anew: the timeouts, the demo and, in Chromium, the console
	@$(BIN)/python tools/pictures.py >/dev/null
	@$(BIN)/python tools/demo.py --picture docs/demo.svg
	@$(BIN)/python tools/console.py

.PHONY: site
site: $(READY) ## Build the documentation site in .site/html, and fail if a link or an anchor leads nowhere
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
	$(BIN)/ruff check --config pyproject.toml --fix .
	$(BIN)/ruff format --config pyproject.toml .

.PHONY: bench
bench: $(READY) ## Measure what README says of speed, and have it say that
	@$(BIN)/python -m benchmarks --keep $(ONLY)

.PHONY: lock
lock: $(READY) ## Pin the newest versions of everything, here and in projects
	$(BIN)/python tools/lock.py
