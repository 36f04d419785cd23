#!/bin/sh
# All that a change must pass. `make check` and CI run this; arguments go to pytest: `sh check.sh -k parquet`.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-.venv/bin/python}"

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest "$@"
