#!/bin/sh
# Create .venv with exactly the pinned requirements, compiled. Needs a Python that Snakemake supports, nothing else.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Winnow needs Python 3.11 or newer (Snakemake 9 does); found: $("$python" --version 2>&1 || echo none)." >&2
    echo "Name another one with: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi

"$python" -m venv --clear .venv
# pip puts uv in place; uv installs the rest several times faster and compiles it.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/uv.txt
.venv/bin/uv pip install --python .venv/bin/python --compile-bytecode --require-hashes -r envs/requirements.txt
.venv/bin/python -m compileall -q scripts
touch .venv/installed
