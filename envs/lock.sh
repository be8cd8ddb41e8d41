#!/bin/sh
# Pin envs/requirements.in for every platform and Python from 3.11, with hashes and without addresses.
set -eu
cd "$(dirname "$0")"
compile="uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header"
$compile --quiet requirements.in --output-file requirements.txt "$@"
echo uv | $compile --quiet - --output-file uv.txt "$@"
