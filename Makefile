# Nexus Gateway: `make help` lists what there is. A bare machine with python3 (3.11 or newer) and make is enough.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
RUN_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
LOCK_ARGS ?=

BIN := .venv/bin
UV := .venv/uv/bin/uv

.PHONY: help run test test-system test-litellm check format proto dashboard smoke bench bench-kinds lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: .venv/runtime.stamp ## start on http://127.0.0.1:8000 with the built-in mock model and the key dev-key
	@exec $(BIN)/nexus-gateway serve $(RUN_ARGS)

test: .venv/dev.stamp ## all tests that need nothing but Python, one seed; a file's tests stay in one process
	@$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(PYTEST_ARGS)

test-system: .venv/dev.stamp ## the tests that need Debian's Prometheus and Chromium, which it installs
	@./tests/install_packages.sh
	@$(BIN)/pytest -m packages $(PYTEST_ARGS)

test-litellm: .venv/litellm.stamp ## the tests of litellm:// upstreams with the real library, in an environment of their own
	@.venv/litellm/bin/pytest tests/litellm $(PYTEST_ARGS)

check: .venv/dev.stamp ## format, lint, types, import contracts, dependencies, the worker contract, scripts, containers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src
	@$(BIN)/buf lint proto
	@$(BIN)/buf format --diff --exit-code proto
	@$(BIN)/python proto/generate.py --check
	@$(BIN)/python deploy/grafana/dashboard.py --check
	@$(BIN)/shellcheck gateway/scripts/*.sh tests/*.sh .ci/run
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/docker-compose -f docker-compose.yml config --quiet
	@MODEL_ID=m $(BIN)/docker-compose -f docker-compose.yml -f docker-compose.vllm.yml config --quiet

format: .venv/dev.stamp ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: .venv/dev.stamp ## make the stubs of the worker contract anew
	@$(BIN)/python proto/generate.py

dashboard: .venv/dev.stamp ## make the Grafana dashboard anew
	@$(BIN)/python deploy/grafana/dashboard.py

smoke: .venv/runtime.stamp ## an agent's turns against a running gateway, or one of its own
	@./gateway/scripts/agent_client_smoke.sh

bench: .venv/runtime.stamp ## what the gateway costs, against the same calls without it (under a minute)
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-kinds: .venv/runtime.stamp ## what gRPC workers cost the gateway, against the same answers over HTTP
	@$(BIN)/python -m bench.kinds $(BENCH_ARGS)

lock: $(UV) ## pin what pyproject.toml asks for (for maintainers; newer versions with LOCK_ARGS=--upgrade)
	@$(LIKE_PIP); $(UV) $(LOCK) requirements/uv.in -o requirements/uv.txt
	@$(LIKE_PIP); $(UV) $(LOCK) pyproject.toml requirements/build.in -o requirements/runtime.txt
	@$(LIKE_PIP); $(UV) $(LOCK) pyproject.toml requirements/build.in --extra litellm -c requirements/runtime.txt \
		-o requirements/litellm.txt
	@$(LIKE_PIP); $(UV) $(LOCK) pyproject.toml requirements/build.in --extra litellm --group litellm-tests \
		-c requirements/litellm.txt -o requirements/litellm-tests.txt
	@$(LIKE_PIP); $(UV) $(LOCK) pyproject.toml requirements/build.in --extra otel -c requirements/litellm.txt \
		-o requirements/otel.txt
	@$(LIKE_PIP); $(UV) $(LOCK) pyproject.toml requirements/build.in --extra otel --group dev -c requirements/otel.txt \
		-o requirements/dev.txt

clean: ## remove what set-up and tools made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

LOCK = pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--only-binary :all: $(LOCK_ARGS)
SYNC := pip sync --quiet --require-hashes --only-binary :all: --python $(BIN)/python
SELF := pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .

# uv reads no configuration of pip's: hand it the index and the certificates that pip was given, unless it has its own.
define LIKE_PIP
told="$$(.venv/uv/bin/pip config list 2>/dev/null || true)"; \
of_pip() { sed -nE "s/^(:env:|global)\.$$1='(.*)'$$/\2/p" <<<"$$told" | head -n 1; }; \
index="$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$$(of_pip index.url)}}"; cert="$${SSL_CERT_FILE:-$$(of_pip cert)}"; \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
if [ -n "$$cert" ]; then export SSL_CERT_FILE="$$cert"; fi
endef

# A stamp is newer than what it was made from. The second stands for the first too, so that `make run` after
# `make test` takes nothing away.
.venv/runtime.stamp: $(UV) requirements/runtime.txt pyproject.toml
	@if [ -e .venv/dev.stamp ]; then $(MAKE) --no-print-directory .venv/dev.stamp; else \
		$(LIKE_PIP); $(UV) $(SYNC) requirements/runtime.txt; $(UV) $(SELF); fi
	@touch $@

.venv/dev.stamp: $(UV) requirements/dev.txt pyproject.toml
	@$(LIKE_PIP); $(UV) $(SYNC) requirements/dev.txt; $(UV) $(SELF)
	@$(UV) pip check --quiet --python $(BIN)/python
	@touch $@ .venv/runtime.stamp

# Apart from the rest: LiteLLM asks for an older openai than our tests do.
.venv/litellm.stamp: $(UV) requirements/litellm-tests.txt pyproject.toml
	@test -x .venv/litellm/bin/python || $(PYTHON) -m venv .venv/litellm
	@$(LIKE_PIP); $(UV) $(SYNC:$(BIN)/python=.venv/litellm/bin/python) requirements/litellm-tests.txt; \
		$(UV) $(SELF:$(BIN)/python=.venv/litellm/bin/python)
	@touch $@

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nexus Gateway needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x .venv/uv/bin/python || $(PYTHON) -m venv .venv/uv
	@.venv/uv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/uv.txt
	@touch $@
