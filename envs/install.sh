#!/bin/sh
# Let .venv have exactly the pinned requirements: make it if there is none or it has others, add an extra that it lacks,
# else do nothing. Needs a Python that Snakemake supports, nothing else.
#
#   EXTRAS        names of envs/extras/*.txt to have as well, or `all`; those that .venv has it keeps
#   TORCH         cuda or cpu: which wheels of torch Linux gets. Without it .venv keeps what it has, and a new one gets
#                 CUDA's where an NVIDIA GPU is seen
#   TORCH_INDEX   where CPU wheels come from: PyTorch's own index, or a mirror of it
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
names() { (cd envs/extras && echo *.txt | sed 's/\.txt//g'); }

case " ${EXTRAS:=} " in *" all "*) EXTRAS=$(names) ;; esac
for extra in $EXTRAS; do
    if [ ! -f "envs/extras/$extra.txt" ]; then
        echo "error: EXTRAS: there is no $extra; all, or some of: $(names)" >&2
        exit 1
    fi
done
case ${TORCH:=} in '' | cpu | cuda) ;; *) echo "error: TORCH=$TORCH: cpu or cuda" >&2 && exit 1 ;; esac

# .venv says of itself which torch it was asked for and which pins it was made with. Times say nothing: a touch, a clone or
# a copy changes them.
recorded=$(cat .venv/installed 2>/dev/null || true)
asked=$(echo "$recorded" | sed -n 's/^torch //p')
torch=${TORCH:-$asked}
new=
if [ -z "$asked" ] || [ "$torch" != "$asked" ] || ! echo "$recorded" | sed 1d | sha256 -c >/dev/null 2>&1; then
    new=true
    EXTRAS="$(echo "$recorded" | sed -n 's,.* envs/extras/\(.*\)\.txt$,\1,p') $EXTRAS"
fi
missing=
for extra in $(printf '%s\n' $EXTRAS | sort -u); do
    if [ -f "envs/extras/$extra.txt" ] && { [ "$new" ] || ! echo "$recorded" | grep -q " envs/extras/$extra\.txt$"; }; then
        missing="$missing envs/extras/$extra.txt"
    fi
done
if [ -z "$new$missing" ]; then
    exit 0
fi

# What a link points to is another checkout's, and `venv --clear` would empty it.
if [ -L .venv ]; then
    echo "error: $PWD/.venv is a symbolic link to $(readlink .venv), which does not have this checkout's pinned packages${missing:+, or lacks$missing}." >&2
    echo "It stays as it is. Either give this checkout an environment of its own: rm .venv, and the same command again." >&2
    echo "Or let make renew that one in the checkout that it belongs to, with the same files in envs as here." >&2
    echo "Or use it as it is, without make: .venv/bin/snakemake ..." >&2
    exit 1
fi

# pip puts uv in place, for as long as it takes; uv installs the rest several times faster.
uv() {
    if [ ! -d "${tool:-}" ]; then
        tool=$(mktemp -d)
        trap 'rm -rf "$tool"' EXIT
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --target "$tool" -r envs/uv.txt
    fi
    "$tool/bin/uv" pip install --python .venv/bin/python --no-deps "$@"
}
with() { for file; do printf -- '-r %s ' "$file"; done; }

if [ -z "$new" ]; then
    uv --require-hashes $(with $missing)
    sha256 $missing >>.venv/installed
    exit 0
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Winnow needs Python 3.11 or newer (Snakemake 9 does); found: $("$python" --version 2>&1 || echo none)." >&2
    echo "Name another one with: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
fi

if [ -z "$torch" ]; then
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then torch=cuda; else torch=cpu; fi
fi
wheels=envs/torch.txt
# Elsewhere the default index has no other wheels than those for CPUs.
if [ "$torch" = cpu ] && [ "$(uname -s)" = Linux ]; then
    if "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=20)' "$index/torch/" 2>/dev/null; then
        wheels=envs/torch-cpu.txt
        echo "torch: wheels for CPUs, from $index (TORCH=cuda: those for NVIDIA GPUs)"
    else
        echo "torch: $index, which has wheels for CPUs, cannot be reached: those of the default index, with CUDA's libraries, take 5 GB more"
    fi
fi

"$python" -m venv --clear .venv
if [ "$wheels" = envs/torch-cpu.txt ]; then
    uv --require-hashes $(with envs/requirements.txt $missing)
    # torch and torchvision from one place: built apart they do not load. Every hash that there is is held against.
    uv --default-index "$index" -r "$wheels"
else
    uv --require-hashes $(with envs/requirements.txt "$wheels" $missing)
fi
# What only the packages' own developers need takes 200 MB: their tests, and torch's headers and C++ tests.
for package in numpy pandas pyarrow scipy sklearn sympy networkx; do
    find .venv/lib/python3*/site-packages -path "*/site-packages/$package/*" -type d -name tests -prune -exec rm -r {} +
done
(cd .venv/lib/python3*/site-packages && rm -rf torch/include torch/test torch/bin/test_*)
# Compile what is imported, once, and not all that there is.
PYTHONDONTWRITEBYTECODE='' .venv/bin/python -c 'import altair, jinja2, onnx, onnxruntime, onnxscript, pandas, pyarrow.parquet
import scipy.stats, sklearn.datasets, sklearn.linear_model, snakemake.cli, torch_pruning, torchvision, vl_convert'
.venv/bin/python -m compileall -q scripts
# Last, so that an environment that was not finished has none.
{
    echo "torch $torch"
    sha256 envs/requirements.txt "$wheels" $missing
} >.venv/installed
