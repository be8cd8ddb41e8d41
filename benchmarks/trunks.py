"""What a grid's training takes where cells share their beginnings, against each cell training its own.

    python benchmarks/trunks.py [--cores 2]

The demo's data and network, ``fine_tune_first``, 3 criteria × 2 ratios × 1 seed, from nothing. A cell's time counts its
trunk's, which is what the cell would take alone: both sides come from one run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def trained(path: Path) -> float:
    seconds = json.loads(path.read_text())["seconds"]
    return seconds["train"] + seconds["evaluate"]


def main(arguments: argparse.Namespace) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["targets"] = ["trunks"]
    config["experiments"] = {
        "trunks": config["experiments"]["demo"]
        | {"criteria": ["average_weight", "mean_activation", "apoz"], "scopes": ["global"], "ratios": [0.2, 0.4]}
        | {"inits": ["inherited"], "seeds": [0], "protocols": ["fine_tune_first"], "latency": False}
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Snakefile", "rules", "scripts", "profiles", "envs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, Path(folder) / name)
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(config))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-m", "snakemake", "--cores", str(arguments.cores)]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        trunks = [trained(path) for path in Path(folder).glob("results/trunks/**/trunk.json")]
        cells = [trained(path) for path in Path(folder).glob("results/cells/**/*fine_tune_first/*/metrics.json")]
    alone = sum(cells)
    shared = alone - len(cells) * sum(trunks) + sum(trunks)
    print(
        f"{len(cells)} cells and {len(trunks)} trunk: {shared:.2f} s of training, {shared / alone:.3f} of {alone:.2f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    main(parser.parse_args())
