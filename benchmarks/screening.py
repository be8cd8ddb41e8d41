"""Short trainings against full ones: what of the training they take, and whether they come to the same choice.

    python benchmarks/screening.py [--repetitions 4] [--validation 10] [--cores 2] [--folder DIR]

Each repetition draws other training, validation and test images of other digits. Every network is trained for less, in
full with the seed that chooses, and with others that judge, in copies of the sources in ``--folder`` (kept and taken up
again; a temporary one if it is left out). What is chosen follows from these by the functions that the workflow's rule
calls. It is held against a choice, by full trainings, among as many networks of each ratio and scope, drawn at random.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
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

from winnow.answers import growth, outcomes, verdict
from winnow.workflow import grid

CLASSES = ([5, 6, 7, 8, 9], [5, 6, 7, 8], [6, 7, 8, 9], [5, 7, 9], [6, 8, 9])
TOLERANCE = 2.0
EPOCHS = 20  # of the recipe
CHOOSES, JUDGE = 0, (1, 2)
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
                "ratios": [0.1, 0.2, 0.4, 0.6, 0.8],
                "inits": ["inherited"],
                "seeds": "auto",
                "screening": True,
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


def results(folder: Path) -> outcomes.Outcomes:
    return outcomes.Outcomes(folder / "results")


def chosen(found: outcomes.Outcomes, networks: list[grid.Cell], rung: str | None) -> growth.Candidate:
    """What is proposed of these networks by trainings of a rung, or in full."""
    choice = growth.choose(found.candidates(networks, [CHOOSES], "macs", rung), TOLERANCE)
    return choice.finalists[choice.proposal]


def screened(found: outcomes.Outcomes, experiment: dict[str, Any]) -> tuple[list[grid.Cell], float]:
    """The networks that all rungs compare, and the share of full trainings' epochs that their short ones take."""
    left, spent = growth.networks(experiment), 0
    whole = EPOCHS * (len(left) + 1)
    for rung in growth.RUNGS:
        spent += EPOCHS // int(rung.removeprefix("short_")) * (len(left) + 1)
        if rung != growth.RUNGS[-1]:
            candidates = found.candidates(left, [CHOOSES], "macs", rung)
            left = [candidate.cell for candidate in growth.better_half(candidates)]
    return left, spent / whole


def drawn(networks: list[grid.Cell], left: list[grid.Cell], generator: random.Random) -> list[grid.Cell]:
    """As many networks of each ratio and scope as are left, at random."""
    counts = collections.Counter((cell.ratio, cell.scope) for cell in left)
    return [
        cell
        for (ratio, scope), count in counts.items()
        for cell in generator.sample([cell for cell in networks if (cell.ratio, cell.scope) == (ratio, scope)], count)
    ]


def difference(found: outcomes.Outcomes, whole: grid.Cell, other: grid.Cell) -> tuple[float, ...]:
    """Whether network and ratio are the same, and what ``other`` is larger and more accurate by, in points.

    The size is the MACs against the unpruned network's, the accuracy the test's over the seeds that judge.
    """

    def accuracy(cell: grid.Cell) -> float:
        return np.mean([found.metrics(dataclasses.replace(cell, seed=seed))["accuracy"] for seed in JUDGE])

    sizes = [found.size([cell], "macs") for cell in (whole, other, whole.baseline)]
    return (
        whole == other,
        whole.ratio == other.ratio,
        100 * (sizes[1] - sizes[0]) / sizes[2],
        100 * (accuracy(other) - accuracy(whole)),
    )


def said(cell: grid.Cell) -> str:
    return verdict.describe(dataclasses.asdict(cell))


def compare(folder: Path, experiments: dict[str, dict[str, Any]]) -> None:
    """Print a row a repetition, and what they come to."""
    print("| repetition | epochs | full trainings choose | short ones choose | MACs, points | accuracy, points |")
    print("|--:|--:|---|---|--:|--:|")
    shares, rows, control = [], [], []
    found = results(folder)
    for number, experiment in enumerate(experiments.values()):
        networks = growth.networks(experiment)
        whole = chosen(found, networks, None).cell
        left, share = screened(found, experiment)
        short = chosen(found, left, growth.RUNGS[-1]).cell
        row = difference(found, whole, short)
        other = "the same" if row[0] else said(short)
        print(f"| {number} | {100 * share:.0f} % | {said(whole)} | {other} | {row[2]:+.1f} | {row[3]:+.1f} |")
        shares.append(share)
        rows.append(row)
        generator = random.Random(number)
        for _ in range(DRAWS):
            control.append(difference(found, whole, chosen(found, drawn(networks, left, generator), None).cell))
    print(f"\n{100 * np.mean(shares):.0f} % of the epochs.")
    for name, each in ("short trainings", rows), ("as many networks at random", control):
        network, ratio, size, accuracy = np.mean(each, axis=0)
        print(
            f"{name}: the same network {100 * network:.0f} %, ratio {100 * ratio:.0f} %; MACs {size:+.1f} points of "
            f"the unpruned network's, accuracy {accuracy:+.1f} points"
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
            networks = growth.networks(experiment)
            cells = grid.cells(experiment | {"seeds": [CHOOSES, *JUDGE]})
            for rung in growth.RUNGS:
                cells += growth.rung_cells(networks, rung)
            train(folder, cells, arguments.cores)
        compare(folder, experiments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--validation", type=int, default=10, metavar="N", help="validation images a class")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, metavar="DIR")
    main(parser.parse_args())
