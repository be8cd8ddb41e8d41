"""What the answer promises and what it decides: the whole of it simulated, and its intervals on real draws.

    python benchmarks/answers.py [--runs 2000] [--only WORDS]
    python benchmarks/answers.py [--runs 2000] [--only WORDS] ratios
    python benchmarks/answers.py draws [--draws 64] [--rounds 2] --folder DIR

A simulated experiment has six sizes of network, or one, and several candidates of each. All are trained once and
compared on validation images; of each size the best is a finalist, judged by fresh trainings as
winnow.answers.procedure has it, until that asks for no more. An image has its difficulty, which all networks share in
part; each candidate finds some images easier and others harder than the rest do, in all of its trainings; each training
shifts the accuracy. With folds, the validation images of the choosing training are images that judge, too.

``ratios``: what ``make run`` asks for, seven ratios of one criterion, so that neighbours are of one size and chance
among few images says which of them is a finalist: the rule of winnow.answers.growth and others, all on the same runs.

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import scipy.special

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.answers import growth, intervals, procedure
from winnow.answers.growth import Candidate
from winnow.workflow.grid import Cell

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


def answer(
    world: World, baseline: np.ndarray, outcomes: Sequence[np.ndarray], allowed: Sequence[bool], proposal: int
) -> tuple[list[procedure.Judgement], list[int]]:
    """Finalists, the largest first, judged until no more trainings are asked for: what is known, and by how many."""
    looks, trained = procedure.looks(world.scenario.folds), [0] * len(outcomes)
    while True:
        finalists = [
            procedure.Finalist(str(place), -place, False, baseline[:count], outcomes[place][:count], allowed[place])
            for place, count in enumerate(trained)
        ]
        judged = procedure.judge(finalists, proposal, world.labels, TOLERANCE, MARGIN, looks)
        if not any(each.wanted for each in judged):
            return judged, trained
        trained = [max(count, each.wanted) for count, each in zip(trained, judged, strict=True)]


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
    with mock.patch.multiple(intervals, **kept()):
        allowed = [place in within for place in range(scenario.sizes)]
        judged, trained = answer(world, baseline, outcomes, allowed, proposal)
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


# Whether each candidate's network is right on the validation images.
Right = Mapping[Cell, np.ndarray]


def best_of(size: Sequence[Candidate], right: Right) -> Candidate:
    return min(size, key=lambda each: each.rank)


def smallest_allowed(size: Sequence[Candidate], right: Right) -> Candidate:
    """The smallest that is within the tolerance on validation images; the best where none is."""
    best = best_of(size, right)
    return next((each for each in size if growth.allowed(each, TOLERANCE)), best)


def within_error(size: Sequence[Candidate], right: Right) -> Candidate:
    """The smallest that is no more than a standard error, of the paired difference, worse than the best."""
    best = best_of(size, right)

    def equal(each: Candidate) -> bool:
        more = right[best.cell] - right[each.cell]
        return more.mean() <= more.std(ddof=1) / np.sqrt(more.size) + 1e-12

    return next(each for each in size if equal(each))


def of_sizes(
    candidates: Sequence[Candidate],
    right: Right,
    stands: Callable[[Sequence[Candidate], Right], Candidate] = best_of,
    step: float = growth.SIZE_STEP,
) -> growth.Choice:
    """One finalist a size."""
    sizes = growth.of_one_size(candidates, step)
    with mock.patch.object(growth, "SIZE_STEP", 1.0):
        return as_it_is([stands(size, right) for size in sizes], right)


def as_it_is(candidates: Sequence[Candidate], right: Right) -> growth.Choice:
    choice = growth.choose(candidates, TOLERANCE)
    assert choice is not None
    return choice


# The first is what the others are held against.
RULES: dict[str, Callable[[Sequence[Candidate], Right], growth.Choice]] = {
    "the best of a size": of_sizes,
    "the smallest within a standard error of it": functools.partial(of_sizes, stands=within_error),
    "the smallest within the tolerance": functools.partial(of_sizes, stands=smallest_allowed),
    "the best, sizes apart by 1.1": functools.partial(of_sizes, step=1.1),
    "each ratio": functools.partial(of_sizes, step=1.0),
    "the best, and below the proposal each ratio": as_it_is,
}
# MACs in % of the unpruned network's, ratio after ratio: in four steps of size, and in three.
PAIRS, TRIPLES = (94, 87, 79, 70, 60, 50, 40), (94, 90, 85, 80, 74, 67, 50)
# Points that they lose.
SHAPES = {
    "gains": (-1.5, -1.5, -1.5, -1.5, -1, 0, 2),
    "late": (0, 0, 0, 0, 0, 0.5, 3),
    "flat, then rising": (0, 0, 0, 0, 1, 2.5, 5),
    "steady": (0, 0.5, 1, 1.5, 2, 3, 5),
    "early": (0, 1, 2, 3, 4, 6, 9),
    "all at the tolerance": (TOLERANCE,) * 7,
}
DATA = {
    "300 in 5 folds, 95 % right, spread 1": (Scenario(7, 7, 300, 60, 5, 0.95, 0.01), PAIRS),
    "300 in 5 folds, 97 % right, spread 0.5": (Scenario(7, 7, 300, 60, 5, 0.97, 0.005), PAIRS),
    "the same in three steps": (Scenario(7, 7, 300, 60, 5, 0.97, 0.005), TRIPLES),
    "300 images, 95 % right, spread 0.5": (Scenario(7, 7, 300, 60, None, 0.95, 0.005), PAIRS),
    "150 in 5 folds, 97 % right, spread 0.5": (Scenario(7, 7, 150, 30, 5, 0.97, 0.005), PAIRS),
}


def run_of_ratios(
    scenario: Scenario, sizes: Sequence[float], drops: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """One experiment by each of the rules.

    Parameters
    ----------
    sizes, drops
        Of each ratio: MACs in % of the unpruned network's, points that it loses.

    Returns
    -------
    (rules, 4) float
        MACs of the smallest network that holds, 100 where none does; whether one holds; whether one does that loses
        the tolerance or more; trainings that judged.
    """
    world = World(scenario, generator)
    last = procedure.looks(scenario.folds)[-1]
    unpruned, networks = world.network(), [world.network() for _ in drops]
    baseline, reference = world.judge(unpruned, 0.0, last), world.train(unpruned[world.choosing], 0.0).mean()
    cells = [
        Cell("photos", "net", "taylor", "global_normalized", (place + 1) / 10, None, "inherited", 0)
        for place in range(len(drops))
    ]
    right, outcomes = {}, {}
    for cell, network, drop in zip(cells, networks, drops, strict=True):
        (right[cell],) = world.train(network[world.choosing], drop / 100)
        outcomes[cell] = world.judge(network, drop / 100, last)
    candidates = [
        Candidate(cell, "one_shot", right[cell].mean(), reference - right[cell].mean(), (size, size), False)
        for cell, size in zip(cells, sizes, strict=True)
    ]
    truth = dict(zip(cells, drops, strict=True))
    found, known = [], {}
    with mock.patch.multiple(intervals, **kept()):
        for rule in RULES.values():
            choice = rule(candidates, right)
            if choice not in known:
                finalists = choice.finalists
                allowed = [growth.allowed(each, TOLERANCE) for each in finalists]
                judged, trained = answer(
                    world, baseline, [outcomes[each.cell] for each in finalists], allowed, choice.proposal
                )
                held = [
                    each for each, judgement in zip(finalists, judged, strict=True)
                    if judgement.verdict == procedure.HOLDS
                ]  # fmt: skip
                known[choice] = (
                    min((each.sizes[0] for each in held), default=100),
                    bool(held),
                    any(truth[each.cell] >= TOLERANCE for each in held),
                    max(trained) + sum(trained),
                )
            found.append(known[choice])
    return np.array(found, dtype=float)


def simulate_ratios(runs: int, only: str) -> None:
    print(f"| {runs} runs a scenario | rule | MACs | against the first | holds | wrong *holds* | trainings |")
    print(f"|---|---|{'--:|' * 5}")
    for data, (scenario, sizes) in DATA.items():
        everything = []
        for shape, drops in SHAPES.items():
            if only in (name := f"{shape}: {data}"):
                generator = np.random.default_rng(0)
                found = np.array([run_of_ratios(scenario, sizes, drops, generator) for _ in range(runs)])
                print_ratios(name, found)
                everything.append(found)
        if len(everything) == len(SHAPES):
            print_ratios(f"all shapes: {data}", np.concatenate(everything))


def print_ratios(name: str, found: np.ndarray) -> None:
    """A row a rule of (runs, rules, 4) outcomes."""
    for place, rule in enumerate(RULES):
        macs, holds, wrong, trainings = found[:, place].mean(axis=0)
        more = found[:, place, 0] - found[:, 0, 0]
        against = f"{more.mean():+.1f} ± {1.96 * more.std(ddof=1) / np.sqrt(more.size):.1f}" if place else ""
        fields = f"{macs:.1f} % | {against} | {100 * holds:.1f} % | {100 * wrong:.2f} % | {trainings:.1f}"
        print(f"| {'' if place else name} | {rule} | {fields} |", flush=True)


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
    ways.add_parser("ratios")
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
    elif arguments.way == "ratios":
        simulate_ratios(arguments.runs, arguments.only)
    else:
        simulate(arguments.runs, arguments.only)
