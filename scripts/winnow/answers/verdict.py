"""How small can the network be? The choice on validation, and what the test images say about it.

The drop of a pruned network is the unpruned network's test accuracy less its own, both fine-tuned with the same recipe
and seed. Its interval speaks of new seeds and new test images at once: both are random, crossed (every network sees
every image), and the differences are paired by both. The same is asked of the mean over classes of their accuracies,
and of each class by itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from winnow.answers import preference, summary
from winnow.training.protocols import ONE_SHOT
from winnow.workflow.grid import UNPRUNED, Cell, is_control

CONFIDENCE = summary.CONFIDENCE
# The claim that the method is known for: at this ratio, the best criterion loses less than so many points.
CLAIM_RATIO, CLAIM_TOLERANCE = summary.HEADLINE_RATIO, 2.0
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
_VERBS = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "is undecided"}
# What "small" may mean, and how a sentence names it. The first is the one that networks are ordered by.
MEASURES = {"macs": "MACs", "params": "parameters", "latency_ms": "latency"}
SIZE = next(iter(MEASURES))
# More of a network's lost classes are counted in sentences, not named.
NAMED_CLASSES = 3


class Interval(NamedTuple):
    """A drop of accuracy and the bounds of its interval, as shares of 1."""

    drop: float
    low: float
    high: float


def paired_interval(baseline: np.ndarray, pruned: np.ndarray, labels: np.ndarray | None = None) -> Interval:
    """The drop of accuracy and its interval at the level :data:`CONFIDENCE`, over seeds and test images.

    The differences d(s, i) = baseline(s, i) − pruned(s, i) are taken as μ + seed + image + rest, each random. The mean
    squares give the variance of their mean, V = (MS_seed + MS_image − MS_rest) / (S n) [Searle, Casella & McCulloch,
    Variance Components, 1992], Satterthwaite's formula its degrees of freedom, and Student's t the interval. V is at
    least half of what the images alone give. Two made-up images, one lost and one won by pruning, widen the images'
    part, so that networks that agree on every one of a few images are not taken for equal [Agresti & Min, Statistics
    in Medicine 24, 2005].

    With labels, the drop is of the mean over C classes: an image of class c, one of n_c, weighs 1 / (C n_c). Images are
    then drawn within their classes (strata [Cochran, Sampling Techniques, 1977, ch. 5]): MS_image and MS_rest are found
    in each class and add up with the squares of its weights, MS_seed is that of the weighted means, and the made-up
    images are shared out between the classes in proportion to 1 / n_c, most to where an image weighs most.

    Resampling both seeds and images by the bootstrap estimates the same variance, but three seeds resampled are three
    points: its percentiles cover too little where seeds matter and too much where they don't.

    Parameters
    ----------
    baseline, pruned : (S, n) bool
        Whether network s is right on test image i: the unpruned networks, and the pruned ones of the same seeds.
    labels : (n,) or None
        The images' classes, for the drop of the mean over classes; None for that of accuracy.

    Returns
    -------
    Interval
        With one seed it speaks of images alone.
    """
    differences = np.asarray(baseline, dtype=float) - np.asarray(pruned, dtype=float)
    seeds, images = differences.shape
    one_class = np.zeros(images)
    _, classes, counts = np.unique(one_class if labels is None else labels, return_inverse=True, return_counts=True)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(classes, values, len(counts))

    # Arrays below have one element a class, save those that say otherwise.
    share = 1 / len(counts)
    by_image = differences.mean(axis=0)
    means = sums(by_image) / counts
    drop = means.mean()
    made_up = 2 / counts / (1 / counts).sum()
    padded = counts + made_up
    squares = sums(by_image**2) + made_up - sums(by_image) ** 2 / padded
    image_parts = share**2 * squares / (padded - 1) / padded
    image_part, image_freedom = image_parts.sum(), np.maximum(counts - 1, 1)
    variance, spread = image_part, (image_parts**2 / image_freedom).sum()
    if seeds > 1 and images > 1:
        by_seed = np.stack([sums(row) for row in differences]) / counts  # (S, C)
        rest = differences - by_seed[:, classes] - by_image + means[classes]  # (S, n)
        rest_freedom = (seeds - 1) * image_freedom
        rest_parts = share**2 * sums((rest**2).sum(axis=0)) / rest_freedom / (seeds * counts)
        seed_part = by_seed.mean(axis=1).var(ddof=1) / seeds
        variance = max(seed_part + image_part - rest_parts.sum(), image_part / 2)
        spread += seed_part**2 / (seeds - 1) + (rest_parts**2 / rest_freedom).sum()
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, max(variance**2 / spread, 1.0)) * np.sqrt(variance)
    return Interval(float(drop), float(drop - half), float(drop + half))


def lost_classes(baseline: np.ndarray, pruned: np.ndarray, labels: np.ndarray, margin: float) -> tuple[str, ...]:
    """The classes that a pruned network loses.

    A class is lost where the whole interval of its accuracy's drop, over its own test images, is above the margin. It
    is lost too where no seed's network is right on any of its n images, and that is not for want of images: the upper
    bound of such a class's accuracy, 1 − 0.025^(1 / n) [Clopper & Pearson, Biometrika 26, 1934], is below the unpruned
    network's less the margin, or below what guessing gives, 1 / C.

    Parameters
    ----------
    baseline, pruned : (S, n) bool
        As in :func:`paired_interval`.
    labels : (n,)
        The images' classes.
    margin
        How much of its accuracy a class may lose, in points, of which 100 make 1.
    """
    names = np.unique(labels)
    lost = []
    for name in names:
        there = labels == name
        before, after = baseline[:, there], pruned[:, there]
        bound = 1 - ((1 - CONFIDENCE) / 2) ** (1 / there.sum())
        never_found = not after.any() and bound < max(before.mean() - margin / 100, 1 / len(names))
        if never_found or 100 * paired_interval(before, after).low > margin:
            lost.append(str(name))
    return tuple(lost)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as the test images judge it.

    Attributes
    ----------
    row : dict
        Its row of the summary.
    seeds : int
        Of how many the drops are: those that it and the unpruned network have finished.
    drop, class_drop : Interval
        Of accuracy, and of the mean over classes of their accuracies.
    lost : tuple of str
        The classes that it loses.
    reached : bool
        False where the tests, in their order, ended before it: it cannot be said to hold.
    """

    row: dict[str, Any]
    seeds: int
    drop: Interval
    class_drop: Interval
    lost: tuple[str, ...]
    reached: bool = True

    def verdict(self, tolerance: float) -> str:
        """What is known of it with a tolerance in points, of which 100 make 1.

        ``holds`` where both drops' whole intervals are within the tolerance. ``fails`` where all of either is above,
        where a class is lost, and where a training diverged. Else ``undecided``.
        """
        within = self.within(tolerance)
        if self.lost or self.row["failed_seeds"] or within is False:
            return FAILS
        return HOLDS if within and self.reached else UNDECIDED

    def within(self, tolerance: float) -> bool | None:
        """Whether the intervals are within the tolerance; False where all of one is above, None where neither."""
        if any(100 * each.low > tolerance for each in (self.drop, self.class_drop)):
            return False
        return all(100 * each.high <= tolerance for each in (self.drop, self.class_drop)) or None


@dataclasses.dataclass(frozen=True)
class Judge:
    """Judges rows of a summary on the test images.

    Attributes
    ----------
    cells : sequence of Cell
        The experiment's.
    correct : callable
        Cell → (n,) float: 1 where its network is right on a test image, 0 where it is wrong, NaN where it does not test
        it; None where its training failed.
    labels : callable
        Data set → (n,) str: each test image's class.
    margin : float
        How much of its accuracy a class may lose, in points.
    """

    cells: Sequence[Cell]
    correct: Callable[[Cell], np.ndarray | None]
    labels: Callable[[str], np.ndarray]
    margin: float

    def seeds_of(self, row: dict[str, Any]) -> list[Cell]:
        """The cells that a row of the summary stands for."""
        same = ("dataset", "backbone", "criterion", "scope", "ratio", "round_to", "init", "protocol")
        return [cell for cell in self.cells if all(getattr(cell, name) == row[name] for name in same)]

    def __call__(self, row: dict[str, Any]) -> Network:
        """A row judged over the seeds that both have finished, of which there must be one."""
        pairs = [(self.correct(cell.baseline), self.correct(cell)) for cell in self.seeds_of(row)]
        pairs = [(baseline, pruned) for baseline, pruned in pairs if baseline is not None and pruned is not None]
        sides = tuple(np.array(side) for side in zip(*pairs, strict=True))
        labels = self.labels(row["dataset"])
        if np.isnan(sides[0]).any():
            # Folds: an image counts by the mean of those that test it, and what trainings differ in is not told apart.
            there = ~np.isnan(sides[0]).all(axis=0)
            sides = tuple(np.nanmean(side[:, there], axis=0, keepdims=True) for side in sides)
            labels = labels[there]
        lost = lost_classes(*sides, labels, self.margin)
        return Network(row, len(pairs), paired_interval(*sides), paired_interval(*sides, labels), lost)


def recommend(frame: pd.DataFrame, judge: Judge, tolerance: float) -> dict[str, list]:
    """What an experiment answers, for each of its data sets and backbones.

    Parameters
    ----------
    frame
        The experiment's summary.
    judge
        Knows the test images' outcomes.
    tolerance
        How many points of accuracy a smaller network may cost.

    Returns
    -------
    dict
        ``ladder``: the networks that are judged, the largest first: of each ratio the one that loses least on
        *validation*, and what else the other answers speak of. ``verdicts``: of these, by each measure of size, the
        smallest that holds, or, where none does, the smallest whose drop on validation is within the tolerance, or that
        loses least there. ``claims``: of these, the one that loses least on validation at ratio :data:`CLAIM_RATIO`,
        with the tolerance of the claim. ``chosen``: the first of the verdicts, to be taken home. ``lines``: all that in
        sentences. ``notes``: how it was found. No row where there is no validation accuracy to choose with.
    """
    answer: dict[str, list] = {"verdicts": [], "ladder": [], "claims": [], "chosen": [], "lines": []}
    for (dataset, backbone), rows in frame.groupby(["dataset", "backbone"], sort=False):
        records = summary.records(rows)
        unpruned = next(row for row in records if row["criterion"] == UNPRUNED and row["init"] == "inherited")
        subject = f"{summary.title(dataset)}, {backbone}"
        candidates = [row for row in records if row["criterion"] != UNPRUNED and not is_control(row["criterion"])]
        if not candidates:
            answer["lines"].append(f"{subject}: nothing to judge, the grid has no criterion but controls.")
            continue
        candidates = [row for row in candidates if row["val_drop"] is not None]
        if not candidates:
            answer["lines"].append(f"{subject}: no verdict, for want of validation accuracies to choose with.")
            continue
        for name, found in _answered(subject, candidates, unpruned, judge, tolerance).items():
            answer[name] += found
    return answer | {"notes": notes(frame, tolerance, judge.margin)}


def _answered(subject: str, candidates: list[dict], unpruned: dict, judge: Judge, tolerance: float) -> dict[str, list]:
    """The answer of one data set and backbone, of which the sentences speak as ``subject``."""
    choices = {}
    for measure in MEASURES:
        measured = [row for row in candidates if row[measure] is not None]
        if measured and unpruned[measure] is not None:
            choices[measure] = choose(measured, measure, tolerance)
    ratios: dict[float, list[dict]] = {}
    for row in candidates:
        ratios.setdefault(row["ratio"], []).append(row)
    plain = [row for row in ratios.get(CLAIM_RATIO, ()) if (row["init"], row["protocol"]) == ("inherited", ONE_SHOT)]
    claimed = [least_loss(plain)] if plain else []
    listed = [*map(least_loss, ratios.values()), *choices.values(), *claimed]
    networks = {name: judge(row) for name, row in {preference.name_of(row): row for row in listed}.items()}
    ladder = in_turn(networks.values(), choices[SIZE], tolerance)
    networks = {preference.name_of(network.row): network for network in ladder}

    found = {
        measure: smallest(ladder, measure, tolerance) or networks[preference.name_of(choice)]
        for measure, choice in choices.items()
    }
    verdicts, lines = [], []
    for measure, network in found.items():
        share = network.row[measure] / unpruned[measure]
        sentence = f"{subject}: {_headline(network, measure, share, tolerance)}"
        verdicts.append(_record(network, measure, tolerance, unpruned, sentence))
        same = [MEASURES[name] for name, other in found.items() if other is network]
        if same[0] == MEASURES[measure]:
            lines.append(sentence + (f" Smallest by {' and '.join(same[1:])} too." if same[1:] else ""))
    spoken = [*found.values()]
    beside, line = _step(ladder, found[SIZE], unpruned, tolerance)
    spoken += beside
    lines.append(f"{subject}: {line}")
    claims = []
    for row in claimed:
        network = networks[preference.name_of(row)]
        sentence = f"{subject}: {_claim(network)}"
        claims.append(_record(network, SIZE, CLAIM_TOLERANCE, unpruned, sentence))
        spoken.append(network)
        lines.append(sentence)
    lost = [network for network in ladder if network.lost and network not in spoken]
    if lost:
        told = "; ".join(f"{describe(network.row)}: {_lost(network.lost)}" for network in lost)
        lines.append(f"{subject}: {told}.")
    return {
        "verdicts": verdicts,
        "ladder": [_record(each, SIZE, tolerance, unpruned, _judged(each, tolerance)) for each in ladder],
        "claims": claims,
        "chosen": verdicts[:1],
        "lines": lines,
    }


def _record(network: Network, measure: str, tolerance: float, unpruned: dict, sentence: str) -> dict[str, Any]:
    """A row of the schema "recommendation", less its question, and what else the summary knows of the network."""
    drops = {
        f"{name}{suffix}": value
        for name, interval in (("drop", network.drop), ("class_drop", network.class_drop))
        for suffix, value in zip(("", "_low", "_high"), interval, strict=True)
    }
    return network.row | {
        "measure": measure,
        "size": network.row[measure],
        "baseline_size": unpruned[measure],
        "baseline_accuracy": unpruned["accuracy"],
        "seeds": network.seeds,
        **drops,
        "lost_classes": list(network.lost),
        "verdict": network.verdict(tolerance),
        "sentence": sentence,
    }


def _rank(row: dict[str, Any], measure: str) -> tuple:
    sizes = row[measure], row[SIZE]
    return preference.rank(row["val_drop"], sizes, preference.name_of(row), bool(row["failed_seeds"]))


def choose(rows: Sequence[dict], measure: str, tolerance: float) -> dict:
    """The smallest of those that stay within the tolerance on validation; failing that, the one that loses least.

    One of which a training diverged is never within.
    """
    within = [row for row in rows if not row["failed_seeds"] and preference.within(row["val_drop"], tolerance)]
    return min(within, key=lambda row: (row[measure], _rank(row, measure))) if within else least_loss(rows, measure)


def least_loss(rows: Sequence[dict], measure: str = SIZE) -> dict:
    """The one that loses least on validation, in the order of :mod:`winnow.answers.preference`."""
    return min(rows, key=lambda row: _rank(row, measure))


def in_turn(networks: Iterable[Network], choice: dict, tolerance: float) -> list[Network]:
    """The networks in order of size, the largest first, and which of them the tests reach.

    The first to be tested is the choice, which validation made, and while they hold, the next smaller ones. If it does
    not hold, the tests begin anew with the largest, down to the first that does not. Tested in an order that was fixed
    beforehand, each at its full level, the chance that any of them holds wrongly is that of a single test [Maurer,
    Hothorn & Lehmacher 1995]; with a second beginning it is at most twice that. What holds by itself and is smaller
    than the smallest that these tests find is not reached. Of networks of one size the preferred one is tested.
    """
    listed = sorted(networks, key=lambda network: (-network.row[SIZE], _rank(network.row, SIZE)))
    steps = [next(same) for _, same in itertools.groupby(listed, key=lambda network: network.row[SIZE])]
    start = [preference.name_of(network.row) for network in steps].index(preference.name_of(choice))

    def held(from_here: Sequence[Network]) -> list[Network]:
        return list(itertools.takewhile(lambda network: network.verdict(tolerance) == HOLDS, from_here))

    run = held(steps[start:]) or held(steps[:start])
    end = run[-1].row[SIZE] if run else math.inf
    return [
        dataclasses.replace(network, reached=network.row[SIZE] >= end or network.verdict(tolerance) != HOLDS)
        for network in listed
    ]


def smallest(networks: Iterable[Network], measure: str, tolerance: float) -> Network | None:
    """The smallest that holds, by a measure; None where none does."""
    held = [each for each in networks if each.verdict(tolerance) == HOLDS and each.row[measure] is not None]
    return min(held, key=lambda each: (each.row[measure], _rank(each.row, measure)), default=None)


def describe(row: dict[str, Any]) -> str:
    """A network in words: "apoz, by layer, ratio 0.4"."""
    words = [summary.label(row["criterion"]), summary.SCOPE_NAMES[row["scope"]], f"ratio {row['ratio']:g}"]
    if row["round_to"]:
        words.append(f"rounded to {row['round_to']}")
    return ", ".join(words + summary.beginnings(row["init"], row["protocol"]))


def _outcome(network: Network) -> str:
    low, high, class_low, class_high = map(summary.percent, (*network.drop[1:], *network.class_drop[1:]))
    unequal = "; not trained alike" if network.row["unequal_seeds"] else ""
    return (
        f"{summary.points(network.drop.drop)} (drop {low} to {high}; averaged over classes {class_low} to {class_high}"
        f"{unequal})"
    )


def _lost(lost: Sequence[str]) -> str:
    named = [f"“{name}”" for name in lost[:NAMED_CLASSES]]
    more = len(lost) - len(named)
    listed = ", ".join(named) + (f" and {more} more" if more else "")
    return f"the class {listed} is lost" if len(lost) == 1 else f"the classes {listed} are lost"


def reasons(network: Network, tolerance: float) -> list[str]:
    """What its intervals do not tell of its verdict."""
    found = [_lost(network.lost)] if network.lost else []
    if failed := network.row["failed_seeds"]:
        found.append(f"training diverged with seed{'s' * (',' in failed)} {failed}")
    if not network.reached and network.within(tolerance):
        found.append(f"by itself within the tolerance of {tolerance:g}, but the tests ended before it")
    return found


def _judged(network: Network, tolerance: float) -> str:
    return "; ".join([*reasons(network, tolerance), f"it {_outcome(network)}"])


def _headline(network: Network, measure: str, share: float, tolerance: float) -> str:
    relation = {
        True: f"within the tolerance of {tolerance:g}",
        False: f"more than the tolerance of {tolerance:g}",
        None: f"and the tolerance of {tolerance:g} lies in between",
    }[network.within(tolerance)]
    word = ": ".join([network.verdict(tolerance).upper(), *filter(None, ["; ".join(reasons(network, tolerance))])])
    beyond = "" if preference.within(network.row["val_drop"], tolerance) else " On validation it loses more."
    return (
        f"{word}. {describe(network.row)} needs {100 * share:.0f} % of the {MEASURES[measure]} and "
        f"{_outcome(network)}, {relation}.{beyond}"
    )


def _step(ladder: Sequence[Network], headline: Network, unpruned: dict, tolerance: float) -> tuple[list[Network], str]:
    """The network beside the headline's on the ladder, if there is one, and what a sentence says of it."""
    if headline.verdict(tolerance) == HOLDS:
        beside = [network for network in ladder if network.row[SIZE] < headline.row[SIZE]][:1]
        where, none = "one step smaller", "no smaller network was judged."
    else:
        beside = [network for network in ladder[:1] if network.row[SIZE] > headline.row[SIZE]]
        where, none = "the largest that was judged", "no larger network was judged."
    if not beside:
        return beside, none
    (network,) = beside
    size = f"{100 * network.row[SIZE] / unpruned[SIZE]:.0f} % of the {MEASURES[SIZE]}"
    verb = _VERBS[network.verdict(tolerance)]
    return beside, f"{where}, {describe(network.row)} ({size}), {verb}: {_judged(network, tolerance)}."


def _claim(network: Network) -> str:
    row = network.row
    return (
        f"the claim that the best criterion loses less than {CLAIM_TOLERANCE:g} points at ratio {CLAIM_RATIO:g} "
        f"{_VERBS[network.verdict(CLAIM_TOLERANCE)]}: {summary.label(row['criterion'])}, "
        f"{summary.SCOPE_NAMES[row['scope']]}; {_judged(network, CLAIM_TOLERANCE)}."
    )


def notes(frame: pd.DataFrame, tolerance: float, margin: float) -> list[str]:
    """How the answer was found, in sentences."""
    chosen = "ratio and weights" if frame["protocol"].nunique() == 1 else "ratio, weights and protocol"
    text = [
        f"Criterion, scope, {chosen} are chosen by validation accuracy; of equals the smaller one is taken. The test "
        "images only judge.",
        f"Drop: the unpruned network's test accuracy less the pruned one's, in points, paired by seed and image, with "
        f"its {100 * CONFIDENCE:.0f} % interval over seeds and test images; averaged over classes: that of the mean of "
        f"the classes' accuracies. Holds: both intervals are within the tolerance of {tolerance:g}, no class is lost "
        "and no training diverged. Fails: all of an interval is above, a class is lost or a training diverged. Else "
        "undecided.",
        f"A class is lost where it surely loses more than {margin:g} points of its own accuracy, or where it is never "
        "found, and that not for want of test images.",
        "The smallest network that validation allows is tested first and, while they hold, the next smaller ones. If "
        "it is not found to hold, all from the largest on, until one is not. What comes after that cannot hold.",
    ]
    if (frame["seeds"] == 1).any():
        text.append("Where there is one seed, the interval is over images alone: it speaks of that one training.")
    if (frame["failed_seeds"] != "").any():
        text.append(
            "Drops are of the seeds in which neither its training nor that of the unpruned network diverged. A network "
            "that has no such seed is not judged."
        )
    if unequal := summary.unequal_remark(frame):
        text.append(unequal)
    return text


def markdown(answer: dict[str, list], experiment: str) -> str:
    """The answer as a page: sentences, then tables of verdicts and of the networks judged, then the notes."""
    lines = [f"# How small can it be? {experiment}", ""]
    lines += [f"- {line}" for line in answer["lines"]] + [""]
    for title, key in ("The smallest network", "verdicts"), ("The networks that were judged", "ladder"):
        if answer[key]:
            lines += [f"## {title}", "", *_markdown_table(answer[key], measured=key == "verdicts"), ""]
    return "\n".join([*lines, "## How it was found", "", *(f"- {note}" for note in answer["notes"]), ""])


def _markdown_table(rows: Sequence[dict[str, Any]], measured: bool) -> list[str]:
    header = ["data set", "backbone", *(["by"] if measured else []), "network", "size", "drop, points"]
    header += ["averaged over classes", "lost classes", "failed seeds", "verdict"]
    body = []
    for row in rows:
        share = f"{100 * row['size'] / row['baseline_size']:.0f} % of the {MEASURES[row['measure']]}"
        drops = [
            summary.marked(
                summary.bracketed(*(row[f"{name}{end}"] for end in ("", "_low", "_high"))), row["unequal_seeds"]
            )
            for name in ("drop", "class_drop")
        ]
        measure = [MEASURES[row["measure"]]] if measured else []
        lost = ", ".join(row["lost_classes"]).replace("|", "\\|")
        network = [row["dataset"], row["backbone"], *measure, describe(row), share]
        body.append([*network, *drops, lost, row["failed_seeds"], row["verdict"]])
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)]
