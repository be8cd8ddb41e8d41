"""Training protocols: in which order a cell prunes and trains, for how long, and by what it learns.

* ``one_shot``: prune, then fine-tune for the recipe's epochs;
* ``fine_tune_first``: fine-tune the unpruned network for half of the epochs, prune by what its filters do then, and
  fine-tune for the rest;
* ``iterative_3`` (2 to 9 steps): three times prune a third of the way and fine-tune for a third of the epochs;
* ``distilled``: as ``one_shot``, learning from the fine-tuned unpruned network too [Hinton et al. 2015];
* ``equal_flops``: random weights, trained for as many operations as the unpruned network's training takes, not for as
  many epochs [Liu et al., *Rethinking the Value of Network Pruning*, 2019];
* ``short_4``: as ``one_shot``, with a fourth of the epochs.

Before what a protocol trains after a cut come repairs, if its name begins with them: ``compensated``,
``recalibrated_iterative_3``, ``compensated_fitted`` (of one shot). They need weights to inherit; the last one is done
where nothing is cut too, so that a network is held against an unpruned one that began as well:

* ``compensated``: what removed inputs gave is predicted from those that stay: :mod:`winnow.importance.compensation`;
* ``recalibrated``: batch norms are measured anew, and mean and variance are repaired where there are none:
  :mod:`winnow.importance.recalibration`;
* ``fitted``: training begins with a last layer that is fitted to the network's features by logistic regression
  [Kumar et al., *Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*, 2022].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

ONE_SHOT = "one_shot"
FINE_TUNE_FIRST = "fine_tune_first"
DISTILLED = "distilled"
EQUAL_FLOPS = "equal_flops"
_ITERATIVE = "iterative_"
_SHORT = "short_"

# Repairs, in the order in which they are done and named.
COMPENSATED, RECALIBRATED, FITTED = REPAIRS = ("compensated", "recalibrated", "fitted")
# What an experiment may ask for as its repairs: any of them, joined in their order, or none.
NO_REPAIR = "none"
REPAIR_CHOICES = (
    NO_REPAIR,
    *("_".join(chosen) for count in (1, 2, 3) for chosen in itertools.combinations(REPAIRS, count)),
)

# What an experiment may ask for; equal_flops is its scratch_budget, short_N serves comparisons within the workflow.
CHOICES = (ONE_SHOT, FINE_TUNE_FIRST, DISTILLED, *(f"{_ITERATIVE}{steps}" for steps in range(2, 10)))
# A cell's init and protocol as a path component: those that winnow.workflow.grid.canonical leaves as they are.
_SHORT_NAMES = rf"{_SHORT}([2-9]|[1-9]\d+)"
_REPAIRED = "|".join(reversed(REPAIR_CHOICES[1:]))
_PROTOCOLS = rf"{FINE_TUNE_FIRST}|{_ITERATIVE}[2-9]|{DISTILLED}|{_SHORT_NAMES}"
COMPONENT = (
    rf"inherited(~(({_REPAIRED})|(({_REPAIRED})_)?({_PROTOCOLS})))?"
    rf"|random(~({DISTILLED}|{EQUAL_FLOPS}|{_SHORT_NAMES}))?"
)
# A trunk's repairs behind its share.
TRUNK_REPAIRS = rf"(~({_REPAIRED}))?"


def parted(protocol: str) -> tuple[tuple[str, ...], str]:
    """A protocol's repairs, in their order, and what it is without them."""
    repairs: list[str] = []
    for repair in REPAIRS:
        if protocol == repair:
            return (*repairs, repair), ONE_SHOT
        if protocol.startswith(f"{repair}_"):
            repairs.append(repair)
            protocol = protocol.removeprefix(f"{repair}_")
    return tuple(repairs), protocol


def repaired(repairs: str | Iterable[str], protocol: str) -> str:
    """A protocol without repairs under some, given in their order or as a name in :data:`REPAIR_CHOICES`."""
    names = repairs if isinstance(repairs, str) else "_".join(repairs)
    if names in ("", NO_REPAIR):
        return protocol
    return names if protocol == ONE_SHOT else f"{names}_{protocol}"


def repairs(protocol: str) -> tuple[str, ...]:
    """What is repaired after a cut."""
    return parted(protocol)[0]


def plain(protocol: str) -> str:
    """What a protocol is without its repairs."""
    return parted(protocol)[1]


def whole(protocol: str) -> str:
    """What of a protocol is left where nothing is cut: how short it is, and a last layer that is fitted."""
    own = plain(protocol)
    return repaired([name for name in repairs(protocol) if name == FITTED], own if is_short(own) else ONE_SHOT)


def steps(protocol: str) -> int | None:
    """In how many steps ``iterative_K`` prunes; None for other protocols."""
    protocol = plain(protocol)
    return int(protocol.removeprefix(_ITERATIVE)) if protocol.startswith(_ITERATIVE) else None


def is_short(protocol: str) -> bool:
    """Whether it is ``short_N``, which is compared with its like only: its baseline is as short."""
    return plain(protocol).startswith(_SHORT)


def share(protocol: str) -> str:
    """What part of the epochs ``short_N`` trains for, in words."""
    return {2: "half", 3: "a third", 4: "a fourth"}[int(plain(protocol).removeprefix(_SHORT))]


def alternates(protocol: str) -> bool:
    """Whether it prunes what it has trained: its mask is made in the cell, and random weights have no use for it."""
    return plain(protocol) == FINE_TUNE_FIRST or steps(protocol) is not None


def phase_count(protocol: str) -> int:
    """In how many phases a network is trained, each with a schedule of its own."""
    return 2 if plain(protocol) == FINE_TUNE_FIRST else steps(protocol) or 1


def phases(protocol: str, ratio: float, epochs: int) -> list[tuple[Fraction, int]]:
    """The phases of a protocol: the ratio of filters that are gone in each, exact, and its epochs.

    One shot is one phase. Epochs that do not divide go to the last phase. There must be one for each phase.
    """
    count, whole = phase_count(protocol), Fraction(str(float(ratio)))
    ratios = (
        [0 * whole, whole] if plain(protocol) == FINE_TUNE_FIRST else [whole * (n + 1) / count for n in range(count)]
    )
    lengths = [epochs // count] * count
    lengths[-1] += epochs - sum(lengths)
    return list(zip(ratios, lengths, strict=True))


def budget(protocol: str, epochs: int, macs: float, unpruned_macs: float) -> int:
    """For how many epochs a network of so many multiply-accumulates is trained: rounded, halves up, at least 1."""
    protocol = plain(protocol)
    if is_short(protocol):
        return max(1, math.floor(epochs / int(protocol.removeprefix(_SHORT)) + 0.5))
    if protocol == EQUAL_FLOPS:
        return max(1, math.floor(epochs * unpruned_macs / macs + 0.5))
    return epochs


def stretched(recipe: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """A recipe for another number of epochs, its warm-up the same share of them."""
    return {**recipe, "epochs": epochs, "warmup_epochs": recipe["warmup_epochs"] * (epochs / recipe["epochs"])}
