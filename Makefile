# Each target sets up what it needs: the first one run makes .venv from pyproject.toml and constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run in as many processes as there are cores; each keeps its linear algebra to one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export GX_ANALYTICS_ENABLED := false
export FEAST_USAGE := false
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help install demo demo-shop test coverage test-all test-feast bench lint format docs docs-serve airflow clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it by PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[airflow-lineage,baselines,bench,dev,docs,experiments,ray,telemetry]'
	@touch $@

install: $(READY) ## make .venv

demo: $(READY) ## the nightly job, end to end, on MovieLens-1M
	$(BIN)/python -m mmlora_cli.demo

demo-shop: $(READY) ## the same on a made-up shop whose truth is known; ARGS are its options
	$(BIN)/python -m mmlora_cli.demo_shop $(ARGS)

test: $(READY) ## the tests, under 10 minutes on 2 cores
	$(PYTEST)

coverage: $(READY) ## the tests, and which lines of mmlora they reach
	$(PYTEST) --cov=mmlora --cov=mmlora_cli --cov-report=term:skip-covered

test-all: $(READY) ## the tests and the longer proofs
	$(PYTEST) -m 'slow or not slow'

# Feast's own offline-store tests on the ASOF store, from a checkout of Feast that you have: FEAST_SOURCE is its path.
# What those tests import goes into a virtual environment of their own.
FEAST_VENV := .venv-feast
$(FEAST_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FEAST_VENV)
	$(FEAST_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,dev]' \
		testcontainers python-keycloak google-cloud-bigquery google-cloud-storage google-cloud-datastore \
		google-cloud-bigtable snowflake-connector-python redis pymongo minio pytest-lazy-fixtures pytest-env \
		assertpy deltalake
	@touch $@

test-feast: $(FEAST_VENV)/.ready ## Feast's offline-store tests on the ASOF store; FEAST_SOURCE is a checkout
	@test -n "$(FEAST_SOURCE)" || { echo "name a checkout of Feast: make test-feast FEAST_SOURCE=path" >&2; exit 2; }
	FEAST_SOURCE="$(abspath $(FEAST_SOURCE))" OMP_NUM_THREADS=1 \
		$(FEAST_VENV)/bin/pytest -m slow tests/features/test_asof_universal.py

# make bench BENCH=training runs one of tests/benchmarks/bench_*.py, ARGS are its options.
BENCH ?= *

bench: $(READY) ## throughput and scores beside other libraries; BENCH=training runs one, ARGS are its options
	@for script in tests/benchmarks/bench_$(BENCH).py; do $(BIN)/python $$script $(ARGS) || exit; done

lint: $(READY) ## ruff, codespell, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## the documentation as a site, in build/site
	$(BIN)/mkdocs build --strict

docs-serve: $(READY) ## the same on http://127.0.0.1:8000, built again whenever a page changes
	$(BIN)/mkdocs serve --strict

airflow: $(READY) ## Airflow on the demo's workspace; prints its address and how to log in
	PATH="$(abspath $(BIN)):$$PATH" docker/standalone.sh

clean: ## remove .venv, the demos' workspaces and caches
	rm -rf $(VENV) $(FEAST_VENV) var var-shop dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
