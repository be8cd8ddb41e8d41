"""What the answer promises and what it decides, the whole of it simulated: choice, looks, ladder.

    python benchmarks/answers.py [--runs 2000] [--only NAME]    simulated experiments
    python benchmarks/answers.py draws [--draws 60]             coverage on real draws of digits

A simulated experiment has some sizes of network and several candidates of each. All are trained once and compared on
validation images; of each size the best is a finalist, judged by fresh trainings as winnow.answers.procedure has it,
until that asks for no more. An image has its difficulty, which all networks share in part; each candidate finds some
images easier and others harder than the others do, in all its trainings; each training shifts the accuracy.

With folds, the validation images of the choosing training are images that other folds test.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import scipy.special

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.answers import intervals, procedure

TOLERANCE, MARGIN, CLASSES = 2.0, 10.0, 5
# What part of an image's difficulty, in variance, all networks share, and what part is a candidate's own in all of its
# trainings; the rest is a training's own.
SHARED, PERSISTENT = 0.85, 0.05
# Real draws: images a draw, folds, the pruned network's ratio, and how the demo trains.
DRAWN, FOLDS, RATIO = 300, 5, 0.4
_TRAINING = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "label_smoothing": 0.0, "weight_decay": 0.0005}
_TRAINING |= {"precision": "fp32", "evaluate_every": 1}
RECIPE = _TRAINING | {
    "epochs": 20,
    "batch_size": 20,
    "learning_rate": 0.03,
    "warmup_epochs": 1,
    "augmentation": {"scale": [0.8, 1.0], "ratio": [0.9, 1.1], "flip": False},
}
PRETRAINING = _TRAINING | {
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.05,
    "warmup_epochs": 0,
    "augmentation": {"scale": [0.7, 1.0], "ratio": [0.8, 1.25], "flip": False},
}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """An experiment to be simulated.

    Attributes
    ----------
    sizes, candidates : int
        Steps of size, and candidates in all.
    images : int
        Test images; with folds all that there are.
    folds : int or None
    validation : int
        Validation images; with folds of the images.
    accuracy, spread : float
        Of the unpruned network, and the standard deviation of each network's from training to training.
    lossless : float
        Which part of the sizes, the larger ones, loses nothing; the others lose the tolerance.
    """

    sizes: int
    candidates: int
    images: int
    folds: int | None
    validation: int
    accuracy: float
    spread: float
    lossless: float = 0.0
    shared: float = SHARED
    persistent: float = PERSISTENT
    mend: bool = True


class World:
    """The networks of one run, trained as they are asked for."""

    def __init__(self, scenario: Scenario, generator: np.random.Generator):
        self.scenario, self.generator = scenario, generator
        s = scenario
        self.test = np.arange(s.images)
        total = s.images + (0 if s.folds else s.validation)
        self.difficulty = np.sqrt(s.shared) * generator.standard_normal(total)
        self.fold = generator.permutation(s.images) % s.folds if s.folds else None
        if s.folds:
            # Of the images that fold 0 does not test.
            rest = np.flatnonzero(self.fold != 0)
            self.chosen_by = generator.permutation(rest)[: s.validation]
        else:
            self.chosen_by = np.arange(s.images, total)
        self.labels = np.array([f"class {number}" for number in np.arange(s.images) % CLASSES])

    def network(self) -> np.ndarray:
        """A candidate: how hard each image is for all its trainings."""
        return self.difficulty + np.sqrt(self.scenario.persistent) * self.generator.standard_normal(
            self.difficulty.size
        )

    def train(self, difficulty: np.ndarray, drop: float, trainings: int = 1) -> np.ndarray:
        """(trainings, n) float: whether it is right on each of the images that are given."""
        s = self.scenario
        shifts = s.spread * self.generator.standard_normal((trainings, 1))
        limits = scipy.special.ndtri(np.clip(s.accuracy - drop + shifts, 1e-4, 1 - 1e-4))
        own = np.sqrt(1 - s.shared - s.persistent) * self.generator.standard_normal((trainings, difficulty.size))
        return (difficulty + own < limits).astype(float)

    def judging(self, difficulty: np.ndarray, drop: float, trainings: int) -> np.ndarray:
        """The outcomes of judging trainings; with folds each tests those of its own."""
        s = self.scenario
        found = self.train(difficulty[: s.images], drop, trainings)
        if s.folds:
            found[self.fold != np.arange(trainings)[:, None] % s.folds] = np.nan
            if s.mend:
                found[:, self.chosen_by] = np.nan
        return found


def run(scenario: Scenario, generator: np.random.Generator) -> dict[str, float]:
    """One experiment from choice to answer."""
    s, world = scenario, World(scenario, generator)
    looks = procedure.looks(s.folds)
    unpruned = world.network()
    drops = np.where(np.arange(s.sizes) < round(s.lossless * s.sizes), 0.0, TOLERANCE / 100)
    baseline = world.judging(unpruned, 0.0, looks[-1])
    reference = world.train(unpruned[world.chosen_by], 0.0).mean()
    outcomes, losses = [], []
    for drop in drops:
        networks = [world.network() for _ in range(s.candidates // s.sizes)]
        found = [reference - world.train(each[world.chosen_by], drop).mean() for each in networks]
        best = int(np.argmin(found))
        outcomes.append(world.judging(networks[best], drop, looks[-1]))
        losses.append(found[best])
    within = [place for place in range(s.sizes) if losses[place] <= TOLERANCE / 100 + 1e-9]
    proposal = within[-1] if within else int(np.argmin(losses))
    trained = [0] * s.sizes
    for _ in range(len(looks) * s.sizes + 1):
        finalists = [
            procedure.Finalist(str(place), -place, False, baseline[:count], outcomes[place][:count])
            for place, count in enumerate(trained)
        ]
        judged = procedure.judge(finalists, proposal, world.labels, TOLERANCE, MARGIN, looks)
        if not any(each.wanted for each in judged):
            break
        trained = [max(count, each.wanted) for count, each in zip(trained, judged, strict=True)]
    else:
        raise AssertionError("it does not end")
    held = [place for place, each in enumerate(judged) if each.verdict == procedure.HOLDS]
    halves = [100 * (each.drop.high - each.drop.drop) for each in judged if each.verdict == procedure.HOLDS]
    return {
        "wrong": any(drops[place] > 0 for place in held),
        "holds": bool(held),
        "proposal": judged[proposal].verdict != procedure.UNDECIDED,
        "half": halves[-1] if halves else np.nan,
        "plain": 100 * np.diff(intervals.paired_interval(baseline, outcomes[proposal])[::2])[0],
        "most": max(trained),
        "trainings": max(trained) + sum(trained),
    }


NULLS = {
    f"{candidates} candidates, {name}, spread {100 * spread:g}": Scenario(
        6, candidates, images, folds, validation, accuracy, spread
    )
    for name, images, folds, validation, accuracy in (
        ("750 images", 750, None, 150, 0.95),
        ("2,000 images", 2000, None, 400, 0.9),
        ("300 in 5 folds", 300, 5, 36, 0.95),
    )
    for candidates, spread in ((12, 0.003), (54, 0.003), (12, 0.01), (54, 0.01))
}
MIXED = {
    f"{name}, half lossless": dataclasses.replace(each, lossless=0.5) for name, each in NULLS.items() if "54" in name
}
LEAK = {
    "leak: " + name: dataclasses.replace(each, mend=False, shared=0.8, persistent=0.15)
    for name, each in NULLS.items()
    if "folds" in name
} | {
    "mended: " + name: dataclasses.replace(each, shared=0.8, persistent=0.15)
    for name, each in NULLS.items()
    if "folds" in name
}
LOSSLESS = {
    f"{name}, lossless, {sizes} sizes, spread {100 * spread:g}": Scenario(
        sizes, 9 * sizes, images, folds, validation, accuracy, spread, 1.0
    )
    for name, images, folds, validation, accuracy in (
        ("750 images", 750, None, 150, 0.95),
        ("300 in 5 folds", 300, 5, 36, 0.97),
    )
    for sizes in (1, 6)
    for spread in (0.003, 0.006, 0.01)
}
SCENARIOS = NULLS | MIXED | LEAK | LOSSLESS


def simulate(runs: int, only: str) -> None:
    for name, scenario in SCENARIOS.items():
        if only not in name:
            continue
        began, generator = time.perf_counter(), np.random.default_rng(0)
        found = [run(scenario, generator) for _ in range(runs)]
        rows = {key: np.array([each[key] for each in found], dtype=float) for key in found[0]}
        print(
            f"{name:55} wrong {100 * rows['wrong'].mean():5.2f} % holds {100 * rows['holds'].mean():5.1f} % proposal decided "
            f"{100 * rows['proposal'].mean():5.1f} % half {np.nanmean(rows['half']):.2f} plain {rows['plain'].mean() / 2:.2f}"
            f" most seeds {rows['most'].mean():.1f} trainings {rows['trainings'].mean():.1f}"
            f"  {time.perf_counter() - began:.0f} s",
            flush=True,
        )


def draw_of_digits(
    number: int, round: int, backbone, keep, pixels: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Train and judge an unpruned and a pruned network on DRAWN images, a fold at a time.

    Returns
    -------
    dict
        ``baseline`` and ``pruned``, (S, DRAWN) with NaN for what a seed's fold does not test, and ``baseline_truth`` and
        ``pruned_truth``, (S, N − DRAWN), of the same networks on all other images; ``labels`` and ``truth_labels``.
    """
    import torch
    from winnow.data import splits
    from winnow.data.images import Images
    from winnow.networks import surgery
    from winnow.training import judging, loop

    order = np.random.default_rng((number, 16)).permutation(len(labels))
    inside, outside = np.sort(order[:DRAWN]), np.sort(order[DRAWN:])
    names = [str(digit) for digit in range(10)]
    known = splits.Images(names, labels[inside], [None] * DRAWN, [None] * DRAWN)
    images = Images(torch.from_numpy(pixels), torch.from_numpy(labels), pixels.shape[1], [0.5] * 3, [0.5] * 3)
    found = {name: [] for name in ("baseline", "pruned", "baseline_truth", "pruned_truth")}
    for seed in range(round * FOLDS, (round + 1) * FOLDS):
        parts = np.array(splits.assign({"seed": number, "folds": FOLDS}, known, seed % FOLDS))
        rows = {part: inside[parts == part] for part in splits.PARTS}
        for side, mask in (("baseline", None), ("pruned", keep)):
            network = surgery.pruned(backbone, mask, len(names), "inherited", seed)
            network = network.to(memory_format=torch.channels_last)
            trained = loop.train(
                network,
                images,
                rows["train"],
                rows["val"],
                RECIPE,
                1000 * number + seed,
                "fp32",
                report=lambda line: None,
            )
            network.load_state_dict(trained.state)
            tested = np.full(DRAWN, np.nan)
            judged = judging.evaluate(network, images, rows["test"], "fp32").predicted
            tested[parts == "test"] = judged == labels[rows["test"]]
            found[side].append(tested)
            judged = judging.evaluate(network, images, outside, "fp32").predicted
            found[f"{side}_truth"].append(judged == labels[outside])
    found = {name: np.array(values) for name, values in found.items()}
    return found | {"labels": labels[inside], "truth_labels": labels[outside]}


def pretrained():
    """The demo's backbone, trained on digits 0 to 4; which filters stay of it; and all digits' pixels and labels."""
    import torch
    from sklearn.datasets import load_digits
    from winnow.data.images import Images
    from winnow.importance import masks, scores
    from winnow.networks import backbones, channels
    from winnow.training import loop

    torch.set_num_threads(1)
    loaded = load_digits()
    gray = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    pixels, labels = np.repeat(gray[..., None], 3, axis=3), loaded.target.astype(np.int64)
    source = np.flatnonzero(labels < 5)
    source = np.random.default_rng(0).permutation(source)
    network = backbones.initialised("vgg_digits", "gap", 5, 0)
    images = Images(torch.from_numpy(pixels), torch.from_numpy(labels), 8, [0.5] * 3, [0.5] * 3)
    trained = loop.train(network, images, source[90:], source[:90], PRETRAINING, 0, "fp32", report=lambda line: None)
    network.load_state_dict(trained.state)
    found = channels.of(network)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": "vgg_digits", "head": "gap", "classes": 5, "layers": layers}
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    backbone = backbones.Backbone(manifest, state, found.table)
    value, score = scores.score(
        "average_weight", layers, found.table, lambda names: [state[name].numpy() for name in names]
    )
    unit, layer = found.table["unit"].to_numpy(), found.table["layer"].to_pylist()
    place = {each["layer"]: position for position, each in enumerate(layers)}
    first = np.full(unit.max() + 1, len(layers))
    np.minimum.at(first, unit, [place[name] for name in layer])
    keep = masks.mask(np.array(list(place))[first], score, "layer", RATIO).keep
    return backbone, keep, pixels, labels


def draws(count: int, rounds: int, folder: Path, first: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = pretrained()
    for round, number in itertools.product(range(rounds), range(first, count)):
        file = folder / f"{number}-{round}.npz"
        if not file.exists():
            began = time.perf_counter()
            found = draw_of_digits(number, round, *made)
            np.savez(file, **found)
            drop = np.nanmean(found["baseline"]) - np.nanmean(found["pruned"])
            truth = found["baseline_truth"].mean() - found["pruned_truth"].mean()
            print(
                f"{number}, round {round}: {100 * found['baseline_truth'].mean():.1f} %, drop {100 * drop:.2f}, truly "
                f"{100 * truth:.2f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--only", default="")
    ways = parser.add_subparsers(dest="way")
    drawing = ways.add_parser("draws")
    drawing.add_argument("--draws", type=int, default=60)
    drawing.add_argument("--rounds", type=int, default=2)
    drawing.add_argument("--first", type=int, default=0)
    drawing.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.way == "draws":
        draws(arguments.draws, arguments.rounds, arguments.folder, arguments.first)
    else:
        simulate(arguments.runs, arguments.only)
