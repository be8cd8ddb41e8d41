"""Screening against the whole grid: what of the training it takes, and whether it comes to the same choice.

    python benchmarks/screening.py [--repetitions 4] [--validation 10] [--cores 2] [--folder DIR]

Each repetition draws other training, validation and test images of other digits. All cells of both ways are trained
once, in copies of the sources in ``--folder`` (kept and taken up again; a temporary one if it is left out). What
screening would have trained follows from them by the function that the workflow's rule calls. What it comes to is held
against as many networks of each ratio and scope, drawn at random.
"""

from __future__ import annotations

import argparse
import collections
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import numpy as np
import yaml

from winnow import tables
from winnow.answers import screening, summary, verdict
from winnow.workflow import grid

CLASSES = ([5, 6, 7, 8, 9], [5, 6, 7, 8], [6, 7, 8, 9], [5, 7, 9], [6, 8, 9])
TOLERANCE, CLASS_MARGIN = 2.0, 10.0
# Random choices a repetition, for comparison.
DRAWS = 50


def configuration(repetitions: int, validation: int) -> dict[str, Any]:
    """The demo's configuration with a data set and an experiment a repetition."""
    base = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    names = [f"drawn_{number}" for number in range(repetitions)]
    for number, name in enumerate(names):
        base["datasets"][name] = base["datasets"]["digits"] | {
            "classes": CLASSES[number % len(CLASSES)],
            "seed": number,
            "val_per_class": validation,
        }
    return {
        "targets": names,
        "tolerance": TOLERANCE,
        "datasets": base["datasets"],
        "backbones": {"vgg_digits": base["backbones"]["vgg_digits"]},
        "recipes": base["recipes"],
        "experiments": {
            name: {
                "datasets": [name],
                "backbones": ["vgg_digits"],
                "criteria": ["average_weight", "geometric_median", "mean_activation", "apoz", "taylor"],
                "scopes": ["global_normalized", "layer"],
                "ratios": [0.2, 0.4, 0.6, 0.8],
                "inits": ["inherited"],
                "seeds": [0, 1, 2],
            }
            for name in names
        },
    }


def train(folder: Path, cells: list[grid.Cell], cores: int) -> None:
    """Make cells in a copy of the sources."""
    targets = [f"results/cells/{cell.path}/metrics.json" for cell in cells]
    environment = os.environ | {"WINNOW_WORKERS": "on"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *targets]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


@functools.cache
def metrics_of(folder: Path, cell: grid.Cell) -> dict[str, Any]:
    return summary.read_metrics(folder / "results" / "cells" / cell.path / "metrics.json")


@functools.cache
def predictions(folder: Path, cell: grid.Cell, column: str) -> np.ndarray:
    table = tables.read_table(folder / "results" / "cells" / cell.path / "predictions.parquet", "predictions")
    return table[column].to_numpy(zero_copy_only=False)


def answer(folder: Path, cells: list[grid.Cell]) -> dict[str, Any]:
    """What the verdict makes of these cells: the network to take home, judged."""
    frame = summary.summarise((cell, metrics_of(folder, cell)) for cell in cells)

    def labels(dataset: str) -> np.ndarray:
        return predictions(folder, next(cell for cell in cells if cell.dataset == dataset), "label")

    judge = verdict.Judge(cells, lambda cell: predictions(folder, cell, "correct"), labels, CLASS_MARGIN)
    (chosen,) = verdict.recommend(frame, judge, TOLERANCE)["chosen"]
    return chosen


def screened(folder: Path, experiment: dict[str, Any]) -> tuple[list[grid.Cell], float]:
    """The survivors, and the share of the whole grid's epochs that screening spends in all."""
    found, left = None, screening.candidates(experiment)
    for rung in screening.RUNGS:
        metrics = {cell: metrics_of(folder, cell) for cell in screening.rung_cells(left, rung)}
        found = screening.record(experiment, rung, metrics, TOLERANCE, found)
        left = screening.left(experiment, found)
    epochs = found["epochs"]
    return left, (epochs["screening"] + epochs["in_full"]) / epochs["whole_grid"]


def drawn(experiment: dict[str, Any], survivors: list[grid.Cell], generator: random.Random) -> list[grid.Cell]:
    """As many candidates of each ratio and scope as survived, at random: what no screening at all would choose from."""
    counts = collections.Counter((cell.ratio, cell.scope) for cell in survivors)
    candidates = screening.candidates(experiment)
    return [
        cell
        for (ratio, scope), count in counts.items()
        for cell in generator.sample([cell for cell in candidates if (cell.ratio, cell.scope) == (ratio, scope)], count)
    ]


def difference(whole: dict[str, Any], found: dict[str, Any]) -> tuple[float, ...]:
    """Whether network, ratio and verdict are the same, and what ``found`` is larger and more accurate by, in points."""
    return (
        verdict.describe(whole) == verdict.describe(found),
        whole["ratio"] == found["ratio"],
        whole["verdict"] == found["verdict"],
        100 * (found["macs"] - whole["macs"]) / whole["baseline_size"],
        100 * (found["accuracy"] - whole["accuracy"]),
    )


def compare(folder: Path, experiments: dict[str, dict[str, Any]]) -> None:
    """Print a row a repetition, and what they come to."""
    print("| repetition | epochs | the whole grid's choice | screening's choice | MACs, points | accuracy, points |")
    print("|--:|--:|---|---|--:|--:|")
    shares, rows, control = [], [], []
    for number, experiment in enumerate(experiments.values()):
        whole = answer(folder, grid.cells(experiment))
        survivors, share = screened(folder, experiment)
        found = answer(folder, screening.in_full(experiment, survivors))
        row = difference(whole, found)
        choices = [f"{verdict.describe(each)}: {each['verdict']}" for each in (whole, found)]
        if row[0]:
            choices[1] = "the same"
        print(f"| {number} | {100 * share:.0f} % | {' | '.join(choices)} | {row[3]:+.1f} | {row[4]:+.1f} |")
        shares.append(share)
        rows.append(row)
        generator = random.Random(number)
        for _ in range(DRAWS):
            cells = screening.in_full(experiment, drawn(experiment, survivors, generator))
            control.append(difference(whole, answer(folder, cells)))
    print(f"\n{100 * np.mean(shares):.0f} % of the epochs.")
    for name, found in ("screening", rows), ("as many networks at random", control):
        network, ratio, word, size, accuracy = np.mean(found, axis=0)
        print(
            f"{name}: the same network {100 * network:.0f} %, ratio {100 * ratio:.0f} %, verdict {100 * word:.0f} %; "
            f"MACs {size:+.1f} points of the unpruned network's, accuracy {accuracy:+.1f} points"
        )


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "rules", "scripts", "profiles", "envs"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, dirs_exist_ok=True)
            else:
                shutil.copy2(source, folder / name)
        content = configuration(arguments.repetitions, arguments.validation)
        (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        experiments = content["experiments"]
        for experiment in experiments.values():
            cells = grid.cells(experiment)
            for rung in screening.RUNGS:
                cells += screening.rung_cells(screening.candidates(experiment), rung)
            train(folder, cells, arguments.cores)
        compare(folder, experiments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--validation", type=int, default=10, metavar="N", help="validation images a class")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, metavar="DIR")
    main(parser.parse_args())
