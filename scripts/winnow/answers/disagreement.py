"""How much less accurate one network is than another, from photographs of which few or none have labels.

Where two networks give the same answer, both are right or both are wrong, whatever the label: only photographs on which
they disagree can tell them apart. The drop of the second against the first, p₁ − p₂, is the share of photographs on
which the first alone is right less the share on which the second alone is. Photographs are taken for a random sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import scipy.special

from winnow.answers.intervals import CONFIDENCE, Interval

TAIL = (1 - CONFIDENCE) / 2


class Counts(NamedTuple):
    """What is known of photographs on which two networks disagree.

    Attributes
    ----------
    images : int
        Photographs, those included on which they agree.
    disagreeing : int
        Those on which they do not.
    labelled : int
        Of these, a sample drawn at random that somebody has looked at, not empty unless they are none; perhaps all.
    first, second : int
        On how many of the sample the one and the other is right.
    unknown : int
        Of how many nobody could say. On the rest neither is right.
    """

    images: int
    disagreeing: int
    labelled: int
    first: int
    second: int
    unknown: int = 0


def most(disagreeing: int, images: int) -> float:
    """How far apart two networks' accuracies are at most, without a label: |p₁ − p₂| ≤ the rate of disagreement.

    The upper end of that rate's interval [Clopper & Pearson, Biometrika 26, 1934]: one in 40 is above.
    """
    return _rate(disagreeing, images)[1]


def population(counts: Counts) -> Interval:
    """The drop on photographs like these, with its 95 % interval.

    The shares of the two kinds have exact intervals [Clopper & Pearson 1934], which are put together by the distances
    of their ends from the estimates, as two counts of one multinomial are [Zou & Donner, Statistics in Medicine 27,
    2008, their method of variance estimates recovery; Newcombe, Statistics in Medicine 17, 1998, method 10].

    A sample of m of the D disagreements is worth all disagreements of a smaller sample of photographs, n m / D. That is
    on the safe side: what the other photographs say of the rate of disagreement is not made use of. Whom nobody could
    label counts for the second network in the lower end, and for the first in the upper.
    """
    images = counts.images * counts.labelled / counts.disagreeing if counts.disagreeing else counts.images
    low = _difference(counts.first, counts.second + counts.unknown, images)
    high = _difference(counts.first + counts.unknown, counts.second, images)
    return Interval((counts.first - counts.second) / images, low.low, high.high)


def pool(counts: Counts) -> Interval:
    """The drop on these photographs themselves, with an interval that holds it at least as often as 95 % says.

    It is :func:`population`'s within what the labels leave possible: where all are labelled, it is known.
    """
    open_ = counts.disagreeing - counts.labelled + counts.unknown
    least, greatest = ((counts.first - counts.second + sign * open_) / counts.images for sign in (-1, 1))
    found = population(counts)
    return Interval(found.drop, max(found.low, least), min(found.high, greatest))


def _difference(first: int, second: int, images: float) -> Interval:
    """The difference of two shares of a multinomial sample; ``images`` need not be whole."""
    p, q = first / images, second / images
    (p_low, p_high), (q_low, q_high) = _rate(first, images), _rate(second, images)
    # Where neither share is 1. That of the estimates: of two counts that cannot both be large, negative.
    correlation = -math.sqrt(p * q / ((1 - p) * (1 - q))) if max(p, q) < 1 else 0.0
    below = _length(p - p_low, q_high - q, correlation)
    above = _length(p_high - p, q - q_low, correlation)
    return Interval(p - q, max(p - q - below, -1.0), min(p - q + above, 1.0))


def _length(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(one * one + other * other - 2 * correlation * one * other, 0.0))


def _rate(count: int, images: float) -> tuple[float, float]:
    """The exact 95 % interval of a share."""
    low = float(scipy.special.betaincinv(count, images - count + 1, TAIL)) if count else 0.0
    high = float(scipy.special.betaincinv(count + 1, images - count, 1 - TAIL)) if count < images else 1.0
    return low, high
