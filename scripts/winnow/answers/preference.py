"""Which of two networks is preferred: one order, for every place that chooses between them.

What loses less comes first, of equals the smaller, and of those the one whose name does. A network of which a training
diverged comes after all others. Accuracies are compared as what they are, counts of right images over counts of images:
as floats, a mean over seeds that was summed in another order differs in its last bit, and breaks what is a tie.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypedDict

from winnow.workflow.grid import Cell

# Counts of right answers over seeds and images together are told apart up to so many of them.
ANSWERS = 10**6


def exact(share: float) -> Fraction:
    """The share of right answers, or a difference of two, that a float stands for.

    It is the nearest fraction of at most :data:`ANSWERS`. Two such fractions are at least 1e-12 apart, which is
    thousands of times what a float of that size is off.
    """
    return Fraction(share).limit_denominator(ANSWERS)


def within(drop: float, points: float) -> bool:
    """Whether a drop of accuracy, a share of 1, is at most so many points, of which 100 make 1."""
    return 100 * exact(drop) <= exact(points)


class Place(TypedDict):
    """Where networks are compared."""

    dataset: str
    backbone: str


class Kind(TypedDict):
    """Which network of a place: ``control`` is the backbone that it is, where it is another one's."""

    control: str | None
    criterion: str
    scope: str
    ratio: float
    round_to: int | None
    init: str
    protocol: str


class Named(Place, Kind):
    """What names a network: with this a row begins that is about one."""


def name_of(row: Mapping[str, Any]) -> str:
    """The name of a row of the summary: its cells' path, the seed's 0."""
    return cell_of(row).path


def cell_of(row: Mapping[str, Any]) -> Cell:
    """A row of the summary as a cell, the seed's 0."""
    description = {field.name: row[field.name] for field in dataclasses.fields(Cell) if field.name != "seed"}
    return Cell(**description | {"backbone": row["control"] or row["backbone"]}, seed=0)


Rank = tuple[bool, Fraction, tuple[float, ...], str]


def rank(loss: float | None, sizes: tuple[float, ...], name: str, diverged: bool = False) -> Rank:
    """What networks are sorted by, the preferred one first.

    Parameters
    ----------
    loss
        Of accuracy, or less the accuracy itself, as a share of 1; None where there is none, as a training diverged.
    sizes
        By the measure that is asked for, and by others that settle what is equal.
    name
        Settles what is equal still.
    diverged
        Whether any of its trainings did.
    """
    return diverged or loss is None, exact(loss or 0.0), sizes, name
