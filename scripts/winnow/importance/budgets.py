"""Which units stay where a network may cost so much: of all masks within the limit one that loses little importance.

Costs hang together: a convolution's multiply-accumulates are inputs × outputs, so that what a unit saves depends on
which others have gone. Within a layer units go in the order of their scores; how many of each layer is a knapsack over
layers [Shen et al., *HALP*, 2022]. It is solved greedily with exact costs: again and again that layer gives up units
(1, 2, 4, … levels of width) in which a unit of cost saved loses least importance, until the limit is met. Savings only
shrink as others go, so that what was found before is a bound, and few have to be computed anew [lazy greedy: Minoux
1978]. Then what fits comes back, and levels are exchanged between layers while importance is won.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.files import InputError, read_json

# Costs are met up to what a sum of floats is off.
EXACT = 1e-9
# How many levels of width a layer gives or takes at once in an exchange.
EXCHANGED = (1, 2, 4)
# Exchanges that are tried; few networks have a tenth as many that win anything.
MOST_EXCHANGES = 1000


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a network costs by its widths: a sum over tensors, each interpolated between what it costs at some widths.

    Attributes
    ----------
    sizes : (terms, 2) float
        Outputs and inputs of the unpruned network's tensors.
    outputs, inputs : (terms, knots) float
        At which each is known, ascending; the last one repeated where there are fewer.
    values : (terms, knots, knots) float
        What a tensor costs there, by outputs and inputs.
    unit, term : (slices,) int
        What goes with a unit: ``gone`` outputs and inputs of a term.
    gone : (slices, 2) float
    """

    sizes: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    values: np.ndarray
    unit: np.ndarray
    term: np.ndarray
    gone: np.ndarray

    @classmethod
    def read(cls, path: Path, channels: pa.Table) -> Costs:
        """Read the prices of a network, a file of ``scripts/price.py``; ``channels`` is its backbone's table.

        Raises
        ------
        InputError
            If it is missing or is no such file; the message names it.
        """
        found = read_json(path)
        try:
            return cls.of(found["terms"], channels)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path} has no prices of a network ({error}): delete it and run again") from None

    @classmethod
    def of(cls, terms: Sequence[Mapping[str, Any]], channels: pa.Table) -> Costs:
        """Of the terms of :mod:`winnow.networks.prices`, and the channel table of the network's backbone."""
        knots = max(len(term[side]) for term in terms for side in ("outputs", "inputs"))
        outputs, inputs = (
            np.array([[*term[side], *term[side][-1:] * (knots - len(term[side]))] for term in terms], dtype=float)
            for side in ("outputs", "inputs")
        )
        tables = [np.array(term["values"], dtype=float) for term in terms]
        values = np.stack([np.pad(table, [(0, knots - size) for size in table.shape], mode="edge") for table in tables])
        number = {term["tensor"]: place for place, term in enumerate(terms)}
        names = channels["tensor"].combine_chunks().dictionary_encode()
        term = np.array([number.get(name, -1) for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
        unit, side, length = (channels[name].to_numpy()[term >= 0] for name in ("unit", "dimension", "length"))
        (units, of_units), place = np.unique(np.stack([unit, term[term >= 0]]), axis=1, return_inverse=True)
        gone = np.zeros((units.size, 2))
        np.add.at(gone, (place.ravel(), side), length)
        whole = np.stack([outputs[:, -1], inputs[:, -1]], axis=1)
        return cls(whole, outputs, inputs, values, units, of_units, gone)

    def of_terms(self, term: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """What terms (n,) cost with outputs and inputs (n, 2), bilinear between knots: (n,)."""
        first, a = _between(self.outputs[term], sizes[:, 0])
        second, b = _between(self.inputs[term], sizes[:, 1])
        values = self.values
        low = (1 - b) * values[term, first, second] + b * values[term, first, second + 1]
        high = (1 - b) * values[term, first + 1, second] + b * values[term, first + 1, second + 1]
        return (1 - a) * low + a * high

    def total(self, keep: np.ndarray) -> float:
        """What the network costs with the units ``keep``, (units,) bool."""
        sizes = self.sizes.copy()
        removed = ~keep[self.unit]
        np.subtract.at(sizes, self.term[removed], self.gone[removed])
        return float(self.of_terms(np.arange(len(sizes)), sizes).sum())


def _between(knots: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which of its knots each size lies, the lower one's place, and how far up."""
    last = (knots < knots[:, -1:]).sum(axis=1) - 1  # of a knot that is repeated the first one is the last
    place = np.clip((knots <= size[:, None]).sum(axis=1) - 1, 0, np.maximum(last, 0))
    rows = np.arange(place.size)
    low, high = knots[rows, place], knots[rows, place + 1]
    return place, (size - low) / np.where(high > low, high - low, 1.0)


def removed(
    costs: Costs,
    layer: np.ndarray,
    rank: np.ndarray,
    importance: np.ndarray,
    levels: Sequence[np.ndarray],
    limit: float,
) -> np.ndarray:
    """How many units of each layer go so that the rest costs no more than the limit: (layers,) int.

    Parameters
    ----------
    layer, rank : (units,) int
        Each unit's layer, numbered from 0, and its place in the order in which the layer's units go.
    importance : (units,) float
        Not negative; added up over the units that go, it is what is lost.
    levels
        Of each layer the numbers of removed units that are allowed, ascending: the first is where it begins.
    limit
        In the unit of the costs.

    Raises
    ------
    Unreachable
        If the smallest network costs more.
    """
    order = np.lexsort((rank, layer))
    starts = np.searchsorted(layer[order], np.arange(len(levels)))
    layers = [
        _Layer.of(costs, order[start : start + np.count_nonzero(layer == number)], importance, level)
        for number, (start, level) in enumerate(zip(starts, levels, strict=True))
    ]
    state = _State(costs, layers)
    smallest = state.smallest()
    if smallest > limit * (1 + EXACT):
        raise Unreachable(smallest)
    state.shrink(limit)
    for _ in range(MOST_EXCHANGES):
        if not state.exchange(limit):
            break
    return np.array([level[at] for level, at in zip(levels, state.at, strict=True)])


class Unreachable(Exception):
    """The smallest network costs ``cost``, which is more than the limit."""

    def __init__(self, cost: float):
        super().__init__(cost)
        self.cost = cost


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer's levels of width.

    Attributes
    ----------
    terms : (k,) int
        That its units have a part in.
    gone : (k, levels, 2) float
        What is gone of each at each level.
    lost : (levels,) float
        Importance.
    """

    terms: np.ndarray
    gone: np.ndarray
    lost: np.ndarray

    @classmethod
    def of(cls, costs: Costs, units: np.ndarray, importance: np.ndarray, level: np.ndarray) -> _Layer:
        place = np.full(costs.unit.max() + 1, -1)
        place[units] = np.arange(units.size)
        own = np.flatnonzero(place[costs.unit] >= 0)
        terms, term = np.unique(costs.term[own], return_inverse=True)
        gone = np.zeros((terms.size, units.size + 1, 2))
        np.add.at(gone, (term, place[costs.unit[own]] + 1), costs.gone[own])
        lost = np.concatenate([[0.0], np.cumsum(importance[units])])
        return cls(terms, gone.cumsum(axis=1)[:, level], lost[level])


class _State:
    """At which level each layer is, and the sizes of all terms there."""

    def __init__(self, costs: Costs, layers: Sequence[_Layer]):
        self.costs, self.layers = costs, layers
        self.at = [0] * len(layers)
        self.sizes = costs.sizes.copy()
        for each in layers:
            np.subtract.at(self.sizes, each.terms, each.gone[:, 0])
        self.cost = self._total(self.sizes)

    def _total(self, sizes: np.ndarray) -> float:
        return float(self.costs.of_terms(np.arange(len(sizes)), sizes).sum())

    def smallest(self) -> float:
        """What all layers at their last level cost."""
        sizes = self.sizes.copy()
        for each in self.layers:
            np.subtract.at(sizes, each.terms, each.gone[:, -1] - each.gone[:, 0])
        return self._total(sizes)

    def saved(self, number: int, targets: np.ndarray) -> np.ndarray:
        """What the cost falls by where one layer goes to other levels, (targets,)."""
        layer, now = self.layers[number], self.sizes[self.layers[number].terms]
        after = now[:, None] - (layer.gone[:, targets] - layer.gone[:, self.at[number], None])
        terms = np.repeat(layer.terms, targets.size)
        costs = self.costs.of_terms(terms, after.reshape(-1, 2)).reshape(after.shape[:2])
        return self.costs.of_terms(layer.terms, now).sum() - costs.sum(axis=0)

    def move(self, number: int, target: int) -> None:
        layer = self.layers[number]
        self.cost -= float(self.saved(number, np.array([target]))[0])
        self.sizes[layer.terms] -= layer.gone[:, target] - layer.gone[:, self.at[number]]
        self.at[number] = target

    def _next(self, number: int) -> tuple[float, int, int, int] | None:
        """The step of a layer that loses least for what it saves: loss over saving, layer, level and where it is."""
        at, layer = self.at[number], self.layers[number]
        targets = at + 2 ** np.arange(max(layer.lost.size - 1 - at, 0).bit_length())
        targets = targets[targets < layer.lost.size]
        if not targets.size:
            return None
        saved = self.saved(number, targets)
        saves = saved > 0
        rate = np.where(saves, (layer.lost[targets] - layer.lost[at]) / np.where(saves, saved, 1.0), np.inf)
        best = int(np.argmin(rate))
        return float(rate[best]), number, int(targets[best]), at

    def shrink(self, limit: float) -> None:
        """Step by step to within the limit."""
        heap = [step for number in range(len(self.layers)) if (step := self._next(number))]
        heapq.heapify(heap)
        while self.cost > limit * (1 + EXACT):
            number = heapq.heappop(heap)[1]
            step = self._next(number)
            if step is None:
                continue
            if heap and step > heap[0]:
                heapq.heappush(heap, step)
                continue
            self.move(number, step[2])
            if following := self._next(number):
                heapq.heappush(heap, following)

    def exchange(self, limit: float) -> bool:
        """Take the move that wins most importance within the limit: a layer widens, where needed another one narrows.

        Returns
        -------
        bool
            Whether there was one.
        """
        moves = [
            (number, target)
            for number, layer in enumerate(self.layers)
            for step in EXCHANGED
            for target in (self.at[number] - step, self.at[number] + step)
            if 0 <= target < layer.lost.size
        ]
        if not moves:
            return False
        number, target = np.array(moves).T
        won = np.array([self.layers[n].lost[self.at[n]] - self.layers[n].lost[t] for n, t in moves])
        saved = np.concatenate([self.saved(n, target[number == n]) for n in dict.fromkeys(number.tolist())])
        room = limit * (1 + EXACT) - self.cost
        alone = np.flatnonzero((won > 0) & (saved + room >= 0))
        best = alone[np.argmax(won[alone])] if alone.size else None
        gain, chosen = (won[best], [moves[best]]) if best is not None else (0.0, [])
        up, down = np.flatnonzero(won > 0), np.flatnonzero(saved > 0)
        total = won[up, None] + won[down]
        # Where both have a part in a term, what they save together is not the sum: tried with some of the room amiss.
        hopeful = (total > gain) & (number[up, None] != number[down]) & (saved[up, None] + saved[down] + room >= 0)
        rows, columns = np.nonzero(hopeful)
        for place in np.argsort(-total[rows, columns], kind="stable"):
            pair = [moves[up[rows[place]]], moves[down[columns[place]]]]
            before = list(self.at), self.sizes.copy(), self.cost
            for each in pair:
                self.move(*each)
            fits = self.cost <= limit * (1 + EXACT)
            self.at, self.sizes, self.cost = before
            if fits:
                chosen = pair
                break
        for each in chosen:
            self.move(*each)
        return bool(chosen)


def importances(layer: np.ndarray, scores: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Scores of whatever sign and scale as importances that compare between layers: (units,), not negative.

    A score's square, as of a Taylor expansion [Molchanov et al. 2019], as a share of its layer's: those of a layer add
    up to 1. Where a layer has negative scores, as a reversed criterion gives them, the squares have their sign, and all
    are raised until none is negative. A layer whose scores are all 0, and units that are gone, have no importance.
    """
    squares = np.sign(scores) * scores**2
    lowest = np.zeros(layer.max() + 1)
    np.minimum.at(lowest, layer[~gone], squares[~gone])
    raised = np.where(gone, 0.0, squares - lowest[layer])
    sums = np.bincount(layer, weights=raised)
    return raised / np.where(sums > 0, sums, 1.0)[layer]
