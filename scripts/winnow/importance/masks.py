"""The ratio contract: of N units in the scope exactly floor(r·N + ½) are removed, never more, never fewer.

Ties break by (score, layer order, filter index). Every layer keeps at least ``min_filters`` units; what a full layer
cannot give is taken from the next-lowest elsewhere in the scope.

Of a budget the ratio is the share of what the network costs: at least so much of it goes, and no more than it takes.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np

from winnow.files import InputError
from winnow.importance import budgets
from winnow.importance.scopes import BUDGETS, SCOPES, share_of


@dataclasses.dataclass(frozen=True)
class Mask:
    """Which units stay.

    Attributes
    ----------
    keep : (units,) bool
    rank : (units,) int
        Position in the scope's order of removal; 0 goes first. By layer, and in a budget, every layer counts from 0.
    requested, achieved : float
        Share of units to remove, asked for and done; of a budget, of what they cost. They differ by rounding to whole
        units, and by ``round_to``.
    """

    keep: np.ndarray
    rank: np.ndarray
    requested: float
    achieved: float


def removals(ratio: float | Fraction, units: int) -> int:
    """floor(ratio · units + ½), exact for the decimals that a ratio is written with, not for its binary neighbour."""
    return int(Fraction(str(ratio)) * units + Fraction(1, 2))


def mask(
    layers: np.ndarray,
    scores: np.ndarray,
    scope: str,
    ratio: float | Fraction,
    min_filters: int = 1,
    round_to: int | None = None,
    gone: np.ndarray | None = None,
    last: bool = True,
    costs: budgets.Costs | None = None,
) -> Mask:
    """Decide which units stay.

    Parameters
    ----------
    layers : (units,) str or int
        The layer of each unit; layers in network order, each layer's units together and in filter order.
    scores : (units,) float
        Higher means keep.
    scope
        ``global``: one ranking over all units. ``global_normalized``: the same, after each layer's scores are divided
        by their l2 norm, √Σ score² [Molchanov et al. 2016]; a layer whose scores are all 0 keeps them. ``layer``: one
        ranking a layer, each of which loses its own share. A budget: one ranking a layer, and how many each loses is
        what costs the network least importance: see :mod:`winnow.importance.budgets`.
    ratio
        Share of units to remove, in [0, 1); of a budget, of what the network costs.
    min_filters
        Units that every layer keeps, at least; a layer that has no more keeps them all.
    round_to
        Round every layer's number of kept units to the nearest multiple, halves up: at least one multiple and at least
        ``min_filters``, at most the layer's width. The ranking still decides which units those are. In a budget counts
        are multiples or the layer's width from the beginning.
    gone : (units,) bool
        Units that an earlier mask, of a smaller ratio and with ``last`` false, has removed. They rank before all
        others, their scores count for nothing, and they count as removed. None for none.
    last
        Whether no further mask follows. Before the last one kept counts are rounded up, so that none has to grow.
    costs
        What the network costs by its widths; of a budget.

    Raises
    ------
    InputError
        If the scope is unknown, the ratio outside [0, 1), a score not finite, or the ratio out of reach of any mask
        within the floor; the message names the largest that is within it.
    """
    if scope not in SCOPES:
        raise InputError(f"unknown scope {scope!r}; allowed: {', '.join(SCOPES)}")
    if not 0 <= ratio < 1:
        raise InputError(f"ratio {float(ratio):g} is outside [0, 1)")
    gone = np.zeros(scores.size, dtype=bool) if gone is None else gone
    scores = np.where(gone, 0.0, scores)
    faulty = np.flatnonzero(~np.isfinite(scores))
    if faulty.size:
        index = faulty[0] - np.flatnonzero(layers == layers[faulty[0]])[0]
        raise InputError(
            f"{faulty.size} of {scores.size} scores are not finite numbers, "
            f"the first is {scores[faulty[0]]} of filter {index} of layer {layers[faulty[0]]}"
        )
    _, first, layer = np.unique(layers, return_index=True, return_inverse=True)
    layer = np.argsort(np.argsort(first))[layer]  # numbered in network order, not by name
    sizes = np.bincount(layer)

    if scope == "global_normalized":
        norms = np.sqrt(np.bincount(layer, weights=scores**2))
        scores = scores / np.where(norms > 0, norms, 1.0)[layer]

    # Stable sorts on (scope, score) keep the given order within ties, which is (layer order, filter index).
    group = layer if scope == "layer" or scope in BUDGETS else np.zeros_like(layer)
    order = np.lexsort((scores, ~gone, group))
    rank = np.empty(scores.size, dtype=np.int64)
    rank[order] = np.arange(scores.size) - np.concatenate([[0], np.cumsum(np.bincount(group))])[group[order]]

    if scope in BUDGETS:
        if costs is None:
            raise InputError(f"the scope {scope} is a share of what the network costs: give its prices with --prices")
        before = np.bincount(layer, weights=gone).astype(np.int64)
        levels = [_levels(*counts, min_filters, round_to) for counts in zip(sizes, before, strict=True)]
        importance = budgets.importances(layer, scores, gone)
        keep, achieved = _within(costs, layer, rank, importance, levels, ratio, scope, min_filters)
        return Mask(keep, rank, float(ratio), achieved)

    # Within its layer, a unit may go only if at least min_filters of its layer rank after it.
    place = np.empty(scores.size, dtype=np.int64)
    by_layer = np.lexsort((rank, layer))
    place[by_layer] = np.arange(scores.size) - np.concatenate([[0], np.cumsum(sizes)])[layer[by_layer]]
    removable = place < np.maximum(sizes - min_filters, 0)[layer]

    keep = np.ones(scores.size, dtype=bool)
    for members in [np.flatnonzero(group == number) for number in range(group.max() + 1)]:
        wanted, able = removals(ratio, members.size), int(np.count_nonzero(removable[members]))
        if wanted > able:
            where = f"layer {layers[members[0]]}" if scope == "layer" else "the network"
            raise InputError(
                f"ratio {float(ratio):g} removes {wanted} of the {members.size} filters of {where}, but with "
                f"min_filters {min_filters} only {able} can go: the largest reachable ratio is "
                f"{_reachable(able, members.size):g}"
            )
        candidates = members[removable[members]]
        keep[candidates[np.argsort(rank[candidates], kind="stable")[:wanted]]] = False

    if round_to is not None:
        kept = np.bincount(layer, weights=keep, minlength=sizes.size).astype(np.int64)
        fewest = max(1, -(-min_filters // round_to))
        multiples = (kept + (round_to // 2 if last else round_to - 1)) // round_to
        rounded = np.minimum(np.maximum(multiples, fewest) * round_to, sizes)
        keep = place >= (sizes - rounded)[layer]
    return Mask(keep, rank, float(ratio), float(np.count_nonzero(~keep) / keep.size))


def _reachable(able: int, units: int) -> float:
    """The largest ratio of three decimals that removes at most ``able`` of ``units``."""
    return next(thousandths / 1000 for thousandths in range(999, -1, -1) if removals(thousandths / 1000, units) <= able)


def _levels(size: int, gone: int, min_filters: int, round_to: int | None) -> np.ndarray:
    """How many units of a layer may be removed, ascending: as many as are gone, and what a budget may take further."""
    step = round_to or 1
    fewest = max(1, -(-min_filters // step)) * step
    kept = np.arange((size - gone - 1) // step * step, fewest - 1, -step)
    return np.concatenate([[gone], size - kept]).astype(np.int64)


def _within(
    costs: budgets.Costs,
    layer: np.ndarray,
    rank: np.ndarray,
    importance: np.ndarray,
    levels: list[np.ndarray],
    ratio: float | Fraction,
    scope: str,
    min_filters: int,
) -> tuple[np.ndarray, float]:
    """Which units stay of a network that costs no more than what the ratio leaves, and the share that is gone."""
    whole = costs.total(np.ones(layer.size, dtype=bool))
    share = Fraction(str(ratio))
    try:
        removed = budgets.removed(costs, layer, rank, importance, levels, float((1 - share) * Fraction(whole)))
    except budgets.Unreachable as error:
        least = error.cost / whole
        raise InputError(
            f"ratio {float(ratio):g} leaves {100 * float(1 - share):.4g} % of the {share_of(scope)}, but with "
            f"min_filters {min_filters} the smallest network has {100 * least:.4g} %: the largest reachable ratio is "
            f"{int(1000 * (1 - least)) / 1000:g}"
        ) from None
    keep = rank >= removed[layer]
    return keep, max(1 - costs.total(keep) / whole, 0.0)
