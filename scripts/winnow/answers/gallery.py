"""A user's own images in the answer: which the smaller network gets wrong, which classes it takes for each other, and
what the data set is. All from arrays: (images, labels, what several trainings' networks answered) → what a page shows.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# Images of each kind that a page shows at most, and of all classes together.
SHOWN, EXAMPLES = 24, 240
EXAMPLES_A_CLASS = 6
SIDE = 64  # pixels of a thumbnail
# Images of at most so many pixels a side stay as they are: a page shows their pixels as squares.
TINY = 32
JPEG_QUALITY = 80
# Confusions and reasons that a table lists.
LISTED = 12
NOT_TESTED = -1


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What the networks of S trainings answered on n test images.

    Attributes
    ----------
    images : (n,) int
        Rows of the store's index, ascending.
    labels : (n,) int
        Positions in the list of classes.
    predicted : (S, n) int
        Likewise; :data:`NOT_TESTED` where the image is not among a training's test images, as with folds.
    probability : (S, n) float
        Of the label; NaN there.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    @classmethod
    def of(cls, trainings: Sequence[Mapping[str, np.ndarray]]) -> Outcomes:
        """From tables of predictions, one a training: columns image, label, predicted, probability."""
        images = np.unique(np.concatenate([each["image"] for each in trainings]))
        labels = np.zeros(images.size, dtype=np.int64)
        predicted = np.full((len(trainings), images.size), NOT_TESTED, dtype=np.int64)
        probability = np.full(predicted.shape, np.nan)
        for seed, each in enumerate(trainings):
            places = np.searchsorted(images, each["image"])
            labels[places] = each["label"]
            predicted[seed, places] = each["predicted"]
            probability[seed, places] = each["probability"]
        return cls(images, labels, predicted, probability)

    @property
    def right(self) -> np.ndarray:
        """(n,) share of the trainings that test an image whose network is right on it."""
        tested = self.predicted != NOT_TESTED
        return ((self.predicted == self.labels) & tested).sum(axis=0) / tested.sum(axis=0)

    def shares(self, classes: int) -> np.ndarray:
        """(C, C) float: of a class's images (row), the share that is taken for each class (column).

        An image counts once, however many trainings test it. The row of a class without images is NaN.
        """
        seeds, places = np.nonzero(self.predicted != NOT_TESTED)
        weights = 1 / np.bincount(places)[places]
        found = np.zeros((classes, classes))
        np.add.at(found, (self.labels[places], self.predicted[seeds, places]), weights)
        counts = np.bincount(self.labels, minlength=classes)[:, None]
        return np.divide(found, counts, out=np.full_like(found, np.nan), where=counts > 0)


class Case(NamedTuple):
    """An image that two networks disagree on: its row of the store, its class, what the one that errs takes it for, and
    the probability that this one gives its class."""

    image: int
    label: int
    taken_for: int
    probability: float


def changed(unpruned: Outcomes, pruned: Outcomes, shown: int = SHOWN) -> tuple[list[Case], list[Case], int, int]:
    """The images that most trainings' pruned networks get wrong and the unpruned ones right, and the other way round.

    Returns
    -------
    tuple
        Of each kind those that are shown, the worst first: those to whose class the networks that err give the least
        probability. Then how many there are of each.
    """
    before, after = unpruned.right, pruned.right
    lost, gained = (before > 0.5) & (after < 0.5), (before < 0.5) & (after > 0.5)
    return _worst(pruned, lost, shown), _worst(unpruned, gained, shown), int(lost.sum()), int(gained.sum())


def _worst(outcomes: Outcomes, which: np.ndarray, shown: int) -> list[Case]:
    places = np.flatnonzero(which)
    probability = np.nanmean(outcomes.probability[:, places], axis=0)
    order = np.argsort(probability, kind="stable")[:shown]
    return [_case(outcomes, places[number], float(probability[number])) for number in order]


def _case(outcomes: Outcomes, place: int, probability: float) -> Case:
    label = int(outcomes.labels[place])
    answers = outcomes.predicted[:, place]
    wrong = answers[(answers != NOT_TESTED) & (answers != label)]
    return Case(int(outcomes.images[place]), label, int(np.bincount(wrong).argmax()), probability)


class Confusion(NamedTuple):
    """A class that is taken for another one: by which share of its images, with either network."""

    label: int
    taken_for: int
    unpruned: float
    pruned: float


def confusions(unpruned: np.ndarray, pruned: np.ndarray, listed: int = LISTED) -> list[Confusion]:
    """The pairs of classes that the pruned network confuses most, or whose confusion has changed most.

    Parameters
    ----------
    unpruned, pruned : (C, C)
        As :meth:`Outcomes.shares` gives them.
    """
    off = ~np.eye(len(pruned), dtype=bool)
    before, after = (np.nan_to_num(shares) * off for shares in (unpruned, pruned))
    weight = np.maximum(after, np.abs(after - before))
    order = np.argsort(-weight, axis=None, kind="stable")[:listed]
    pairs = [divmod(int(number), len(pruned)) for number in order]
    return [Confusion(*pair, float(before[pair]), float(after[pair])) for pair in pairs if weight[pair] > 0]


@dataclasses.dataclass(frozen=True)
class ClassExamples:
    """A class of a data set: how many images each part has of it, and the rows of some of them."""

    name: str
    counts: dict[str, int]
    images: list[int]


@dataclasses.dataclass(frozen=True)
class Overview:
    """What a data set is.

    Attributes
    ----------
    counts : dict
        Part → images; the one part "images" where every image trains and is tested on.
    classes : list of ClassExamples
        Those that are shown, in the data set's order.
    more : int
        How many classes are not.
    skipped : list of (reason, count, first file)
        The most frequent reasons first.
    """

    counts: dict[str, int]
    classes: list[ClassExamples]
    more: int
    skipped: list[tuple[str, int, str]]


# Part of a split → what a reader calls it.
PARTS = {"train": "to train on", "val": "to choose with", "test": "to test on"}
UNDIVIDED = "images"


def overview(
    classes: Sequence[str],
    labels: np.ndarray,
    parts: np.ndarray | None,
    skipped: Iterable[Mapping[str, Any]] = (),
    examples: int = EXAMPLES,
) -> Overview:
    """What a data set is, from its index.

    Parameters
    ----------
    classes
        Names.
    labels : (N,) int
        Positions in them.
    parts : (N,) str or None
        ``train``, ``val`` or ``test``; None where every image is each of them in turn.
    skipped
        ``file`` and ``reason`` of each image that could not be read.
    examples
        Images shown, of all classes together.
    """
    names = {name: said for name, said in PARTS.items() if parts is not None and (parts == name).any()}
    inside = {UNDIVIDED: np.ones(labels.size, dtype=bool)}
    if parts is not None and names:
        inside = {said: parts == name for name, said in names.items()}
    each = min(EXAMPLES_A_CLASS, max(1, examples // len(classes)))
    shown = []
    for label, name in enumerate(classes[:examples]):
        there = labels == label
        rows = np.flatnonzero(there)
        # From all over the class: neighbours are often shots of one thing.
        some = rows[np.unique(np.linspace(0, rows.size - 1, min(each, rows.size)).astype(int))] if rows.size else rows
        counts = {said: int((there & part).sum()) for said, part in inside.items()}
        shown.append(ClassExamples(name, counts, some.tolist()))
    told = [(str(bad["reason"]), str(bad["file"])) for bad in skipped]
    reasons = collections.Counter(reason for reason, _ in told)
    first = dict(reversed(told))
    return Overview(
        {said: int(part.sum()) for said, part in inside.items()},
        shown,
        len(classes) - len(shown),
        [(reason, count, first[reason]) for reason, count in reasons.most_common(LISTED)],
    )


def thumbnail(pixels: np.ndarray) -> str:
    """An image as a data URI.

    Parameters
    ----------
    pixels : (S, S, channels) uint8
        Of three channels, or one, which is gray. Up to :data:`TINY` pixels a side it stays as it is, as PNG; else it
        becomes a JPEG of :data:`SIDE`.
    """
    image, buffer = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), io.BytesIO()
    if len(pixels) <= TINY:
        kind = "png"
        image.save(buffer, format="PNG", optimize=True)
    else:
        kind, side = "jpeg", min(SIDE, len(pixels))
        image = image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
