"""The demo with and without warm workers, and against the sum of its cells' own training and evaluation.

    python benchmarks/demo.py [--repeats 1] [--cores 2] [--skip-off]

Each run starts from nothing, in a copy of the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(cores: int, workers: str) -> tuple[float, list[dict]]:
    """Wall-clock seconds of a demo from nothing, and its cells' metrics."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Snakefile", "config.yaml", "rules", "scripts", "profiles", "envs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, Path(folder) / name)
        environment = os.environ | {"WINNOW_WORKERS": workers}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "snakemake", "demo", "--cores", str(cores)],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - start
        return seconds, [json.loads(path.read_text()) for path in Path(folder).glob("results/cells/**/metrics.json")]


def main(arguments: argparse.Namespace) -> None:
    for _ in range(arguments.repeats):
        warm, cells = run(arguments.cores, "on")
        spent = [cell["seconds"] for cell in cells]
        arithmetic = sum(parts["train"] + parts["evaluate"] for parts in spent)
        overhead = statistics.median(parts["total"] - parts["train"] - parts["evaluate"] for parts in spent)
        print(f"{len(cells)} cells on {arguments.cores} cores, workers on: {warm:.1f} s")
        share = arithmetic / arguments.cores / warm
        print(f"training and evaluation of all cells: {arithmetic:.1f} core s, {share:.2f} of it")
        print(f"a cell's own overhead (load and write), median: {overhead:.3f} s")
        if not arguments.skip_off:
            cold, _ = run(arguments.cores, "off")
            print(f"workers off: {cold:.1f} s, ratio {cold / warm:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--skip-off", action="store_true")
    main(parser.parse_args())
