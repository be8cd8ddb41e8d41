"""The learning rate of a network, found by short trainings: ``learning_rate: auto``.

What suits one network leaves another at chance, and a pruned one is another network [Le & Hua, *Network Pruning That
Matters? A Case Study on Retraining Variants*, 2021]. So a network is trained for a part of the recipe's epochs with
each of some rates, :data:`FACTOR` apart, and validation chooses. The first is :func:`base`; from there one goes up,
then down, until the best has a worse one on either side, or :data:`MOST` were tried.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.files import InputError, read_json
from winnow.training.metrics import Surroundings

# In place of a number.
AUTO = "auto"
(RATE,) = FILES = ("rate.json",)
# By optimizer: the rate of a batch of 32 that validation found best for networks from ImageNet (docs/study.md), and the
# power of the batch's size with which it grows: in proportion under SGD [Goyal et al. 2017], with the root under Adam
# [Malladi et al. 2022]. Of networks with batch norm it is another, ten times as large under SGD.
BASES = {"sgd": (0.003, 1.0), "adamw": (0.0003, 0.5)}
NORMALISED = {"sgd": 0.03}
FACTOR = 3
MOST = 5
# A search's trainings have this part of the recipe's epochs, and so many at least.
SHARE, LEAST_EPOCHS = 4, 2


@dataclasses.dataclass(frozen=True)
class Try:
    """A short training.

    Attributes
    ----------
    val_accuracy, val_loss : float or None
        Of its last epoch, not the best, which knows nothing of a training that fell back after it; None where it
        diverged, and then ``reason`` says how.
    """

    learning_rate: float
    val_accuracy: float | None
    val_loss: float | None
    reason: str | None = None


class Rate(Surroundings):
    """What a search has found, ``rate.json``: by which tries, of so many epochs, on so many images for validation."""

    learning_rate: float
    epochs: int
    val_images: int
    chance: float
    tries: list[dict[str, Any]]
    micro_batch: int
    seconds: dict[str, float]
    spec: dict[str, Any]


def base(recipe: Mapping[str, Any], normalised: bool) -> float:
    """The first rate to try, two digits of it; ``normalised``: of a network with batch norm."""
    rate, power = BASES[recipe["optimizer"]]
    if normalised:
        rate = NORMALISED.get(recipe["optimizer"], rate)
    return _rounded(rate * (recipe["batch_size"] / 32) ** power)


def epochs(recipe: Mapping[str, Any]) -> int:
    """For how many epochs a search trains with each rate."""
    return min(max(math.floor(recipe["epochs"] / SHARE + 0.5), LEAST_EPOCHS), recipe["epochs"])


def indistinct(right: int, images: int) -> float:
    """How many images fewer than ``right`` of so many can't be told from as good: a standard error, one at least."""
    return max(math.sqrt(right * (images - right) / images), 1)


def best(tries: Sequence[Try], images: int, chance: float) -> Try:
    """Which of some rates is taken, of which the first is the one that is expected to do.

    One that was trained with is preferred to one that diverged, one that is above chance to one that is not, then the
    more accurate one; but of those that validation can't tell apart (:func:`indistinct`) the one nearest to the first,
    of two as near the smaller. A few epochs on few images are no reason to leave what is known of many networks: least
    of all for a rate that hardly trains, which a last layer that was fitted makes look as good. Where none is above
    chance it is the first, where all diverged the smallest.

    Parameters
    ----------
    images
        How many images validate.
    chance
        The share of the largest class among them, which who always says it gets right.
    """
    finished = {each: each.val_accuracy for each in tries if each.val_accuracy is not None}
    if not finished:
        return min(tries, key=lambda each: each.learning_rate)
    # Counts, since a mean over images is off by its last bit.
    right = {each: round(accuracy * images) for each, accuracy in finished.items() if accuracy > chance}
    if not right:
        return next(iter(finished))
    most = max(right.values())
    least = most - indistinct(most, images)
    near = [each for each, number in right.items() if number >= least]
    return min(near, key=lambda each: (_steps(each, tries[0]), each.learning_rate))


def wanted(
    tries: Sequence[Try], recipe: Mapping[str, Any], normalised: bool, images: int, chance: float
) -> float | None:
    """The rate to try next; None where the search is over. What it is told is told :func:`base` and :func:`best`."""
    if not tries:
        return base(recipe, normalised)
    if len(tries) == MOST:
        return None
    tried, found = [each.learning_rate for each in tries], best(tries, images, chance)
    if found.learning_rate == max(tried) and found.reason is None:
        return _rounded(max(tried) * FACTOR)
    return _rounded(min(tried) / FACTOR) if found.learning_rate == min(tried) else None


def read(path: Path) -> float:
    """Read what a search has found.

    Raises
    ------
    InputError
        If the file is missing or says no learning rate; the message names it.
    """
    rate = read_json(path).get("learning_rate")
    if not isinstance(rate, float) or not rate > 0:
        raise InputError(f"{path} has no learning rate ({rate!r}): delete it and run again to make it anew")
    return rate


def _steps(one: Try, other: Try) -> int:
    """How many factors two rates lie apart."""
    return abs(round(math.log(one.learning_rate / other.learning_rate, FACTOR)))


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
