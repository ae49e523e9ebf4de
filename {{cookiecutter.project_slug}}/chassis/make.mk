# The `make` targets; the project's Makefile includes this file.
# Requires Python 3.10 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
ENV ?= staging
TERRAFORM = terraform -chdir=terraform
BOOTSTRAP = terraform -chdir=chassis/terraform/bootstrap
PIPELINE = terraform -chdir=chassis/terraform/pipeline
# From the two above to what is the owner's.
ENVIRONMENTS = ../../../terraform/environments
INIT = $(TERRAFORM) init -reconfigure -input=false -backend-config=environments/$(ENV).s3.tfbackend
# The image tag that was deployed last, from Terraform's state, so that a plan keeps it.
DEPLOYED = $(TERRAFORM) output -json | $(PYTHON) -c 'import json, sys; print(json.load(sys.stdin).get("image_tag", {}).get("value", ""))'
contract = $(shell $(PYTHON) -c 'import json; contract = json.load(open("contract.json")); print($(1))')
NAME = $(call contract,contract["service"])-$(ENV)
REGION = $(call contract,contract["region"])
QUEUES = $(call contract,*(queue["name"] for queue in contract["queues"]))
# Dependency groups of pyproject.toml that are installed separately.
GROUPS = $(filter-out dev,$(patsubst requirements-%.txt,%,$(wildcard requirements-*.txt)))
# The chassis relies on internals of these packages; a newer template upgrades them.
HELD = sed -n -E 's/^((celery|kombu|billiard|amqp|vine)==[^ ]+).*/\1/p' requirements.txt
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --upgrade --no-header --no-annotate --constraint $(VENV)/held.txt

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-build.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is required; choose one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(READY) ## Install everything into .venv

.PHONY: dev
dev: $(READY) ## Run an emulator, the workers and a producer on this machine; Ctrl-C stops them
	@$(BIN)/python -m celery_aws.dev

compose.yaml: contract.json chassis/celery_aws/dev/compose.py $(READY)
	$(BIN)/python -m celery_aws.dev.compose

README.md: contract.json chassis/celery_aws/dev/timeouts.py $(READY)
	$(BIN)/python -m celery_aws.dev.timeouts

.PHONY: test
test: $(READY) compose.yaml README.md ## Run all tests, including those with real workers on the emulator
	$(BIN)/python -m pytest

.PHONY: check
check: $(READY) ## Run the linter and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: chassis
chassis: ## Show the version of chassis/ and the files that differ from it
	@PYTHONPATH=chassis $(PYTHON) -B -m celery_aws.version

.PHONY: format
format: $(READY) ## Format the code and apply the linter's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(READY) ## Pin the latest versions that pyproject.toml allows, except those that the chassis sets
	@$(HELD) >$(VENV)/held.txt
	$(LOCK) pyproject.toml --output-file requirements.txt
	$(foreach group,$(GROUPS),$(LOCK) --group $(group) --constraint requirements.txt --output-file requirements-$(group).txt &&) true
	$(LOCK) pyproject.toml --extra dev --constraint requirements.txt --output-file requirements-dev.txt

.PHONY: bootstrap
bootstrap: ## Create the bucket for the Terraform state of ENV=staging (once)
	$(BOOTSTRAP) init -input=false
	$(BOOTSTRAP) apply -state=$(ENVIRONMENTS)/$(ENV).bootstrap.tfstate -var=environment=$(ENV)
	$(BOOTSTRAP) output -state=$(ENVIRONMENTS)/$(ENV).bootstrap.tfstate -raw backend >terraform/environments/$(ENV).s3.tfbackend

.PHONY: plan
plan: ## Plan Terraform changes of ENV=staging; TAG=... also changes the image
	$(INIT)
	tag=$$($(if $(TAG),echo '$(TAG)',$(DEPLOYED))) && \
	$(TERRAFORM) plan -input=false -var-file=environments/$(ENV).tfvars -var="image_tag=$$tag" -out=$(ENV).tfplan

.PHONY: apply
apply: ## Apply the last plan of ENV=staging
	$(TERRAFORM) apply $(ENV).tfplan

.PHONY: deployed
deployed: ## Show the image tag that was last deployed to ENV=staging
	@$(INIT) >&2
	@$(DEPLOYED)

# The tag of an image is the commit that it is built from.
push deploy: TAG ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*')
push rollout: export AWS_REGION = $(REGION)
push rollout: export AWS_DEFAULT_REGION = $(REGION)

.PHONY: push
push: ## Build the image and push it to the registry of ENV=staging, unless it exists
	chassis/terraform/push.sh $(NAME) $(call contract,contract["service"])-staging '$(TAG)'

.PHONY: deploy
deploy: ## Deploy that image to ENV=staging, wait until it runs, roll back if it fails
	chassis/terraform/deploy.sh $(ENV) '$(TAG)'

.PHONY: rollout
rollout: ## Wait until all workers of ENV=staging run the image TAG=...
	$(wildcard chassis/terraform/rollout_*.sh) $(NAME) '$(TAG)' $(QUEUES)

.PHONY: pipeline
pipeline: ## Create the GitHub OIDC roles of ENV=staging for REPOSITORY=... (once; see README.md)
	$(PIPELINE) init -reconfigure -input=false -backend-config=$(ENVIRONMENTS)/$(ENV).s3.tfbackend -backend-config=key=pipeline.tfstate
	$(PIPELINE) apply -var=environment=$(ENV) -var=github_repository='$(REPOSITORY)'
