"""Scores: one criterion over a backbone's units, as it was pretrained or as a network in training has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.files import InputError
from winnow.importance.criteria import CRITERIA, Criterion
from winnow.importance.sums import Sums
from winnow.networks.units import members


def score(
    name: str,
    layers: Sequence[Mapping[str, Any]],
    channels: pa.Table,
    tensors: Callable[[list[str]], list[np.ndarray]],
    statistics: Sums | None = None,
    seed: int | None = None,
    keep: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Score every unit by one criterion.

    Parameters
    ----------
    name
        A name in :data:`winnow.importance.criteria.CRITERIA`.
    layers, channels
        The backbone's prunable layers, as in its manifest, and its channel table.
    tensors
        Gives the network's tensors by name.
    statistics
        What the criterion is a query over, measured on the network.
    seed
        Of a criterion that draws. A unit's value does not depend on which units there still are.
    keep : (units,) bool
        Which units the network still has; None for all.

    Returns
    -------
    (value, score)
        Each (units,) float64; not a number for units that the network no longer has.

    Raises
    ------
    InputError
        If the criterion is unknown, lacks what it needs, or has no value for some unit.
    """
    if name not in CRITERIA:
        raise InputError(f"unknown criterion {name!r}; allowed: {', '.join(CRITERIA)}")
    criterion = CRITERIA[name]
    unit, layer, index = members(channels, layers)
    _, first = np.unique(unit, return_index=True)
    keep = np.ones(first.size, dtype=bool) if keep is None else keep
    if criterion.needs == "norms":
        value = _of_norms(criterion, name, channels, tensors, keep, layers)
    elif criterion.needs == "nothing":
        # The bit generator is named: a drawn mask must not change when numpy's default does.
        generator = np.random.Generator(np.random.PCG64(seed or 0))
        sizes = np.bincount(layer[first], minlength=len(layers))
        value = np.concatenate([criterion.function(size, generator) for size in sizes.tolist()])
    else:
        there = keep[unit]
        values = np.concatenate(_of_filters(criterion, name, tensors, statistics, remaining(layers, channels, keep)))
        # The filters that are left, in the order of their layer and index, are the members that are left.
        of_member = np.full(unit.size, np.nan)
        of_member[np.flatnonzero(there)[np.lexsort((index[there], layer[there]))]] = values
        heard = _spoken_of(name, unit, layer, layers)
        value = np.bincount(unit[heard], of_member[heard]) / np.bincount(unit[heard])
    value = np.where(keep, value, np.nan)
    return value, criterion.score(value)


def remaining(layers: Sequence[Mapping[str, Any]], channels: pa.Table, keep: np.ndarray | None) -> list[dict[str, Any]]:
    """The prunable layers of a network that still has the units ``keep``, None for all: ``filters`` are how many."""
    if keep is None:
        return [dict(layer) for layer in layers]
    unit, layer, _ = members(channels, layers)
    counts = np.bincount(layer[keep[unit]], minlength=len(layers)).tolist()
    return [{**each, "filters": count} for each, count in zip(layers, counts, strict=True)]


def _of_filters(
    criterion: Criterion,
    name: str,
    tensors: Callable[[list[str]], list[np.ndarray]],
    statistics: Sums | None,
    layers: Sequence[Mapping[str, Any]],
) -> list[np.ndarray]:
    """The values of all filters, (filters,) for each layer."""
    if criterion.needs == "weights":
        return [criterion.function(weight) for weight in tensors([f"{layer['layer']}.weight" for layer in layers])]
    if statistics is None:
        raise InputError(f"{name} is a query over {criterion.needs}: give their manifest with --statistics")
    return [criterion.function(statistics.over_classes(layer["layer"], layer["filters"])) for layer in layers]


def _of_norms(
    criterion: Criterion,
    name: str,
    channels: pa.Table,
    tensors: Callable[[list[str]], list[np.ndarray]],
    keep: np.ndarray,
    layers: Sequence[Mapping[str, Any]],
) -> np.ndarray:
    """The mean over all batch norms that a unit's outputs go through, (units,)."""
    norms = channels.filter(pc.ends_with(channels["tensor"].cast("string"), ".running_var"))
    names = norms["tensor"].unique().to_pylist()
    scales = tensors([f"{tensor.removesuffix('running_var')}weight" for tensor in names])
    total, count = np.zeros(keep.size), np.zeros(keep.size)
    for tensor, scale in zip(names, scales, strict=True):
        rows = norms.filter(pc.equal(norms["tensor"], tensor))
        unit = rows["unit"].to_numpy()
        # Behind a flattened map a filter has a run of entries.
        spans = [
            np.arange(first, first + length * stride, stride)
            for first, length, stride in zip(*(rows[c].to_pylist() for c in ("first", "length", "stride")), strict=True)
        ]
        absent = [span for span, there in zip(spans, keep[unit], strict=True) if not there]
        value = np.zeros(scale.size + sum(span.size for span in absent))
        value[np.setdiff1d(np.arange(value.size), np.concatenate([[], *absent]))] = criterion.function(scale)
        total += np.bincount(unit, [value[span].mean() for span in spans], keep.size)
        count += np.bincount(unit, minlength=keep.size)
    if not count.all():
        unit, layer, _ = members(channels, layers)
        without = layers[layer[np.flatnonzero(unit == np.flatnonzero(count == 0)[0])[0]]]["layer"]
        raise InputError(
            f"{name} reads the batch norm after a convolution, but after {without} there is none: "
            "choose an architecture that has it, such as vgg16_bn, or another criterion"
        )
    return total / count


def _spoken_of(name: str, unit: np.ndarray, layer: np.ndarray, layers: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Which members a criterion has a value for, as (members,) bool.

    Raises
    ------
    InputError
        If it has none for a whole unit.
    """
    wanted = CRITERIA[name].activations
    heard = np.array([wanted is None or each["function"] in wanted for each in layers])[layer]
    silent = np.flatnonzero(np.bincount(unit, heard) == 0)
    if silent.size:
        example = layers[layer[np.flatnonzero(unit == silent[0])[0]]]
        raise InputError(
            f"{name} needs filters with an activation of {', '.join(wanted or ())}: that of layer {example['layer']}"
            f" is {example['function']}, as for {silent.size} of {unit.max() + 1} units"
        )
    return heard
