# The project's commands. Each sets up what it needs; the first takes a minute, later ones start at once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTS ?= tests
WORKERS ?= 2

.PHONY: help setup demo test check format dashboards bench oracle chaos soak endless lock clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) ## Make .venv with the locked dependencies

$(INSTALLED): requirements.lock pyproject.toml
	@python=""; \
	for candidate in $${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "streamproc needs Python 3.11 or newer with its venv module, and none was found; PYTHON=/path/to/python make $(MAKECMDGOALS) names one" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  echo "Setting up $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Run the bundled pipeline on a year of real flights; results go to demo-output/
	@$(BIN)/streamproc demo

test: setup ## Run the tests, a file at a time on each of two processes (TESTS=tests/unit for some of them, WORKERS=0 for one process)
	@$(BIN)/python -m pytest -rs --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --inline-snapshot=disable $(TESTS)

check: setup ## Lint, check the format, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Format and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

dashboards: setup ## Render the Grafana dashboards from their code
	@$(BIN)/python -m deploy.dashboards

bench: setup ## Measure; see tests/benchmarks
	@$(BIN)/python -m tests.benchmarks

oracle: setup ## Compare every Nexmark query with Apache Flink's rows (PEERS=../shared/peers, OPTIONS="--query q5 --seed 7")
	@$(BIN)/python -m tests.oracle $(if $(PEERS),--peers $(PEERS)) $(OPTIONS)

chaos: setup ## Kill, stop and resume a job and its broker at random (MINUTES=10, OPTIONS=--operators, --service)
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(OPTIONS)

soak: setup ## Run a job under a steady load and see that nothing grows (MINUTES=120)
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),120)

endless: setup ## Every stateful operator at full rate, to see that nothing grows (MINUTES=10)
	@$(BIN)/python -m tests.endless --minutes $(or $(MINUTES),10)

lock: setup ## Renew requirements.lock after a change of dependencies
	@printf 'hatchling>=1.27,<2\neditables>=0.5,<1\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --extra dev --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml -

clean: ## Remove everything that was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build demo-output .streamproc
