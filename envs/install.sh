#!/bin/sh
# Let .venv have exactly the pinned requirements, compiled: make it if it has none or others, else do nothing. Needs a
# Python that Snakemake supports, nothing else.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

# .venv says of itself which pins it was made with. Times say nothing: a touch, a clone or a copy changes them.
pins=$(cat envs/uv.txt envs/requirements.txt | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d ' ' -f 1)
: "${pins:?no program sha256sum or shasum}"
if [ "$(cat .venv/installed 2>/dev/null)" = "$pins" ]; then
    exit 0
fi

# What a link points to is another checkout's, and `venv --clear` would empty it.
if [ -L .venv ]; then
    echo "error: $PWD/.venv is a symbolic link to $(readlink .venv), which does not have this checkout's pinned packages." >&2
    echo "It stays as it is. Either give this checkout an environment of its own: rm .venv, and the same command again." >&2
    echo "Or let make renew that one in the checkout that it belongs to, with the same envs/requirements.txt as here." >&2
    echo "Or use it as it is, without make: .venv/bin/snakemake ..." >&2
    exit 1
fi

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
# Last, so that an environment that was not finished has none.
echo "$pins" >.venv/installed
