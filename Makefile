# Rapport's commands. `make` alone prints them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help
help: ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

.PHONY: setup
setup: $(STAMP) ## make .venv with everything that the project needs

$(STAMP): requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.12, say"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: demo
demo: setup ## a fictional shop with a fast clock: about a minute, then the mails to read
	@$(BIN)/rapport demo

.PHONY: up
up: setup ## everything in one process, kept in .rapport
	@$(BIN)/rapport up

# Their tests start servers and workers by the dozen, and would be in each other's way.
ONE_BY_ONE := tests/chaos tests/contract tests/e2e

.PHONY: test
test: setup lint ## lint, types and every test, JOBS=2 files at a time but for those that start many processes
	@$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(ONE_BY_ONE))
	@$(BIN)/python -m pytest $(ONE_BY_ONE)

.PHONY: lint
lint: setup ## ruff and mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.PHONY: format
format: setup ## rewrite the sources as ruff would have them
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: cluster
cluster: setup ## Kafka, PostgreSQL and two workers of each service on this machine, without Docker
	@$(BIN)/python -m deploy.dev.cluster

.PHONY: bench
bench: setup ## measure each part beside its limit; ONLY=mailer one of them, JSON=FILE writes the figures
	@$(BIN)/python -m bench $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json "$(JSON)")

.PHONY: bench-long
bench-long: setup ## measure what takes long: everything on one machine, ten million timers, memory, what others make of it
	@$(BIN)/python -m bench --long $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json "$(JSON)")

.PHONY: chaos
chaos: setup ## hurt everything at random for MINUTES=2 (or FAULTS=100) from SEED, one each PAUSE=1 seconds, and hold a ledger against what is left
	@$(BIN)/python -m tests.chaos $(if $(LOG),--log $(LOG)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) $(if $(PAUSE),--pause $(PAUSE)) $(if $(REPORT),--report $(REPORT))

.PHONY: simulate
simulate: setup ## play HISTORIES=2000 of the whole on a machine of its own time, or one of them again: SEED=n
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--histories $(or $(HISTORIES),2000) --jobs $(or $(JOBS),2)) $(if $(REPLAY),--replay)

.PHONY: requirements
requirements: setup ## pin the newest versions again
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --no-emit-index-url --no-header --universal --python-version 3.11 --extra demo pyproject.toml -o requirements/run.txt
	@$(BIN)/uv pip compile --quiet --upgrade --no-emit-index-url --no-header --universal --python-version 3.11 --extra demo --extra dev pyproject.toml -o requirements/dev.txt
	@sed -i '/^--/d' requirements/*.txt

AUDIT := .cache/audit/bin

.PHONY: audit
audit: ## look up the dependencies among the published advisories; fails where one cannot be looked up
	@test -x $(AUDIT)/pip-audit || { $(PYTHON) -m venv .cache/audit && $(AUDIT)/pip install --quiet --disable-pip-version-check pip-audit; }
	@$(AUDIT)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements/run.txt

.PHONY: clean
clean: ## remove what was built, but not what was recorded in .rapport
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
