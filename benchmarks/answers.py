"""What the answer promises and what it decides: the whole of it simulated, and its intervals on real draws.

    python benchmarks/answers.py [--runs 2000] [--only WORDS]
    python benchmarks/answers.py draws [--draws 64] [--rounds 2] --folder DIR

A simulated experiment has six sizes of network, or one, and several candidates of each. All are trained once and
compared on validation images; of each size the best is a finalist, judged by fresh trainings as
winnow.answers.procedure has it, until that asks for no more. An image has its difficulty, which all networks share in
part; each candidate finds some images easier and others harder than the rest do, in all of its trainings; each training
shifts the accuracy. With folds, the validation images of the choosing training are images that judge, too.

``draws``: 300 of scikit-learn's 1,797 digits are drawn, and an unpruned and a pruned network trained and judged in five
folds of them. What the same networks do on the other 1,497 images is the truth. Draws are kept in ``--folder`` and
taken up again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import scipy.special

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.answers import intervals, procedure

if TYPE_CHECKING:
    from winnow.networks.backbones import Backbone

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
    images, validation : int
        Test images and those that choose; with folds all that there are, and how many of them choose.
    folds : int or None
    accuracy, spread : float
        Of the unpruned network, and the standard deviation of each network's from training to training.
    lossless : float
        Which part of the sizes, the larger ones, loses nothing; the others lose the tolerance.
    shared, persistent : float
        As :data:`SHARED` and :data:`PERSISTENT`.
    """

    sizes: int
    candidates: int
    images: int
    validation: int
    folds: int | None
    accuracy: float
    spread: float
    lossless: float = 0.0
    shared: float = SHARED
    persistent: float = PERSISTENT


class World:
    """The images of one run, and networks that are trained on demand."""

    def __init__(self, scenario: Scenario, generator: np.random.Generator):
        self.scenario, self.generator = scenario, generator
        judging, choosing, folds = scenario.images, scenario.validation, scenario.folds
        images = judging if folds else judging + choosing
        self.difficulty = np.sqrt(scenario.shared) * generator.standard_normal(images)
        self.fold = generator.permutation(judging) % folds if folds else None
        # With folds, of the images that the choosing training's fold does not test.
        rest = np.flatnonzero(self.fold != 0) if folds else np.arange(judging, images)
        self.choosing = generator.permutation(rest)[:choosing]
        self.labels = np.array([f"class {number}" for number in np.arange(judging) % CLASSES])

    def network(self) -> np.ndarray:
        """How hard a candidate finds each image, in all of its trainings."""
        own = self.generator.standard_normal(self.difficulty.size)
        return self.difficulty + np.sqrt(self.scenario.persistent) * own

    def train(self, difficulty: np.ndarray, drop: float, trainings: int = 1) -> np.ndarray:
        """(trainings, n) float: whether each training is right on each of the images of these difficulties."""
        scenario = self.scenario
        shifts = scenario.spread * self.generator.standard_normal((trainings, 1))
        limits = scipy.special.ndtri(np.clip(scenario.accuracy - drop + shifts, 1e-4, 1 - 1e-4))
        own = self.generator.standard_normal((trainings, difficulty.size))
        return (difficulty + np.sqrt(1 - scenario.shared - scenario.persistent) * own < limits).astype(float)

    def judge(self, difficulty: np.ndarray, drop: float, trainings: int) -> np.ndarray:
        """The outcomes of judging trainings; with folds each tests the images of its own."""
        found = self.train(difficulty[: self.scenario.images], drop, trainings)
        if self.scenario.folds:
            found[self.fold != np.arange(trainings)[:, None] % self.scenario.folds] = np.nan
        return found


def kept() -> dict[str, Callable]:
    """Functions of intervals for one run, whose outcomes do not change and whose labels are the same: a step looks at
    all looks that have been, and what they come to is computed once."""
    found: dict[tuple, tuple] = {}
    function = intervals.parts

    def parts(baseline: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None = None) -> intervals.Parts:
        key = (*((side.ctypes.data, side.shape, side.strides) for side in (baseline, pruned)), labels is None)
        if key not in found:
            # The arrays stay, so that their places are not taken by others.
            found[key] = function(baseline, pruned, labels), baseline, pruned
        return found[key][0]

    cached = {name: functools.lru_cache(getattr(intervals, name)) for name in ("interval", "p_value")}
    return cached | {"parts": parts}


def run(scenario: Scenario, generator: np.random.Generator) -> dict[str, float]:
    """One experiment from choice to answer."""
    world, looks = World(scenario, generator), procedure.looks(scenario.folds)
    lossless = round(scenario.lossless * scenario.sizes)
    drops = [0.0] * lossless + [TOLERANCE / 100] * (scenario.sizes - lossless)
    unpruned = world.network()
    baseline = world.judge(unpruned, 0.0, looks[-1])
    reference = world.train(unpruned[world.choosing], 0.0).mean()
    outcomes, losses = [], []
    for drop in drops:
        networks = [world.network() for _ in range(scenario.candidates // scenario.sizes)]
        found = [reference - world.train(each[world.choosing], drop).mean() for each in networks]
        outcomes.append(world.judge(networks[int(np.argmin(found))], drop, looks[-1]))
        losses.append(min(found))
    within = [place for place, loss in enumerate(losses) if loss <= TOLERANCE / 100 + 1e-9]
    proposal = within[-2:][0] if within else int(np.argmin(losses))
    trained = [0] * scenario.sizes
    with mock.patch.multiple(intervals, **kept()):
        while True:
            finalists = [
                procedure.Finalist(
                    str(place), -place, False, baseline[:count], outcomes[place][:count], place in within
                )
                for place, count in enumerate(trained)
            ]
            judged = procedure.judge(finalists, proposal, world.labels, TOLERANCE, MARGIN, looks)
            if not any(each.wanted for each in judged):
                break
            trained = [max(count, each.wanted) for count, each in zip(trained, judged, strict=True)]
    held = [place for place, each in enumerate(judged) if each.verdict == procedure.HOLDS]
    _, low, high = intervals.paired_interval(baseline[: looks[0]], outcomes[proposal][: looks[0]])
    return {
        "wrong": any(drops[place] for place in held),
        "decided": bool(held) or all(each.verdict == procedure.FAILS for each in judged if each.seeds),
        "proposal": judged[proposal].verdict == procedure.HOLDS,
        "half": 100 * (judged[held[-1]].drop.high - judged[held[-1]].drop.drop) if held else np.nan,
        "first": 100 * (high - low) / 2,
        "seeds": trained[held[-1]] if held else max(trained),
        "trainings": max(trained) + sum(trained),
    }


def scenarios() -> dict[str, Scenario]:
    """By name; each name begins with what it is for."""
    found = {}
    sets = {
        "750 images": (750, 150, None, 0.95),
        "2,000 images": (2000, 400, None, 0.90),
        "300 in 5 folds": (300, 36, 5, 0.95),
    }
    for (name, kind), spread in itertools.product(sets.items(), (0.003, 0.01)):
        for candidates in (12, 54):
            null = Scenario(6, candidates, *kind, spread)
            said = f"{name}, {candidates} candidates, spread {100 * spread:g}"
            found[f"all at the tolerance: {said}"] = null
        found[f"half at the tolerance: {said}"] = dataclasses.replace(null, lossless=0.5)
        if null.folds:
            found[f"persistent: {said}"] = dataclasses.replace(null, shared=0.8, persistent=0.15)
    for name, spread, sizes in itertools.product(("750 images", "300 in 5 folds"), (0.003, 0.006, 0.01), (1, 6)):
        kind = (*sets[name][:3], 0.97)
        said = f"{name}, 97 % right, {'one size' if sizes == 1 else 'six sizes'}, spread {100 * spread:g}"
        found[f"lossless: {said}"] = Scenario(sizes, 9 * sizes, *kind, spread, lossless=1.0)
    return found


def simulate(runs: int, only: str) -> None:
    columns = {
        "wrong": ("wrong *holds*", 100), "decided": ("decided", 100), "proposal": ("proposal holds", 100),
        "half": ("half-width", 1), "first": ("after the first look, 95 %", 1), "seeds": ("seeds", 1),
        "trainings": ("trainings", 1),
    }  # fmt: skip
    print(f"| {runs} runs a scenario | {' | '.join(title for title, _ in columns.values())} | s |")
    print(f"|---|{'--:|' * (len(columns) + 1)}")
    for name, scenario in scenarios().items():
        if only not in name:
            continue
        began, generator = time.perf_counter(), np.random.default_rng(0)
        found = [run(scenario, generator) for _ in range(runs)]
        fields = []
        for key, (_, factor) in columns.items():
            values = np.array([each[key] for each in found], dtype=float)
            values = values[~np.isnan(values)]
            digits = 1 if key in ("decided", "proposal", "seeds", "trainings") else 2
            fields.append(f"{factor * values.mean():.{digits}f}" + " %" * (factor == 100) if values.size else "–")
        print(f"| {name} | {' | '.join(fields)} | {time.perf_counter() - began:.0f} |", flush=True)


def draw_of_digits(
    number: int, round: int, backbone: Backbone, keep: np.ndarray, pixels: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Train and judge an unpruned and a pruned network on drawn images, once in each fold.

    Returns
    -------
    dict
        ``baseline`` and ``pruned``: whether they are right, (K, DRAWN) with NaN for what a fold does not test;
        ``baseline_truth`` and ``pruned_truth``: the same networks on all other images, (K, N − DRAWN).
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
    return {name: np.array(values) for name, values in found.items()}


def pretrained() -> tuple[Backbone, np.ndarray, np.ndarray, np.ndarray]:
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
    _, score = scores.score(
        "average_weight", layers, found.table, lambda names: [state[name].numpy() for name in names]
    )
    unit, layer = found.table["unit"].to_numpy(), found.table["layer"].to_pylist()
    place = {each["layer"]: position for position, each in enumerate(layers)}
    first = np.full(unit.max() + 1, len(layers))
    np.minimum.at(first, unit, [place[name] for name in layer])
    keep = masks.mask(np.array(list(place))[first], score, "layer", RATIO).keep
    return backbone, keep, pixels, labels


def draws(count: int, rounds: int, folder: Path) -> None:
    """Train what the folder lacks of so many draws, a round of folds of each before the next round."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pretrained()
    for round, number in itertools.product(range(rounds), range(count)):
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


def coverage(folder: Path, count: int, rounds: int) -> None:
    """Print how often the interval of each draw holds the truth."""
    for through in range(1, rounds + 1):
        rows = []
        for number in range(count):
            files = [folder / f"{number}-{round}.npz" for round in range(through)]
            if not all(file.exists() for file in files):
                continue
            parts = [np.load(file) for file in files]
            baseline, pruned, before, after = (
                np.concatenate([each[name] for each in parts])
                for name in ("baseline", "pruned", "baseline_truth", "pruned_truth")
            )
            beyond = intervals.parts(before, after)
            found = intervals.parts(baseline, pruned)
            rows.append(
                (*intervals.interval(found), beyond.drop, beyond.image, found.image, found.training, before.mean())
            )
        if len(rows) < 2:
            continue
        drop, low, high, truth, own, image, training, accuracy = np.array(rows).T
        half = (high - low) / 2
        # Nadeau & Bengio's: of the trainings' own drops, with 1/S + 1/(K − 1) in place of 1/S.
        trainings = FOLDS * through
        scatter = np.sqrt(training * (1 / trainings + 1 / (FOLDS - 1)))
        corrected = scipy.special.stdtrit(trainings - 1, 0.975) * scatter
        print(f"{len(rows)} draws, {through} round(s): unpruned {100 * accuracy.mean():.1f} % right, drop "
              f"{100 * truth.mean():.2f} points ({100 * truth.std(ddof=1):.2f} from draw to draw)")  # fmt: skip
        alone = scipy.special.stdtrit(DRAWN - 1, 0.975) * np.sqrt(image)
        for name, width in ("ours", half), ("images alone", alone), ("Nadeau & Bengio", corrected):
            print(
                f"  {name:16} half-width {100 * width.mean():.2f}, holds the truth on the other images in "
                f"{100 * np.mean(np.abs(drop - truth) <= width):.1f} %, with those images' own chance "
                f"{100 * np.mean(np.abs(drop - truth) <= np.sqrt(width**2 + 1.96**2 * own)):.1f} %, the mean truth of "
                f"all draws {100 * np.mean(np.abs(drop - truth.mean()) <= width):.1f} %"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--only", default="", metavar="WORDS", help="scenarios whose name has them")
    ways = parser.add_subparsers(dest="way")
    drawing = ways.add_parser("draws")
    drawing.add_argument("--draws", type=int, default=64)
    drawing.add_argument("--rounds", type=int, default=2)
    drawing.add_argument("--folder", type=Path, required=True)
    drawing.add_argument("--done", action="store_true", help="train no more, say what the draws that there are come to")
    arguments = parser.parse_args()
    if arguments.way == "draws":
        if not arguments.done:
            draws(arguments.draws, arguments.rounds, arguments.folder)
        coverage(arguments.folder, arguments.draws, arguments.rounds)
    else:
        simulate(arguments.runs, arguments.only)
