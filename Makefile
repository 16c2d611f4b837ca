# Everything a checkout needs. The first target makes .venv and installs the pinned packages; afterwards nothing is fetched or built.

PYTHON ?= python3
RUN := .venv/bin/python -P -m

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
INSTALL := .venv/bin/python -m pip install --quiet --quiet --no-deps --require-hashes

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

# Processes that run tests: one more than there are cores, because a third of the time a test waits for another process.
# 0 runs all of them in one process: for a debugger, or to see a test that hangs.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo dev test test-fast lint coverage hooks bench week night lock

help:
	@echo "make demo    a made-up district, synced three times: see what the pipeline does"
	@echo "make dev     the Dagster UI on http://127.0.0.1:3000"
	@echo "make test    every test, in several processes (make test WORKERS=0: in one)"
	@echo "make test-fast   the quick ones: the loop while working"
	@echo "make lint    ruff, sqlfluff, a scan for secrets, mypy"
	@echo "make coverage  every test, and how much of the package they run"
	@echo "make hooks   run the quick part of make lint before each commit"
	@echo "make bench   speed against the floor of this machine, dlt and an ORM: an hour"
	@echo "make week    a week of nights in half an hour, with faults: Linux, a C compiler"
	@echo "make night   a night of 200 districts, by runs and by shards: hours; Linux, a C compiler"
	@echo "make lock    pin the packages that pyproject.toml names (needs uv)"
	@echo "Other Python than python3: make PYTHON=python3.12 ..."

demo: .venv/installed
	@.venv/bin/roster demo

dev: .venv/installed
	@.venv/bin/roster dev

test: .venv/installed-dev
	$(RUN) $(PYTEST)

test-fast: .venv/installed-dev
	$(RUN) $(PYTEST) -m "not slow"

# All but mypy are the hooks of .pre-commit-config.yaml too.
lint: .venv/installed-dev
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) sqlfluff lint --nocolor --disable-progress-bar dbt_like_sql roster_pipeline
	git ls-files -z | xargs -0 -n 250 -P 2 $(RUN) detect_secrets.pre_commit_hook --no-verify --baseline .secrets.baseline
	$(RUN) mypy

# The tests start many processes, each of which writes a file of its own; they are combined at the end.
coverage: .venv/installed-dev
	$(RUN) coverage erase
	COVERAGE_CORE=ctrace $(RUN) coverage run -m $(PYTEST)
	$(RUN) coverage combine --quiet
	$(RUN) coverage report

hooks: .venv/installed-dev
	$(RUN) pre_commit install

bench: .venv/installed-dev .venv-dlt/installed
	.venv/bin/python -m benchmarks --dlt .venv-dlt/bin/python --tenfold
	.venv/bin/python -m benchmarks.night --unchanged --districts 1000

week: .venv/installed-dev
	.venv/bin/python -m benchmarks.week

night: .venv/installed-dev
	.venv/bin/python -m benchmarks.night

lock:
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --output-file requirements-dev.lock --extra dev --constraint requirements.lock
	$(LOCK) benchmarks/requirements-dlt.in --output-file benchmarks/requirements-dlt.lock --constraint requirements-dev.lock
	$(LOCK) deploy/kubernetes/launcher.in --output-file deploy/kubernetes/launcher.lock --constraint requirements.lock

# The project is linked by hand rather than with `pip install --editable`, which would first have to fetch setuptools.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "Python 3.11 to 3.14 is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing the pinned packages into .venv (once; a minute or two) ..."
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --requirement requirements.lock
	@.venv/bin/python -c 'import os, pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path("purelib"), "roster_pipeline.pth").write_text(os.getcwd() + "\n")'
	@printf '#!/bin/sh\nexec "%s" -P -m roster_pipeline.cli "$$@"\n' "$$PWD/.venv/bin/python" > .venv/bin/roster
	@chmod +x .venv/bin/roster
	@touch $@

.venv/installed-dev: requirements-dev.lock .venv/installed
	@echo "Installing what tests and linters need ..."
	@$(INSTALL) --requirement requirements-dev.lock
	@touch $@

# dlt is only what the benchmark compares with; its packages stay out of .venv.
.venv-dlt/installed: requirements.lock benchmarks/requirements-dlt.lock
	@echo "Installing what the benchmark compares with ..."
	@$(PYTHON) -m venv .venv-dlt
	@$(subst .venv,.venv-dlt,$(INSTALL)) --requirement requirements.lock
	@$(subst .venv,.venv-dlt,$(INSTALL)) --requirement benchmarks/requirements-dlt.lock
	@touch $@
