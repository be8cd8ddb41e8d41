"""Cells side by side, with the threads that their work gives them, against one at a time with all cores.

    python benchmarks/side_by_side.py [--architecture squeezenet1_1] [--size 96] [--batch 8] [--cells 6] [--cores 2]
        [--epochs 4] [--images 400] [--repeats 3]

Whole runs of the workflow in turn, A B A B …: A as the rules have it, B with `--set-threads finetune=CORES`. Each makes
the same unpruned cells, one a seed, of noise; the store and the backbone are there before. The start of Snakemake and
of the warm workers counts. One run more, before them, warms up the caches of the disk and of Python.
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

from paired import compare, machine

ROOT = Path(__file__).resolve().parents[1]


def configuration(arguments: argparse.Namespace, images: Path) -> dict:
    recipe = {"epochs": arguments.epochs, "batch_size": arguments.batch, "learning_rate": 0.001}
    head = "gap" if arguments.architecture == "vgg_digits" else "classifier"
    seeds = list(range(arguments.cells))
    axes = {"datasets": ["noise"], "backbones": ["net"], "criteria": ["random"], "scopes": ["layer"], "ratios": [0.0]}
    size = {"store_size": arguments.size, "image_size": arguments.size}
    return {
        "targets": ["cells"],
        "datasets": {"noise": {"source": "folder", "path": str(images), "recipe": "short", **size}},
        "backbones": {"net": {"architecture": arguments.architecture, "head": head, "weights": "random"}},
        "recipes": {"short": recipe},
        "experiments": {"cells": {**axes, "seeds": seeds}},
    }


def draw(folder: Path, images: int, size: int) -> None:
    """Noise of two classes: so many images to train on, and a few to choose and to judge by."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 20), ("test", 20)):
        for number in range(count):
            place = folder / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(place / f"{number}.png")


def main(arguments: argparse.Namespace) -> None:
    machine(1)
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        checkout.mkdir()
        for name in ("Snakefile", "rules", "scripts", "profiles", "envs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, checkout / name)
        draw(Path(folder) / "images", arguments.images, arguments.size)
        (checkout / "config.yaml").write_text(json.dumps(configuration(arguments, Path(folder) / "images")))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def snakemake(*options: str) -> None:
            command = [sys.executable, "-m", "snakemake", "--cores", str(arguments.cores), "--resources", "gpu=0"]
            command += ["--until", "finetune", *options]
            found = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
            if found.returncode:
                sys.exit(found.stdout + found.stderr)

        def cells(*options: str) -> list[dict]:
            shutil.rmtree(checkout / "results" / "cells", ignore_errors=True)
            snakemake(*options)
            return [json.loads(path.read_text()) for path in checkout.glob("results/cells/**/metrics.json")]

        def alone() -> None:
            cells("--set-threads", f"finetune={arguments.cores}")

        print("of each cell, threads:", sorted({cell["threads"] for cell in cells()}))
        name = f"{arguments.cells} {arguments.architecture} at {arguments.size} pixels, batch {arguments.batch}"
        compare(f"{name}: side by side / one at a time", cells, alone, arguments.repeats, warm_up=False)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="squeezenet1_1")
    result.add_argument("--size", type=int, default=96)
    result.add_argument("--batch", type=int, default=8)
    result.add_argument("--cells", type=int, default=6)
    result.add_argument("--cores", type=int, default=2)
    result.add_argument("--epochs", type=int, default=4)
    result.add_argument("--images", type=int, default=400)
    result.add_argument("--repeats", type=int, default=3)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
