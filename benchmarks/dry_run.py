"""What the DAG itself costs: a dry run of the shipped experiments, with as many seeds as make so many cells.

    python benchmarks/dry_run.py [--cells 1000 10000]

Processor time and memory are those of Snakemake's process, so that other processes on the machine lengthen them little.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from winnow.workflow import config, grid


def seeded(raw: dict, seeds: int) -> dict:
    """The configuration with so many seeds in each of its targets."""
    experiments = {name: raw["experiments"][name] | {"seeds": list(range(seeds))} for name in raw["targets"]}
    return raw | {"experiments": raw["experiments"] | experiments}


def cells(raw: dict) -> int:
    checked = config.load(raw)
    return len({cell for name in checked.targets for cell in grid.cells(checked.experiments[name].model_dump())})


def main(arguments: argparse.Namespace) -> None:
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    # Upwards: the memory of children is known as the largest of all so far.
    for wanted in sorted(arguments.cells):
        configuration = seeded(raw, math.ceil(wanted / cells(seeded(raw, 1))))
        with tempfile.TemporaryDirectory() as folder:
            for name in ("Snakefile", "rules", "scripts", "profiles", "envs"):
                source = ROOT / name
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, Path(folder) / name)
            (Path(folder) / "config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            command = [sys.executable, "-m", "snakemake", "-n", "-q", "--cores", str(os.cpu_count())]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"{cells(configuration)} cells: {spent:.1f} s of processor time, {seconds:.1f} s of wall time, "
            f"{after.ru_maxrss / 1024:.0f} MB"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10000], metavar="N")
    main(parser.parse_args())
