"""How small can the network be? What is said of the networks that were judged.

One list of networks in order of size, the finalists that validation chose, is judged by
:mod:`winnow.answers.procedure`; all sentences and figures of the answer are read off it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import pandas as pd

from winnow.answers import growth, outcomes, preference, procedure, summary, words
from winnow.answers.outcomes import Outcomes
from winnow.answers.procedure import ALPHA, FAILS, HOLDS, UNDECIDED, Judgement
from winnow.importance.scopes import BUDGETS
from winnow.training.protocols import ONE_SHOT
from winnow.workflow import grid
from winnow.workflow.grid import UNPRUNED, Cell

# The claim that the method is known for: at this ratio, the best criterion loses less than so many points.
CLAIM_RATIO, CLAIM_TOLERANCE = growth.CLAIM_RATIO, 2.0
_VERBS = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "is undecided"}
# What "small" may mean, and how a sentence names it.
Measure = Literal["macs", "params", "latency_ms", "bytes"]
MEASURES: dict[Measure, str] = {"macs": "MACs", "params": "parameters", "latency_ms": "latency", "bytes": "bytes"}


class Record(summary.Row):
    """A row of the table "recommendation", see :data:`winnow.tables.SCHEMAS`, less its question, and what else the
    summary knows of the network."""

    measure: Measure
    size: float
    baseline_size: float
    baseline_accuracy: float | None
    level: float
    wanted: int
    images: int | None
    lost_classes: list[str]
    verdict: str
    sentence: str


class Chosen(Record):
    """The one that is taken home, with the path of its cell."""

    cell: str


class Unpruned(TypedDict):
    """What is said of an unpruned network."""

    bytes: int | None
    params: int | None
    macs: int | None
    latency_ms: float | None
    accuracy: float | None


class Described(Unpruned, preference.Kind):
    """What is said of a smaller one: the drop is of accuracy, ``class_low`` and ``class_high`` are bounds of its mean
    over classes."""

    drop: float | None
    low: float | None
    high: float | None
    class_low: float | None
    class_high: float | None
    cell: str | None
    lost_classes: list[str]
    failed_seeds: str
    seeds: int
    level: float


class Smaller(Described):
    """The next smaller one."""

    verdict: str


class RunnerUp(Described):
    """Within a budget the next best, and how much more accurate the proposal is."""

    gain: float
    verdict: str


class Budget(TypedDict):
    """What a network may take."""

    measure: Measure
    limit: float
    runner_up: RunnerUp | None


class Answer(TypedDict):
    """The answer of a data set and backbone, for those who put it into words."""

    dataset: str
    backbone: str
    verdict: str
    tolerance: float
    class_margin: float
    measure: Measure
    confidence: float
    test_images: int
    folds: int | None
    trainings: int
    unpruned: Unpruned
    chosen: Described | None
    smaller: Smaller | None
    budget: Budget | None
    more_images: int | None


class Answered(TypedDict):
    """What is answered of data sets and backbones: see :func:`recommend`."""

    verdicts: list[Record]
    ladder: list[Record]
    claims: list[Record]
    chosen: list[Chosen]
    lines: list[str]
    answer: list[Answer]


class Recommendation(Answered):
    """What an experiment answers, and how that was found."""

    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Network:
    """A finalist as the test images judge it.

    Attributes
    ----------
    row : Row
        Its row of the summary; ``val_drop`` is that of the trainings that chose.
    cell : str or None
        Path of the training that would be taken home: the one that did best on validation, in a grid that grows of
        the first few (:data:`winnow.workflow.grid.TAKEN`). None where all diverged.
    judgement : Judgement
    seeds : int
        How many trainings the intervals are of: those that finished on both sides.
    accuracy, unpruned : float
        Its test accuracy and that of the unpruned network, over the same trainings and images; NaN, as the intervals
        are, where no training finished on both sides.
    """

    row: summary.Row
    cell: str | None
    judgement: Judgement
    seeds: int
    accuracy: float
    unpruned: float

    @property
    def verdict(self) -> str:
        return self.judgement.verdict

    @property
    def known(self) -> bool:
        """Whether there is an outcome: a training that finished on both sides."""
        return not math.isnan(self.judgement.drop.drop)

    def within(self, tolerance: float) -> bool | None:
        """Whether the intervals are within the tolerance; False where all of one is above, None where neither is so."""
        drops = (self.judgement.drop, self.judgement.class_drop)
        if any(100 * each.low > tolerance for each in drops):
            return False
        return all(100 * each.high <= tolerance for each in drops) or None


@dataclasses.dataclass(frozen=True)
class Place:
    """What was judged of one data set and backbone.

    Attributes
    ----------
    dataset, backbone : str
    networks : list of Network
        The finalists that were trained to be judged, the largest first.
    proposal : Network or None
        The one that is tested first, or where all its trainings diverged a larger one; None without networks.
    rival : Network or None
        Within a budget: the next best, which was trained as often and is held against the proposal in ``between``.
    between : Judgement or None
    images, trainings : int
        Test images that judge, and trainings that did, those of the unpruned network among them.
    folds : int or None
    """

    dataset: str
    backbone: str
    networks: list[Network]
    proposal: Network | None
    rival: Network | None
    between: Judgement | None
    images: int
    trainings: int
    folds: int | None


def judged(
    place: growth.Place,
    cells: Sequence[Cell],
    question: Mapping[str, Any],
    frame: pd.DataFrame,
    results: Outcomes,
) -> Place:
    """The finalists of a data set and backbone with what their trainings came to.

    Parameters
    ----------
    place
        As a step's file has it: see :func:`winnow.answers.growth.places`.
    cells
        Those that judge.
    question
        As of :func:`recommend`.
    frame
        The experiment's summary.
    results
        The cells' files.
    """
    experiment, folds = question["grid"], question["folds"].get(place["dataset"])
    looks = procedure.looks(folds) if growth.grows(experiment) else (len(growth.judging_seeds(experiment)),)
    finalists, labels, trainings = results.finalists(place, cells)
    judgements, between = outcomes.judged(place, finalists, labels, question, looks)
    rows = {preference.name_of(row): row for row in summary.records(frame) if row["backbone"] == place["backbone"]}
    networks: dict[int, Network] = {}
    for number, (chosen, finalist, judgement) in enumerate(zip(place["finalists"], finalists, judgements, strict=True)):
        own = trainings[finalist.name]
        if not own:
            continue
        done = [cell for cell in own if results.finished(cell)]
        if growth.grows(experiment):
            # Their networks are kept.
            done = [cell for cell in done if cell.seed in grid.taken_seeds(experiment)] or done
        best = max(done, key=lambda cell: (results.metrics(cell)["val_accuracy"], -cell.seed), default=None)
        row: summary.Row = {**rows[dataclasses.replace(own[0], seed=0).path], "val_drop": chosen["drop"]}
        after, before = (side[: judgement.seeds] for side in (finalist.pruned, finalist.baseline))
        seeds = int((~np.isnan(after)).any(axis=1).sum())
        networks[number] = Network(
            row,
            None if best is None else best.path,
            judgement,
            seeds,
            outcomes.accuracy(after),
            outcomes.accuracy(before),
        )
    used = {cell for own in trainings.values() for cell in own}
    larger = [networks[number] for number in range(place["proposal"] or 0, -1, -1) if number in networks]
    return Place(
        place["dataset"],
        place["backbone"],
        list(networks.values()),
        next((each for each in [*larger, *networks.values()] if each.known), next(iter(networks.values()), None)),
        None if place["rival"] is None else networks.get(place["rival"]),
        between,
        len(labels),
        len(used | {cell.baseline_of(place["backbone"]) for cell in used}),
        folds,
    )


def recommend(frame: pd.DataFrame, places: Sequence[Place], question: Mapping[str, Any]) -> Recommendation:
    """What an experiment answers, for each of its data sets and backbones.

    Parameters
    ----------
    frame
        The experiment's summary.
    places
        What was judged.
    question
        ``grid``: the experiment's axes; ``folds``: of its data sets; ``tolerance``: how many points of accuracy a
        smaller network may cost; ``class_margin``: and how many of its own a class; ``measure``: what networks are
        ordered by; ``limit``: what they may take at most, or None.

    Returns
    -------
    dict
        ``ladder``: the networks that were judged, the largest first. ``verdicts``: of these the smallest that holds,
        or, where none does, the one that is tested first; by the measure that is asked for first, then by the others.
        Within a budget it is the best that validation saw. ``claims``: what is known of the one at ratio
        :data:`CLAIM_RATIO` with the claim's tolerance. ``chosen``: the first of the verdicts, to be taken home.
        ``lines``: all that in sentences. ``notes``: how it was found. ``answer``: the same for those who put it into
        words of their own.
    """
    answer: Recommendation = {
        "verdicts": [],
        "ladder": [],
        "claims": [],
        "chosen": [],
        "lines": [],
        "answer": [],
        "notes": notes(frame, question),
    }
    by_place = {(place.dataset, place.backbone): place for place in places}
    for (dataset, backbone), rows in frame.groupby(["dataset", "backbone"], sort=False):
        records = summary.records(rows)
        unpruned = next(
            row
            for row in records
            if row["criterion"] == UNPRUNED and row["init"] == "inherited" and row["control"] is None
        )
        subject = f"{summary.title(dataset)}, {backbone}"
        place = by_place.get((dataset, backbone))
        if place is None or place.proposal is None:
            answer["lines"].append(f"{subject}: {_nothing(place, question)}")
            answer["answer"] += [_answer(place, None, unpruned, question)] if place else []
            continue
        found = _answered(subject, place, place.proposal, unpruned, question)
        answer["verdicts"] += found["verdicts"]
        answer["ladder"] += found["ladder"]
        answer["claims"] += found["claims"]
        answer["chosen"] += found["chosen"]
        answer["lines"] += found["lines"]
        answer["answer"] += found["answer"]
    return answer


def _nothing(place: Place | None, question: Mapping[str, Any]) -> str:
    """Why there is no answer."""
    if place is None:
        return "nothing to judge, the grid has no criterion but controls."
    if question["limit"] is not None:
        return f"no network takes {_amount(question['limit'], question['measure'])} or less."
    return "no verdict, for want of validation accuracies to choose with."


def _answered(
    subject: str, place: Place, proposal: Network, unpruned: summary.Row, question: Mapping[str, Any]
) -> Answered:
    """The answer of one data set and backbone, of which the sentences speak as ``subject``."""
    tolerance, limit = question["tolerance"], question["limit"]
    measure: Measure = question["measure"]
    ladder = place.networks
    measures = [measure, *(name for name in MEASURES if name not in (measure, "bytes"))]
    measures = [name for name in measures if unpruned[name] is not None]
    if limit is not None:
        ladder = [proposal]
        measures = [measure]
    found = {name: smallest(ladder, name) or proposal for name in measures}
    verdicts: list[Record] = []
    lines: list[str] = []
    for name, network in found.items():
        share = _size(network.row, name) / _size(unpruned, name)
        sentence = f"{subject}: {_headline(network, name, share, tolerance)}"
        verdicts.append(_record(network, name, unpruned, sentence))
        same = [MEASURES[each] for each, other in found.items() if other is network]
        if same[0] == MEASURES[name]:
            lines.append(sentence + (f" Smallest by {' and '.join(same[1:])} too." if same[1:] else ""))
    headline = found[measure]
    spoken = [*found.values()]
    if limit is None:
        beside, line = _step(ladder, headline, unpruned, measure, tolerance)
        spoken += beside
        lines.append(f"{subject}: {line}")
    else:
        lines.append(f"{subject}: {_within(place, proposal, question)}")
    claims: list[Record] = []
    for network in _claimed(ladder, tolerance):
        sentence = f"{subject}: {_claim(network, tolerance)}"
        claims.append({**_record(network, measure, unpruned, sentence), "verdict": claim_verdict(network, tolerance)})
        spoken.append(network)
        lines.append(sentence)
    lost = [network for network in ladder if network.judgement.lost and all(network is not each for each in spoken)]
    if lost:
        told = "; ".join(f"{describe(network.row)}: {_lost(network.judgement.lost)}" for network in lost)
        lines.append(f"{subject}: {told}.")
    return {
        "verdicts": verdicts,
        "ladder": [_record(each, measure, unpruned, _judged(each, tolerance)) for each in ladder],
        "claims": claims,
        "chosen": [{**verdicts[0], "cell": headline.cell}] if headline.cell else [],
        "lines": lines,
        "answer": [_answer(place, headline, unpruned, question)],
    }


def _answer(place: Place, chosen: Network | None, unpruned: summary.Row, question: Mapping[str, Any]) -> Answer:
    """The answer as an object, for those who put it into words; without a network where none could be judged."""
    limit = question["limit"]
    smaller = None
    if chosen and limit is None:
        smaller = next(iter(_smaller(place.networks, chosen, question["measure"])), None)
    budget: Budget | None = None
    if limit is not None:
        budget = {"measure": question["measure"], "limit": limit, "runner_up": None}
        if place.rival is not None and place.between is not None:
            drop = place.between.drop
            budget["runner_up"] = {
                **_described(place.rival),
                "gain": -drop.drop,
                "low": -drop.high,
                "high": -drop.low,
                "verdict": place.between.verdict,
            }
    return {
        "dataset": place.dataset,
        "backbone": place.backbone,
        "verdict": chosen.verdict if chosen else UNDECIDED,
        "tolerance": question["tolerance"],
        "class_margin": question["class_margin"],
        "measure": question["measure"],
        "confidence": 1 - ALPHA,
        "test_images": place.images,
        "folds": place.folds,
        "trainings": place.trainings,
        "unpruned": {
            "bytes": unpruned["bytes"],
            "params": unpruned["params"],
            "macs": unpruned["macs"],
            "latency_ms": unpruned["latency_ms"],
            "accuracy": _number(chosen.unpruned) if chosen else unpruned["accuracy"],
        },
        "chosen": _described(chosen) if chosen else None,
        "smaller": {**_described(smaller), "verdict": smaller.verdict} if smaller else None,
        "budget": budget,
        "more_images": chosen.judgement.images if chosen else None,
    }


def _described(network: Network) -> Described:
    row, judgement = network.row, network.judgement
    return {
        "bytes": row["bytes"],
        "params": row["params"],
        "macs": row["macs"],
        "latency_ms": row["latency_ms"],
        "accuracy": _number(network.accuracy),
        "drop": _number(judgement.drop.drop),
        "low": _number(judgement.drop.low),
        "high": _number(judgement.drop.high),
        "class_low": _number(judgement.class_drop.low),
        "class_high": _number(judgement.class_drop.high),
        "control": row["control"],
        "criterion": row["criterion"],
        "scope": row["scope"],
        "ratio": row["ratio"],
        "round_to": row["round_to"],
        "init": row["init"],
        "protocol": row["protocol"],
        "cell": network.cell,
        "lost_classes": list(judgement.lost),
        "failed_seeds": row["failed_seeds"],
        "seeds": network.seeds,
        "level": judgement.level,
    }


def _record(network: Network, measure: Measure, unpruned: summary.Row, sentence: str) -> Record:
    judgement = network.judgement
    drop, class_drop = judgement.drop, judgement.class_drop
    return {
        **network.row,
        "measure": measure,
        "size": _size(network.row, measure),
        "baseline_size": _size(unpruned, measure),
        "accuracy": _number(network.accuracy),
        "baseline_accuracy": _number(network.unpruned),
        "seeds": network.seeds,
        "level": judgement.level,
        "wanted": judgement.wanted,
        "images": judgement.images,
        "drop": _number(drop.drop),
        "drop_low": _number(drop.low),
        "drop_high": _number(drop.high),
        "class_drop": _number(class_drop.drop),
        "class_drop_low": _number(class_drop.low),
        "class_drop_high": _number(class_drop.high),
        "lost_classes": list(judgement.lost),
        "verdict": network.verdict,
        "sentence": sentence,
    }


def _size(row: summary.Row, measure: Measure) -> float:
    """What a network takes by a measure that is known of it."""
    size = row[measure]
    assert size is not None, measure
    return size


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def smallest(networks: Sequence[Network], measure: Measure) -> Network | None:
    """The smallest that holds, by a measure; None where none does."""
    held = [each for each in networks if each.verdict == HOLDS and each.row[measure] is not None]
    return min(held, key=lambda each: (_size(each.row, measure), each.row["macs"], each.cell), default=None)


def _smaller(ladder: Sequence[Network], network: Network, measure: Measure) -> list[Network]:
    """The networks below one, the nearest first."""
    return [each for each in ladder if _size(each.row, measure) < _size(network.row, measure)]


def _claimed(ladder: Sequence[Network], tolerance: float) -> list[Network]:
    """The network of the claim, if one was judged: one that holds; else the one that lost least on validation."""
    plain = (CLAIM_RATIO, "inherited", ONE_SHOT)
    found = [
        each
        for each in ladder
        if (each.row["ratio"], each.row["init"], each.row["protocol"]) == plain and each.row["scope"] not in BUDGETS
    ]

    def rank(network: Network) -> tuple[bool, preference.Rank]:
        row = network.row
        holds = claim_verdict(network, tolerance) == HOLDS
        return not holds, preference.rank(row["val_drop"], (_size(row, "macs"),), network.cell or "")

    return sorted(found, key=rank)[:1]


def claim_verdict(network: Network, tolerance: float) -> str:
    """What is known of the claim, without a test of its own.

    It holds where the network was found to hold with a tolerance that is no larger than the claim's, or where its
    intervals, at the level that it was tested with, are within the claim's and it was not found to hold with a smaller
    one: bounds of what a graph of tests did not reject are as sure as its tests [Strassburger & Bretz, Statistics in
    Medicine 27, 2008]. It fails where the network does by what has nothing to do with the tolerance, and where all of
    an interval is above the claim's.
    """
    judgement, within = network.judgement, network.within(CLAIM_TOLERANCE)
    if judgement.lost or network.row["failed_seeds"] or within is False:
        return FAILS
    if network.verdict == HOLDS:
        return HOLDS if tolerance <= CLAIM_TOLERANCE else UNDECIDED
    return HOLDS if within and judgement.reached and tolerance < CLAIM_TOLERANCE else UNDECIDED


def describe(row: Mapping[str, Any]) -> str:
    """A network in words: "apoz, by layer, ratio 0.4", "squeezenet1_1, never pruned"."""
    if row["control"] is not None:
        return f"{row['control']}, never pruned"
    words = [summary.label(row["criterion"]), summary.SCOPE_NAMES[row["scope"]], f"ratio {row['ratio']:g}"]
    if row["round_to"]:
        words.append(f"rounded to {row['round_to']}")
    return ", ".join(words + summary.beginnings(row["init"], row["protocol"]))


def _drops(judgement: Judgement) -> str:
    low, high, class_low, class_high = map(summary.percent, (*judgement.drop[1:], *judgement.class_drop[1:]))
    return f"drop {low} to {high}; averaged over classes {class_low} to {class_high}"


def _outcome(network: Network) -> str:
    if not network.known:
        return "has no training to be judged by"
    unequal = "; not trained alike" if network.row["unequal_seeds"] else ""
    return f"{summary.points(network.judgement.drop.drop)} ({_drops(network.judgement)}{unequal})"


def _lost(lost: Sequence[str]) -> str:
    named = [f"“{name}”" for name in lost[: words.NAMED_CLASSES]]
    more = len(lost) - len(named)
    listed = ", ".join(named) + (f" and {more} more" if more else "")
    return f"the class {listed} is lost" if len(lost) == 1 else f"the classes {listed} are lost"


def reasons(network: Network, tolerance: float) -> list[str]:
    """What its intervals do not tell of its verdict."""
    found = [_lost(network.judgement.lost)] if network.judgement.lost else []
    if failed := network.row["failed_seeds"]:
        found.append(f"training diverged with seed{'s' * (',' in failed)} {failed}")
    if network.verdict == UNDECIDED and network.within(tolerance):
        found.append(f"by itself within the tolerance of {tolerance:g}, but not as one of several that are tested")
    if network.judgement.images:
        found.append(f"about {network.judgement.images:,} more test images would decide")
    return found


def _judged(network: Network, tolerance: float) -> str:
    return "; ".join([*reasons(network, tolerance), f"it {_outcome(network)}"])


def _headline(network: Network, measure: Measure, share: float, tolerance: float) -> str:
    relation = {
        True: f", within the tolerance of {tolerance:g}",
        False: f", more than the tolerance of {tolerance:g}",
        None: f", and the tolerance of {tolerance:g} lies in between" if network.known else "",
    }[network.within(tolerance)]
    word = ": ".join([network.verdict.upper(), *filter(None, ["; ".join(reasons(network, tolerance))])])
    lost = network.row["val_drop"]
    beyond = "" if lost is None or preference.within(lost, tolerance) else " On validation it loses more."
    return (
        f"{word}. {describe(network.row)} needs {100 * share:.0f} % of the {MEASURES[measure]} and "
        f"{_outcome(network)}{relation}.{beyond}"
    )


def _step(
    ladder: Sequence[Network], headline: Network, unpruned: summary.Row, measure: Measure, tolerance: float
) -> tuple[list[Network], str]:
    """The network beside the headline's on the ladder, if there is one, and what a sentence says of it."""
    if headline.verdict == HOLDS:
        beside = _smaller(ladder, headline, measure)[:1]
        where, none = "one step smaller", "no smaller network was judged."
    else:
        beside = [each for each in ladder[:1] if _size(each.row, measure) > _size(headline.row, measure)]
        where, none = "the largest that was judged", "no larger network was judged."
    if not beside:
        return beside, none
    (network,) = beside
    size = f"{100 * _size(network.row, measure) / _size(unpruned, measure):.0f} % of the {MEASURES[measure]}"
    verb = _VERBS[network.verdict]
    return beside, f"{where}, {describe(network.row)} ({size}), {verb}: {_judged(network, tolerance)}."


def _within(place: Place, proposal: Network, question: Mapping[str, Any]) -> str:
    """What is said of the choice within a budget."""
    taken = _amount(_size(proposal.row, question["measure"]), question["measure"])
    said = f"it takes {taken}; of those that take {_amount(question['limit'], question['measure'])} or less"
    against = place.between
    if place.rival is None or against is None:
        return f"{said} it is the only one."
    better = "no less accurate than" if against.verdict == HOLDS else "not told apart from"
    if against.verdict == FAILS:
        better = "less accurate than"
    gain = summary.points(against.drop.drop)
    low, high = map(summary.percent, against.drop[1:])
    return (
        f"{said} validation prefers it, and the test images find it {better} the next best, "
        f"{describe(place.rival.row)}: against that it {gain} (drop {low} to {high})."
    )


def _amount(value: float, measure: Measure) -> str:
    """A size in words: "4.2 ms", "1.2 MB", "30.1 M MACs"."""
    if measure == "latency_ms":
        return f"{summary.milliseconds(value)} ms"
    return f"{summary.quantity(value)}B" if measure == "bytes" else f"{summary.quantity(value)} {MEASURES[measure]}"


def _claim(network: Network, tolerance: float) -> str:
    row, verdict = network.row, claim_verdict(network, tolerance)
    said = ""
    if verdict == UNDECIDED and network.within(CLAIM_TOLERANCE):
        said = "its interval is within, but no test of it is counted; "
    return (
        f"the claim that the best criterion loses less than {CLAIM_TOLERANCE:g} points at ratio {CLAIM_RATIO:g} "
        f"{_VERBS[verdict]}: {summary.label(row['criterion'])}, "
        f"{summary.SCOPE_NAMES[row['scope']]}; {said}{_judged(network, tolerance)}."
    )


def notes(frame: pd.DataFrame, question: Mapping[str, Any]) -> list[str]:
    """How the answer was found, in sentences."""
    tolerance, margin, experiment = question["tolerance"], question["class_margin"], question["grid"]
    seeds = growth.choosing_seeds(experiment)
    chosen = "ratio and weights" if frame["protocol"].nunique() == 1 else "ratio, weights and protocol"
    choosers = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    text = [
        f"Criterion, scope, {chosen} are chosen by validation accuracy, of trainings with {choosers}; of equals the "
        "smaller one is taken. The test images only judge.",
        "Drop: the unpruned network's test accuracy less the pruned one's, in points, paired by seed and image, with "
        "its interval over trainings and test images, at the level that the network was tested with; averaged over "
        "classes: that of the mean of the classes' accuracies. Holds: both intervals are within the tolerance of "
        f"{tolerance:g}, no class is lost and no training diverged. Fails: all of an interval is above, a class is "
        "lost or a training diverged. Else undecided.",
        f"A class is lost where it surely loses more than {margin:g} points of its own accuracy, or where it is never "
        "found, and that not for want of test images.",
        f"That any network is said to hold and does not has a chance of at most {100 * ALPHA:g} %, over all networks "
        "and looks together: of each size's best the second smallest that validation allows is tested with half of it, "
        "larger ones with what is left, and what holds hands its part to the next smaller one, those that validation "
        "allows first.",
    ]
    if experiment.get("controls"):
        named = ", ".join(experiment["controls"])
        text.append(
            f"Beside pruned networks stand smaller ones that were never pruned, {named}: they are chosen and judged as "
            "the others are, against the same unpruned network, by the same seeds and images."
        )
    judging = None if growth.grows(experiment) else growth.judging_seeds(experiment)
    if judging is not None and set(judging) & set(seeds):
        text.append(
            "There is one seed: it chose and it judges, so that the network may have been chosen for a lucky training, "
            "and its interval is over images alone."
        )
    elif judging is not None:
        text.append(
            f"Networks are judged by seed{'s' * (len(judging) > 1)} {', '.join(map(str, judging))}; the summary and "
            "the figures are of all seeds."
        )
    if (frame["failed_seeds"] != "").any():
        text.append("Drops are of the seeds in which neither its training nor that of the unpruned network diverged.")
    if unequal := summary.unequal_remark(frame):
        text.append(unequal)
    return text


def markdown(answer: Recommendation, experiment: str) -> str:
    """The answer as a page: sentences, then tables of verdicts and of the networks judged, then the notes."""
    lines = [f"# How small can it be? {experiment}", ""]
    lines += [f"- {line}" for line in answer["lines"]] + [""]
    if answer["verdicts"]:
        lines += ["## The smallest network", "", *_markdown_table(answer["verdicts"], measured=True), ""]
    if answer["ladder"]:
        lines += ["## The networks that were judged", "", *_markdown_table(answer["ladder"], measured=False), ""]
    return "\n".join([*lines, "## How it was found", "", *(f"- {note}" for note in answer["notes"]), ""])


def _markdown_table(rows: Sequence[Record], measured: bool) -> list[str]:
    header = ["data set", "backbone", *(["by"] if measured else []), "network", "size", "drop, points"]
    header += ["averaged over classes", "lost classes", "failed seeds", "verdict"]
    body = []
    for row in rows:
        share = f"{100 * row['size'] / row['baseline_size']:.0f} % of the {MEASURES[row['measure']]}"
        intervals = (
            summary.bracketed(row["drop"], row["drop_low"], row["drop_high"]),
            summary.bracketed(row["class_drop"], row["class_drop_low"], row["class_drop_high"]),
        )
        drops = [summary.marked(text, row["unequal_seeds"]) for text in intervals]
        measure = [MEASURES[row["measure"]]] if measured else []
        lost = ", ".join(row["lost_classes"]).replace("|", "\\|")
        network = [row["dataset"], row["backbone"], *measure, describe(row), share]
        body.append([*network, *drops, lost, row["failed_seeds"], row["verdict"]])
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)]
