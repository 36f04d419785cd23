# The tasks of the project. None is needed to run it: see README.md.

PYTHON ?= .venv/bin/python

.PHONY: help venv check bench faults format lock wheel clean

help:  ## list the tasks
	@sed -n 's/^\([a-z]*\):.*## /\1  /p' $(MAKEFILE_LIST)

venv:  ## make .venv with everything `make check` needs
	python3 -m venv .venv
	.venv/bin/pip install --require-hashes -r requirements-dev.txt

check:  ## lint, types and all tests: what CI runs
	PYTHON=$(PYTHON) sh check.sh

bench:  ## speed, memory and state; with DATA=FILE the quality of models too, with PEERS=DIR other programs at the same work
	$(PYTHON) -m benchmarks $(if $(DATA),--data '$(DATA)')

KILLS ?= 100
faults:  ## every fault in the middle of everything, then KILLS=100 random kills (SEED=N: the same again)
	FAULTS=long KILLS=$(KILLS) FAULTS_REPORT=build/faults.json $(PYTHON) -m pytest tests/faults

format:  ## sort imports and format
	$(PYTHON) -m ruff check --select I --fix .
	$(PYTHON) -m ruff format .

# One lock for Python 3.11 to 3.13 on Linux and macOS, wheels only, one version of each package everywhere.
# Needs uv on the PATH (`pip install uv`). Versions already locked stay; `make lock UPGRADE=--upgrade` moves them.
UPGRADE ?=
UV_COMPILE = uv pip compile --no-config --universal --python-version 3.11 --fork-strategy fewest --only-binary :all: \
	--emit-build-options --generate-hashes --custom-compile-command 'make lock' --quiet $(UPGRADE)

lock:  ## resolve requirements*.in into requirements*.txt
	$(UV_COMPILE) --output-file requirements.txt requirements.in
	$(UV_COMPILE) --output-file requirements-dev.txt requirements-dev.in

wheel:  ## build dist/*.whl
	$(PYTHON) -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

clean:  ## remove what building and checking leave behind
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
