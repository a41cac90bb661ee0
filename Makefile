# Nexus Gateway: `make help` lists what there is. A bare machine with python3 (3.11 or newer) and make is enough.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := .venv/uv/bin/uv
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: help run test check format smoke bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

run: .venv/runtime.stamp ## start on http://127.0.0.1:8000 with the built-in mock model and the key dev-key
	@exec $(BIN)/nexus-gateway serve

test: .venv/dev.stamp ## all tests, one seed
	@$(BIN)/pytest $(PYTEST_ARGS)

check: .venv/dev.stamp ## format, lint, types, import contracts, dependencies, shell scripts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src
	@$(BIN)/shellcheck gateway/scripts/*.sh .ci/run

format: .venv/dev.stamp ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

smoke: .venv/runtime.stamp ## an agent's turns against a running gateway, or one of its own
	@./gateway/scripts/agent_client_smoke.sh

bench: .venv/dev.stamp ## what the gateway costs, against the same calls without it
	@$(BIN)/python -m bench

lock: $(UV) ## pin the dependencies anew (for maintainers)
	@$(UV) pip compile $(LOCK) pyproject.toml requirements/build.in -o requirements/runtime.txt
	@$(UV) pip compile $(LOCK) pyproject.toml requirements/build.in --group dev -c requirements/runtime.txt \
		-o requirements/dev.txt

clean: ## remove what set-up and tools made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

LOCK := --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --only-binary :all: --python-version 3.11
SYNC := pip install --quiet --exact --require-hashes --only-binary :all: --python $(BIN)/python
SELF := pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .

# A later stamp stands for the earlier one too, so that `make run` after `make test` takes nothing away.
.venv/runtime.stamp: $(UV) requirements/runtime.txt pyproject.toml
	@if [ ! -e .venv/dev.stamp ]; then $(UV) $(SYNC) -r requirements/runtime.txt && $(UV) $(SELF); \
	else $(MAKE) --no-print-directory .venv/dev.stamp; fi
	@touch $@

.venv/dev.stamp: $(UV) requirements/dev.txt pyproject.toml
	@$(UV) $(SYNC) -r requirements/dev.txt
	@$(UV) $(SELF)
	@touch $@ .venv/runtime.stamp

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nexus Gateway needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x .venv/uv/bin/python || $(PYTHON) -m venv .venv/uv
	@.venv/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.txt
	@touch $@
