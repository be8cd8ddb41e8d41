#!/bin/sh
# Pin envs/requirements.in for every platform and Python from 3.11, with hashes and without addresses.
set -eu
cd "$(dirname "$0")"
compile="uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header"
$compile --quiet requirements.in --output-file requirements.txt "$@"
# conda's environment names the same packages. Their pins are literal: Snakemake copies the file away from the others.
{
    sed '/^      - /d' winnow.yaml
    sed -n '/^[a-z]/s/^\(.*\) \\$/      - \1/p' requirements.txt
} >winnow.yaml.new
mv winnow.yaml.new winnow.yaml
echo uv | $compile --quiet - --output-file uv.txt "$@"
