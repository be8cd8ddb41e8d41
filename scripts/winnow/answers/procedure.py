"""Which of an experiment's finalists hold, with one error for all of them, and which trainings that still takes.

Finalists were chosen on validation images, by trainings that judge nothing, and stand in order of size. They are judged
by fresh trainings, a few at first and more where the answer is open. That a network is said to hold and does not has a
chance of at most :data:`ALPHA`, over all finalists and looks together:

- The proposal, of each size's best the second smallest that validation allows, is tested with half of α, the next
  larger one with a quarter, and so on, the largest with what is left. What is found to hold hands its share to the next
  one in turn: after the proposal come the smaller ones that validation allows, then the other smaller ones (a graph of
  tests [Bretz, Maurer, Brannath & Posch, Statistics in Medicine 28, 2009], over looks [Maurer & Bretz, Statistics in
  Biopharmaceutical Research 5, 2013]). That a smaller network loses more is not assumed.
- A share is spent over the looks, each having its own part of it (:data:`SPENDING`; Bonferroni over looks, so that
  nothing is assumed of how they hang together).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.special

from winnow.answers import intervals
from winnow.answers.intervals import Interval, Parts, Prior

ALPHA = 0.025
# After how many trainings a finalist is looked at.
LOOKS = (3, 5, 10)
# With folds, after whole rounds of at least so many: with one an image is tested once, and with four as well as ever.
LOOKS_IN_FOLDS = (5, 10, 20)
# How alpha is shared out between the looks; where there are fewer, between the last ones. A first look of three
# trainings decides little, whatever it is given, and the last one most.
SPENDING = (1, 3, 6)
# The proposal's share of alpha, and each larger one's of what the smaller ones leave.
FIRST = 0.5
# A finalist whose chance to hold after its last look is smaller gets no more trainings.
FUTILE = 0.05
# What test images are counted for where a drop is next to the tolerance: one this far from it, as a share of it.
NEAR = 0.25
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


def looks(folds: int | None) -> tuple[int, ...]:
    """After how many judging trainings one looks; with folds after whole rounds of them, so that every image judges."""
    if folds is None:
        return LOOKS
    return tuple(sorted({folds * math.ceil(look / folds) for look in LOOKS_IN_FOLDS}))


@dataclasses.dataclass(frozen=True)
class Finalist:
    """A network and the outcomes of its judging trainings, in the order in which they were asked for.

    Attributes
    ----------
    name : str
    size : float
        By the measure that is asked for.
    diverged : bool
        Whether any of its trainings did.
    baseline, pruned : (S, n) float
        Whether the unpruned network and this one, trained with seed s, are right on test image i: 1, 0, or NaN where
        the seed does not test the image (folds). A seed of which there is no outcome, as a training diverged, is a row
        of NaN. No row where it was not trained yet.
    allowed : bool
        Whether it was within the tolerance on validation images.
    """

    name: str
    size: float
    diverged: bool
    baseline: np.ndarray
    pruned: np.ndarray
    allowed: bool = True


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is known of a finalist.

    Attributes
    ----------
    name : str
    seeds : int
        How many trainings the intervals are of.
    drop, class_drop : Interval
        Of accuracy and of the mean over classes of their accuracies; NaN where there is no outcome.
    lost : tuple of str
        The classes that it loses.
    verdict : str
        ``holds`` where both drops' whole intervals are within the tolerance, no class is lost, no training diverged and
        the tests reach it; ``fails`` where all of an interval is above the tolerance, a class is lost or a training
        diverged; else ``undecided``.
    level : float
        Of the intervals: what it was tested with, or is tested with next.
    wanted : int
        How many trainings it should have next; 0 where no more are of use.
    images : int or None
        How many more test images would decide, of an undecided one that no more trainings can decide; None of all
        others, where trainings scatter so much that no number of images could, and where more trainings would do.
    reached : bool
        Whether the tests came to it: one that they did not reach does not hold.
    """

    name: str
    seeds: int
    drop: Interval
    class_drop: Interval
    lost: tuple[str, ...]
    verdict: str
    level: float
    wanted: int
    images: int | None
    reached: bool


def shares(count: int, proposal: int) -> list[float]:
    """What part of alpha each of the finalists, the largest first, is tested with at the beginning."""
    found, left = [0.0] * count, 1.0
    for place in range(proposal, -1, -1):
        found[place] = left * FIRST if place else left
        left -= found[place]
    return found


def increments(looks: Sequence[int]) -> list[float]:
    """What part of a finalist's alpha each look spends: of three looks at most."""
    parts = SPENDING[-len(looks) :]
    return [part / sum(parts) for part in parts]


def tested(
    p_values: Sequence[Sequence[float]], proposal: int, spending: Sequence[float]
) -> list[tuple[float, int | None]]:
    """The graph of tests.

    Parameters
    ----------
    p_values
        Of each finalist, in the order in which they hand on their shares, at each look that it has had.
    proposal
        Its place among them.
    spending
        What part of a finalist's alpha each look spends.

    Returns
    -------
    list of tuple
        Of each finalist its share of alpha, and the last look at which it held; None where it did at none.
    """
    share = shares(len(p_values), proposal)
    held: dict[int, tuple[float, int]] = {}

    def looks_of(place: int) -> list[int]:
        if place in held or not share[place]:
            return []
        return [
            look
            for look, (p_value, part) in enumerate(zip(p_values[place], spending, strict=False))
            if p_value <= share[place] * ALPHA * part
        ]

    while found := [place for place in range(len(share)) if looks_of(place)]:
        place = found[0]
        held[place] = share[place], looks_of(place)[-1]
        heir = next((other for other in range(place + 1, len(share)) if other not in held), None)
        if heir is not None:
            share[heir] += share[place]
        share[place] = 0.0
    return [held.get(place, (share[place], None)) for place in range(len(share))]


class _Evidence:
    """Finalists' outcomes up to each look, and what they say together of how trainings scatter."""

    def __init__(self, finalists: Sequence[Finalist], labels: np.ndarray, tolerance: float):
        self.finalists, self.limit = finalists, tolerance / 100
        self.labels = np.unique(labels, return_inverse=True)[1]
        # Of accuracy and of the mean over classes, with so many trainings or all there are; None without any.
        self.parts = functools.cache(self._parts)
        self.priors = functools.cache(self._priors)

    def _parts(self, place: int, seeds: int) -> tuple[Parts, Parts] | None:
        each = self.finalists[place]
        sides = each.baseline[:seeds], each.pruned[:seeds]
        if not len(sides[0]) or np.isnan(sides[0] - sides[1]).all():
            return None
        return intervals.parts(*sides), intervals.parts(*sides, self.labels)

    def _priors(self, seeds: int) -> tuple[Prior | None, Prior | None]:
        found = [self.parts(place, min(seeds, len(each.pruned))) for place, each in enumerate(self.finalists)]
        known = [parts for parts in found if parts is not None]
        return intervals.pooled([parts[0] for parts in known]), intervals.pooled([parts[1] for parts in known])

    def p_value(self, place: int, seeds: int) -> float:
        """Of the hypothesis that it loses the tolerance or more, by accuracy or over classes."""
        parts = self.parts(place, seeds)
        if parts is None:
            return 1.0
        return max(intervals.p_value(*pair) for pair in zip(parts, [self.limit] * 2, self.priors(seeds), strict=True))

    def intervals(self, place: int, seeds: int, level: float) -> list[Interval]:
        parts = self.parts(place, seeds)
        if parts is None:
            return [Interval(math.nan, math.nan, math.nan)] * 2
        return [intervals.interval(each, level, prior) for each, prior in zip(parts, self.priors(seeds), strict=True)]

    def later(self, place: int, seeds: int, last: int) -> list[tuple[Parts, float, float, float]]:
        """Of both drops what is known, its variance's parts after the last look, images' and trainings', and the latter
        now."""
        parts = self.parts(place, seeds)
        assert parts is not None  # who has no outcome is asked for one first
        found = []
        for each, prior in zip(parts, self.priors(seeds), strict=True):
            between = max(intervals.moderated(each, prior)[0] - each.noise, 0.0) if each.freedom else 0.0
            images = each.image - min(each.rest, each.image) * (1 - seeds / last)
            found.append((each, images, between / last, between * each.share))
        return found

    def chance(self, place: int, seeds: int, last: int, alpha: float) -> float:
        """That it holds after the last look, if its drop is what it seems to be: the smaller one of both drops'."""
        quantile = scipy.special.ndtri(1 - alpha)
        chances = []
        for each, images, trainings, now in self.later(place, seeds, last):
            reach = self.limit - quantile * math.sqrt(images + trainings) - each.drop
            moves = math.sqrt(max(each.image + now - images - trainings, 1e-12))
            chances.append(float(scipy.special.ndtr(reach / moves)))
        return min(chances)

    def images(self, place: int, seeds: int, last: int, alpha: float) -> int | None:
        """How many more test images decide after the last look, if its drop is what it seems to be.

        None where no number of them does, and where those that there are do.
        """
        squared = scipy.special.ndtri(1 - alpha) ** 2
        outcomes = self.finalists[place].pruned[:seeds]
        count = (~np.isnan(outcomes)).any(axis=0).sum()
        needed = 0.0
        for each, images, trainings, _ in self.later(place, seeds, last):
            room = max(abs(self.limit - each.drop), NEAR * self.limit) ** 2 - squared * trainings
            if room <= 0:
                return None
            needed = max(needed, squared * images / room)
        if needed <= 1:
            return None
        more = math.ceil(count * (needed - 1))
        step = 10 ** max(len(str(more)) - 2, 0)
        return math.ceil(more / step) * step


def judge(
    finalists: Sequence[Finalist],
    proposal: int,
    labels: np.ndarray,
    tolerance: float,
    margin: float,
    looks: Sequence[int] = LOOKS,
) -> list[Judgement]:
    """Judge an experiment's finalists of one data set and backbone by what trainings there are.

    It remembers nothing: with more outcomes of the same finalists it is called again, and all looks that have been are
    taken at once. Trainings after the last look do not count.

    Parameters
    ----------
    finalists
        In order of size, the largest first.
    proposal
        The place of the one that is tested first: :func:`winnow.answers.growth.choose`.
    labels : (n,)
        The test images' classes.
    tolerance, margin
        How many points of accuracy a network, and each class of it, may lose.
    looks
        After how many trainings of a finalist it is tested.

    Returns
    -------
    list of Judgement
        In the order of the finalists. Trainings are wanted of as few as the answer takes: of the proposal until it
        holds or surely cannot, then of larger ones in turn; and of the one whose turn is next when one holds.
    """
    smaller = sorted(range(proposal + 1, len(finalists)), key=lambda place: (not finalists[place].allowed, place))
    turns = [*range(proposal + 1), *smaller]
    found = _in_turn([finalists[place] for place in turns], proposal, labels, tolerance, margin, looks)
    return [found[turns.index(place)] for place in range(len(finalists))]


def _in_turn(
    finalists: Sequence[Finalist],
    proposal: int,
    labels: np.ndarray,
    tolerance: float,
    margin: float,
    looks: Sequence[int],
) -> list[Judgement]:
    """The same of finalists in the order in which they hand on their shares of alpha."""
    evidence, spending, last = _Evidence(finalists, labels, tolerance), increments(looks), looks[-1]
    places = range(len(finalists))
    had = [[look for look in looks if look <= len(each.pruned)] for each in finalists]
    lost = [
        intervals.lost_classes(each.baseline[:last], each.pruned[:last], labels, margin)
        if evidence.parts(place, last)
        else ()
        for place, each in enumerate(finalists)
    ]
    out = [each.diverged or bool(gone) for each, gone in zip(finalists, lost, strict=True)]
    p_values = [[1.0 if out[place] else evidence.p_value(place, look) for look in had[place]] for place in places]
    graph = tested(p_values, proposal, spending)

    found = []
    for place, each in enumerate(finalists):
        share, held = graph[place]
        # One that the tests did not come to is shown with what the nearest one before it would hand to it.
        prospect = share or next(
            (graph[other][0] for other in range(place - 1, -1, -1) if graph[other][1] is None), 0.0
        )
        prospect = prospect or 1.0
        look = held if held is not None else max(len(had[place]) - 1, 0)
        seeds = looks[look] if had[place] else len(each.pruned)
        known = evidence.parts(place, seeds) is not None
        final = ALPHA * prospect * spending[-1]
        later = held is None and not out[place] and len(each.pruned) < last
        if later and known and had[place]:
            later = evidence.chance(place, seeds, last, final) >= FUTILE
        # One that is not to be looked at again is shown with what the last look would have had.
        level = 1 - 2 * (ALPHA * prospect * spending[look] if later or held is not None else final)
        drop, class_drop = evidence.intervals(place, seeds, level)
        verdict = UNDECIDED if held is None else HOLDS
        if out[place] or (held is None and any(100 * side.low > tolerance for side in (drop, class_drop))):
            verdict, later = FAILS, False
        within = known and all(100 * side.high <= tolerance for side in (drop, class_drop))
        images = None
        if verdict == UNDECIDED and known and not later and not within:
            images = evidence.images(place, seeds, last, final)
        wanted = next(look for look in looks if look > len(each.pruned)) if later else 0
        judged = seeds, drop, class_drop, lost[place], verdict, level
        found.append(Judgement(each.name, *judged, wanted, images, reached=share > 0))
    asked = _asked(found, proposal, looks[0], [len(each.pruned) for each in finalists])
    return [dataclasses.replace(each, wanted=each.wanted * (place in asked)) for place, each in enumerate(found)]


def _asked(found: Sequence[Judgement], proposal: int, first: int, trained: Sequence[int]) -> set[int]:
    """Which finalists are to be trained on, of those that it could do any good to."""
    holding = [place for place, each in enumerate(found) if each.verdict == HOLDS]
    if holding:
        return {holding[-1] + 1}
    opened = next((place for place in range(proposal, -1, -1) if found[place].wanted), None)
    if opened is None:
        return set()
    following = opened + 1
    return {opened} | ({following} if following < len(found) and trained[following] < first else set())


def within_budget(
    chosen: Finalist,
    runner_up: Finalist | None,
    labels: np.ndarray,
    tolerance: float,
    margin: float,
    looks: Sequence[int] = LOOKS,
) -> tuple[Judgement, Judgement | None]:
    """The most accurate network within a budget, judged against the unpruned one and against the runner-up.

    Both are chosen on validation, so that there is one hypothesis against the unpruned network, with all of alpha. The
    comparison with the runner-up, whose ``pruned`` outcomes are of the same seeds, is tested after that has held, with
    the same alpha: it holds where the chosen one is surely no worse, and is undecided where both may be the better one.
    """
    (against_unpruned,) = judge([chosen], 0, labels, tolerance, margin, looks)
    if runner_up is None:
        return against_unpruned, None
    seeds = min(len(chosen.pruned), len(runner_up.pruned))
    pair = Finalist(chosen.name, chosen.size, chosen.diverged, runner_up.pruned[:seeds], chosen.pruned[:seeds])
    (against_other,) = judge([pair], 0, labels, 0.0, margin, looks)
    reached = against_unpruned.verdict == HOLDS
    verdict = UNDECIDED if against_other.verdict == HOLDS and not reached else against_other.verdict
    return against_unpruned, dataclasses.replace(against_other, verdict=verdict, wanted=0, images=None, reached=reached)
