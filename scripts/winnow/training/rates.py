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
# [Malladi et al. 2022].
BASES = {"sgd": (0.003, 1.0), "adamw": (0.0003, 0.5)}
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


def base(recipe: Mapping[str, Any]) -> float:
    """The first rate to try, two digits of it."""
    rate, power = BASES[recipe["optimizer"]]
    return _rounded(rate * (recipe["batch_size"] / 32) ** power)


def epochs(recipe: Mapping[str, Any]) -> int:
    """For how many epochs a search trains with each rate."""
    return min(max(math.floor(recipe["epochs"] / SHARE + 0.5), LEAST_EPOCHS), recipe["epochs"])


def best(tries: Sequence[Try], images: int, chance: float) -> Try:
    """Which of some rates is taken.

    One that was trained with is preferred to one that diverged, one that is above chance to one that is not, then the
    more accurate one; but of those that are at most half a standard error or one image behind that, the smallest rate:
    what a short training can't tell apart, a longer one does better with the smaller rate, which is the last to fail.
    Where none is above chance it is the first that was tried, where all diverged the smallest.

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
    behind = max(0.5 * math.sqrt(most * (images - most) / images), 1)
    near = [each for each, number in right.items() if number >= most - behind]
    return min(near, key=lambda each: each.learning_rate)


def wanted(tries: Sequence[Try], recipe: Mapping[str, Any], images: int, chance: float) -> float | None:
    """The rate to try next; None where the search is over. ``images`` and ``chance`` are those of :func:`best`."""
    if not tries:
        return base(recipe)
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


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
