#!/bin/sh
# Pin requirements.in and extras/*.in, in one resolution for every platform and Python from 3.11, with hashes and without
# addresses:
#
#   requirements.txt   what everybody gets, less the next two
#   torch.txt          torch and what comes with it from the default index: on Linux CUDA's libraries, elsewhere nothing
#   torch-cpu.txt      the same without CUDA, for Linux, from PyTorch's own index ($TORCH_INDEX). Where that cannot be
#                      reached, the file stays as it is, and this script says so
#   extras/NAME.txt    what an extra adds to them
#   winnow.yaml        conda's environment: all of them but the wheels for CPUs and what only extras/dev.in needs
#
# Versions stay what they are; with --upgrade, or --upgrade-package NAME, they do not. Needs uv, which the extra dev has.
set -eu
cd "$(dirname "$0")"
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
compile="uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header"

# The pins of $1 whose names are in the list $2, or with "not" as $3 those whose names are not.
pins() {
    awk -v want="${3:-}" 'NR == FNR { listed[$1]; next } /^[^ #]/ { name = $1; sub(/==.*/, "", name); keep = (name in listed) == (want == "") } keep' "$2" "$1"
}
names() { sed -n 's/^\([a-z0-9][a-z0-9.-]*\)==.*/\1/p' "$@"; }

# What is pinned now is kept by uv where it can be; so each subset below has the versions of the whole.
cat requirements.txt torch.txt extras/*.txt >"$folder/all.txt" 2>/dev/null || true
$compile requirements.in extras/*.in --output-file "$folder/all.txt" "$@" >/dev/null
cp "$folder/all.txt" "$folder/base.txt"
$compile requirements.in --output-file "$folder/base.txt" >/dev/null
names "$folder/base.txt" >"$folder/base"
grep -E '^(torch|torchvision|triton|cuda-.*|nvidia-.*)$' "$folder/base" >"$folder/torch"
pins "$folder/base.txt" "$folder/torch" >torch.txt
pins "$folder/base.txt" "$folder/torch" not >requirements.txt
for extra in extras/*.in; do
    cp "$folder/all.txt" "$folder/extra.txt"
    $compile "$extra" --output-file "$folder/extra.txt" >/dev/null
    pins "$folder/extra.txt" "$folder/base" not >"${extra%.in}.txt"
done
echo uv | $compile - --output-file uv.txt "$@" >/dev/null
cpu=$(sed -n 's/^\(torch\|torchvision\)==\([0-9.]*\)$/\1==\2+cpu/p' requirements.in)
if echo "$cpu" | $compile --no-deps --default-index "$index" - --output-file "$folder/cpu.txt" >/dev/null 2>&1; then
    cp "$folder/cpu.txt" torch-cpu.txt
elif [ "$(names torch-cpu.txt | sort -u)" = "$(echo "$cpu" | sed 's/==.*//')" ] && ! grep -o '^[a-z]*==[^ ]*' torch-cpu.txt | grep -qvxF "$cpu"; then
    echo "torch-cpu.txt stays as it is: $index cannot be reached" >&2
else
    echo "torch-cpu.txt has no hashes: $index cannot be reached" >&2
    echo "$cpu" >torch-cpu.txt
fi
# conda's pins are literal: Snakemake copies the file away from the others.
{
    sed '/^      - /d' winnow.yaml
    cat requirements.txt torch.txt $(ls extras/*.txt | grep -v '/dev\.txt$') | sed -n '/^[a-z]/s/^\(.*\) \\$/      - \1/p' | sort -u
} >"$folder/winnow.yaml"
cp "$folder/winnow.yaml" winnow.yaml
