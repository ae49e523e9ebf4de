# The `make` targets; the project's Makefile includes this file.
# Requires Python 3.10 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# pip or uv. Not chosen automatically: uv ignores pip.conf and PIP_INDEX_URL.
# https://docs.astral.sh/uv/pip/compatibility/#configuration-files-and-environment-variables
INSTALLER ?= pip
INSTALL_pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL_uv = uv pip install --quiet --python $(BIN)/python
ENV ?= staging
# Or tofu.
TERRAFORM_CLI ?= terraform
export TERRAFORM_CLI
TERRAFORM = $(TERRAFORM_CLI) -chdir=terraform
BOOTSTRAP = $(TERRAFORM_CLI) -chdir=chassis/terraform/bootstrap
PIPELINE = $(TERRAFORM_CLI) -chdir=chassis/terraform/pipeline
# From the two above to what is the owner's.
ENVIRONMENTS = ../../../terraform/environments
BOOTSTRAPPED = @test -e terraform/environments/$(ENV).s3.tfbackend || { \
	echo "$(ENV) has no terraform/environments/$(ENV).s3.tfbackend, which names the bucket of its Terraform state." >&2; \
	echo "If the bucket exists, take that file from whoever created it. Otherwise run: make bootstrap ENV=$(ENV)" >&2; exit 2; }
INIT = $(TERRAFORM) init -reconfigure -input=false -backend-config=environments/$(ENV).s3.tfbackend
# The image tag that was deployed last, from Terraform's state, so that a plan keeps it.
DEPLOYED = $(TERRAFORM) output -json | $(PYTHON) -c 'import json, sys; print(json.load(sys.stdin).get("image_tag", {}).get("value", ""))'
contract = $(shell $(PYTHON) -c 'import json; contract = json.load(open("contract.json")); print($(1))')
NAME = $(call contract,contract["service"])-$(ENV)
REGION = $(call contract,contract["region"])
# Also those of queues that no worker of the contract lists, and the beat.
WORKERS = $(shell PYTHONPATH=chassis $(PYTHON) -B -c 'from pathlib import Path; from celery_aws.contract import read; print(*read(Path("contract.json")).rollout_names)')
# After that, a deployment has failed.
DEPLOYMENT_SECONDS = $(shell PYTHONPATH=chassis $(PYTHON) -B -c 'from pathlib import Path; from celery_aws.contract import read; print(read(Path("contract.json")).deployment_seconds)')
# Dependency groups of pyproject.toml that are installed separately.
GROUPS = $(filter-out dev,$(patsubst requirements-%.txt,%,$(wildcard requirements-*.txt)))
# The chassis relies on internals of these packages; a newer template upgrades them.
HELD = sed -n -E 's/^((celery|kombu|billiard|amqp|vine)==[^ ]+).*/\1/p' requirements.txt
TRACING = $(call contract,"--extra tracing" if contract.get("tracing") else "")
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --upgrade --no-header --no-annotate --constraint $(VENV)/held.txt

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-build.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is required; choose one: make PYTHON=python3.12")'
	@echo 'Installing the dependencies into $(VENV): about a minute, or several on a slow connection'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL_$(INSTALLER)) --require-hashes -r requirements-build.txt -r requirements-dev.txt
	$(INSTALL_$(INSTALLER)) --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(READY) ## Install everything into .venv, with pip or INSTALLER=uv

.PHONY: dev
dev: $(READY) ## Run an emulator, the workers, a producer, the console and the Procfile on this machine; Ctrl-C stops them
	@$(BIN)/python -m celery_aws.dev

compose.yaml: contract.json $(wildcard development.env) chassis/celery_aws/dev/compose.py $(READY)
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

.PHONY: client
client: $(READY) ## Build a client for producers: a wheel in dist/
	@$(BIN)/python -m celery_aws.dev.client

.PHONY: chassis
chassis: ## Show the version of chassis/ and the files that differ from it
	@PYTHONPATH=chassis $(PYTHON) -B -m celery_aws.version

.PHONY: format
format: $(READY) ## Format the code and apply the linter's fixes
	@$(BIN)/ruff check --fix --exit-zero --silent .
	$(BIN)/ruff format .
	$(BIN)/ruff check .

.PHONY: lock
lock: $(READY) ## Pin the latest versions that pyproject.toml allows, except those that the chassis sets
	@$(HELD) >$(VENV)/held.txt
	@sed '/^managed = false$$/d' pyproject.toml >$(VENV)/pyproject.toml # uv reads no groups of an unmanaged project
	$(LOCK) pyproject.toml $(TRACING) --output-file requirements.txt
	$(foreach group,$(GROUPS),$(LOCK) --group $(VENV)/pyproject.toml:$(group) --constraint requirements.txt --output-file requirements-$(group).txt &&) true
	$(LOCK) pyproject.toml $(TRACING) --extra dev --constraint requirements.txt --output-file requirements-dev.txt

.PHONY: bootstrap
bootstrap: ## Create the bucket for the Terraform state of ENV=staging (once)
	$(BOOTSTRAP) init -input=false
	$(BOOTSTRAP) apply -state=$(ENVIRONMENTS)/$(ENV).bootstrap.tfstate -var=environment=$(ENV)
	$(BOOTSTRAP) output -state=$(ENVIRONMENTS)/$(ENV).bootstrap.tfstate -raw backend >terraform/environments/$(ENV).s3.tfbackend

.PHONY: plan
plan: ## Plan Terraform changes of ENV=staging; TAG=... also changes the image, TAG=none stops all workers
	@PYTHONPATH=chassis $(PYTHON) -B -m celery_aws.contract contract.json
	$(BOOTSTRAPPED)
	$(INIT)
	tag=$$($(if $(TAG),echo '$(filter-out none,$(TAG))',$(DEPLOYED))) && \
	$(TERRAFORM) plan -input=false -var-file=environments/$(ENV).tfvars -var="image_tag=$$tag" -out=$(ENV).tfplan

.PHONY: apply
apply: ## Apply the last plan of ENV=staging
	$(TERRAFORM) apply $(ENV).tfplan

.PHONY: deployed
deployed: ## Show the image tag that was last deployed to ENV=staging
	$(BOOTSTRAPPED)
	@$(INIT) >&2
	@$(DEPLOYED)

# The tag of an image is the commit that it is built from; the scripts refuse one that ends in
# -dirty, which is not one.
push deploy: TAG ?= $(shell git rev-parse --quiet --verify HEAD 2>/dev/null)$(if $(shell git status --porcelain -- . 2>/dev/null),-dirty)
push rollout: export AWS_REGION = $(REGION)
push rollout: export AWS_DEFAULT_REGION = $(REGION)

.PHONY: push
push: ## Build the image of the commit and push it to the registry of ENV=staging, unless it exists
	@if grep -Eq '^ *image_repository *= *"[^"]' terraform/environments/$(ENV).tfvars; then \
		echo "$(ENV) runs images of another repository, to which its owner pushes"; \
	else chassis/terraform/push.sh $(NAME) $(call contract,contract["service"])-staging '$(TAG)'; fi

.PHONY: deploy
deploy: ## Deploy that image to ENV=staging, wait until it runs, roll back if it fails
	chassis/terraform/deploy.sh $(ENV) '$(TAG)'

.PHONY: rollout
rollout: ## Wait until all workers of ENV=staging run the image TAG=...
	$(wildcard chassis/terraform/rollout_*.sh) $(NAME) $(DEPLOYMENT_SECONDS) '$(TAG)' $(WORKERS)

.PHONY: pipeline
pipeline: ## Create the GitHub OIDC roles of ENV=staging for REPOSITORY=..., with BOUNDARY=<policy ARN> if required (once; see README.md)
	$(BOOTSTRAPPED)
	$(PIPELINE) init -reconfigure -input=false -backend-config=$(ENVIRONMENTS)/$(ENV).s3.tfbackend -backend-config=key=pipeline.tfstate
	$(PIPELINE) apply -var=environment=$(ENV) -var=github_repository='$(REPOSITORY)' -var=permissions_boundary_arn='$(BOUNDARY)'

.PHONY: destroy
destroy: ## Delete ENV=staging with its messages, results and images; see docs/deleting.md
	@chassis/terraform/destroy.sh $(ENV) $(NAME)
