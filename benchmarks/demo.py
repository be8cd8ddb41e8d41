"""The demo with and without warm workers, and against the sum of its cells' own training and evaluation.

    python benchmarks/demo.py [--repeats 1] [--cores 2] [--skip-off]
    python benchmarks/demo.py --answers 10 [--cores 2]

Each run starts from nothing, in a copy of the sources. ``--answers``: so many demos in one run, that of number i with
the first seed 20 i and without latencies, and what each comes to.
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

import yaml

ROOT = Path(__file__).resolve().parents[1]


def snakemake(folder: Path, cores: int, workers: str, *targets: str) -> float:
    """Wall-clock seconds of targets from nothing, in a copy of the sources."""
    for name in ("Snakefile", "config.yaml", "rules", "scripts", "profiles", "envs"):
        source = ROOT / name
        if not (folder / name).exists():
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    environment = os.environ | {"WINNOW_WORKERS": workers}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(cores)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def run(cores: int, workers: str) -> tuple[float, list[dict]]:
    """Wall-clock seconds of a demo from nothing, and its cells' metrics."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = snakemake(Path(folder), cores, workers, "demo")
        return seconds, [json.loads(path.read_text()) for path in Path(folder).glob("results/cells/**/metrics.json")]


def answers(cores: int, count: int) -> list[dict]:
    """The recommendations of so many demos with other seeds."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    demo = config["experiments"]["demo"] | {"latency": False}
    names = [f"demo_{number}" for number in range(count)]
    config |= {"targets": names, "experiments": {name: demo | {"first_seed": 20 * i} for i, name in enumerate(names)}}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        files = [f"results/experiments/{name}/recommendation.json" for name in names]
        snakemake(Path(folder), cores, "on", *files)
        return [json.loads((Path(folder) / file).read_text()) for file in files]


def main(arguments: argparse.Namespace) -> None:
    if arguments.answers:
        found = answers(arguments.cores, arguments.answers)
        print("\n".join(each["lines"][0] for each in found))
        decided = sum(each["verdicts"][0]["verdict"] != "undecided" for each in found)
        print(f"{decided} of {len(found)} decided")
        return
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
    parser.add_argument("--answers", type=int, metavar="N")
    main(parser.parse_args())
