"""The smallest drop of accuracy that can be told from none, by the number of images alone. Imports nothing heavy."""

from __future__ import annotations

import math
from statistics import NormalDist

# On how many of the images a pruned network and the unpruned one disagree, where neither is better: from and to.
DISAGREEMENT = 0.02, 0.06
# Of this, what is the images' doing and comes again in every training; the rest averages out over trainings.
LASTING = 0.3
# How much a drop scatters from training to training, as a share of 1.
SPREAD = 0.003
# One image lost and one won are made up, as winnow.answers.intervals does.
MADE_UP = 2
CONFIDENCE = 0.95
# Trainings of each network that is judged: at most, and, with K folds, one for each of them.
MOST = 10


def half_width(images: int, trainings: int, disagreement: float, rounds: float | None = None) -> float:
    """Half of the interval of a drop that is truly none, in points, of which 100 make 1.

    An interval's variance is that of the images, (n p + 2) / ((n + 1)(n + 2)) with its two made-up ones, and that of
    the trainings. p, the mean square of an image's difference over the trainings that test it, is the disagreement
    times what lasts of it and an R-th of what does not.

    Parameters
    ----------
    images
        n: images that judge.
    trainings
        S: of each of the two networks.
    disagreement
        On which share of the images the two are not both right or both wrong.
    rounds
        R: how many of the trainings test an image; None: all of them.
    """
    square = disagreement * (LASTING + (1 - LASTING) / (rounds or trainings))
    of_images = (images * square + MADE_UP) / ((images + MADE_UP - 1) * (images + MADE_UP))
    variance = of_images + SPREAD**2 / trainings
    return 100 * student((1 + CONFIDENCE) / 2, max(images - 1, 1)) * math.sqrt(variance)


def student(share: float, freedom: float) -> float:
    """Student's quantile: the expansion about the normal one [Abramowitz & Stegun 1964, 26.7.5], good to 0.1 % from
    four degrees of freedom on."""
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def smallest_drop(images: int, folds: int | None = None) -> tuple[float, float]:
    """The smallest drop that can be told from none, in points: from and to, by how much the networks disagree.

    With folds, after one round; without, after :data:`MOST` trainings: more would not help much.

    Parameters
    ----------
    images
        Test images, or, with folds, all images: each is tested on.
    folds
        None without.
    """
    trainings, rounds = (folds, 1) if folds else (MOST, None)
    low, high = (half_width(images, trainings, disagreement, rounds) for disagreement in DISAGREEMENT)
    return low, high
