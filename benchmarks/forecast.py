"""How far off a dry run's hours are: python benchmarks/forecast.py TARGET [--configfile FILE] [--cores 2]

In a checkout of its own, makes the statistics that say how fast the machine is, asks a dry run for the time that
TARGET's trainings take, and runs it. In the run's time is what jobs take beside the trainings that the forecast counts:
the smaller these are, the more of it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"s": 1, "min": 60, "h": 3600}


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Snakefile", "rules", "scripts", "profiles", "envs", "config.yaml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, Path(folder) / name)
        more = ["--configfile", arguments.configfile.resolve()] if arguments.configfile else []

        def snakemake(*targets: str) -> tuple[str, float]:
            command = [sys.executable, "-m", "snakemake", "--cores", str(arguments.cores), *targets, *more]
            start = time.perf_counter()
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            return done.stdout + done.stderr, time.perf_counter() - start

        unknown = re.search(r"snakemake (results/\S+/speed\.json)", snakemake("-n", arguments.target)[0])
        snakemake(unknown[1])
        said = re.search(r"Time: about ([\d.]+) (s|min|h) .*", snakemake("-n", arguments.target)[0])
        wanted = float(said[1]) * UNITS[said[2]]
        _, spent = snakemake(arguments.target)
    print(said[0])
    print(f"{arguments.target}: {spent:.0f} s, {spent / wanted:.2f} times the forecast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="an experiment with a list of seeds")
    parser.add_argument("--configfile", type=Path, metavar="FILE")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="of the run (default: 2)")
    main(parser.parse_args())
