"""The criteria: how much a filter matters. One function and one name each.

A criterion gets what its ``needs`` names, one layer at a time, and returns one value a filter:

* ``weights``: a convolution's weights, float32 of shape (filters, C_in, kh, kw);
* ``activations``: that layer's sufficient statistics over all classes, a mapping of column to (filters,) arrays with
  the columns ``images``, ``positions``, ``sum``, ``sum_sq``, ``zeros``, ``max`` of the table of activations;
* ``nothing``: the number of filters and a ``numpy.random.Generator`` seeded by the cell's seed.

A score is always "higher means keep": the value itself, or one minus it where a low value is kept first. What is kept
or removed is a unit; where its members are filters of several layers, its value is the mean of theirs. What needs
``nothing`` is asked for the units themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from winnow.files import InputError


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A criterion's function, what it needs, which end of its values is kept first, and of which activations it speaks.

    ``activations``: names of functions as a layer of the manifest has them; None for all.
    """

    function: Callable[..., np.ndarray]
    needs: str
    keep: str
    activations: tuple[str, ...] | None = None

    def score(self, values: np.ndarray) -> np.ndarray:
        """Values turned so that higher means keep."""
        return values if self.keep == "high" else 1.0 - values


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, *, needs: str, keep: str = "high", activations: tuple[str, ...] | None = None) -> Callable:
    """Register a function as the criterion ``name``.

    The name is a literal: the digest of one criterion's code leaves the other criteria's functions out by it, which is
    also why criteria share helpers and never call each other.
    """

    def register(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        CRITERIA[name] = Criterion(function, needs, keep, activations)
        return function

    return register


@criterion("average_weight", needs="weights")
def average_weight(weights: np.ndarray) -> np.ndarray:
    """Mean of |w| over the filter's C_in·kh·kw weights, the bias left out.

    After Li et al., *Pruning Filters for Efficient ConvNets* (2016), who sum; averaged so that layers compare.
    """
    return np.abs(weights.astype(np.float64)).mean(axis=(1, 2, 3))


@criterion("mean_activation", needs="activations")
def mean_activation(activations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean of the filter's output after the ReLU, over images and positions; without a ReLU, of its absolute value.

    After Molchanov et al., *Pruning Convolutional Neural Networks for Resource Efficient Inference* (2016).
    """
    return activations["sum"] / (activations["images"] * activations["positions"])


@criterion("apoz", needs="activations", keep="low", activations=("relu", "relu6"))
def apoz(activations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Average percentage of zeros: the share of outputs after the ReLU that are zero, over images and positions.

    Nothing else is zero where a filter is silent, so it speaks of filters with a ReLU only.

    After Hu et al., *Network Trimming* (2016).
    """
    return activations["zeros"] / (activations["images"] * activations["positions"])


@criterion("random", needs="nothing")
def random(filters: int, generator: np.random.Generator) -> np.ndarray:
    """Uniform in [0, 1): the control that any criterion has to beat."""
    return generator.random(filters)


@criterion("any", needs="nothing")
def any_filter(filters: int, generator: np.random.Generator) -> np.ndarray:
    """All alike, so that the first filters stay: for by-layer cells with random weights, where only counts matter."""
    return np.zeros(filters)


def over_classes(activations: Any, layer: str, filters: int) -> dict[str, np.ndarray]:
    """One layer's statistics over all classes, from the table of activations (a ``pyarrow.Table``).

    Returns
    -------
    dict
        Column → (filters,) array; ``images``, ``sum``, ``sum_sq`` and ``zeros`` added up, of ``max`` the largest.

    Raises
    ------
    InputError
        If the table is of another network, or was measured on no image.
    """
    # Imported here because the workflow reads the criteria's names at every start, and needs no tables for that.
    import pyarrow.compute as pc

    rows = activations.filter(pc.equal(activations["layer"], layer))
    columns = {name: rows[name].to_numpy() for name in rows.column_names if name != "layer"}
    found = np.unique(columns["filter"])
    if not np.array_equal(found, np.arange(filters)):
        raise InputError(
            f"the activations know {found.size} filters of layer {layer}, the backbone has {filters}: "
            "they were measured on another network"
        )
    result = {
        name: np.bincount(columns["filter"], weights=columns[name]) for name in ("images", "sum", "sum_sq", "zeros")
    }
    if not result["images"].all():
        raise InputError(f"the activations of layer {layer} were measured on no image: is the training split empty?")
    for name in ("positions", "max"):
        result[name] = np.zeros(filters)
        np.maximum.at(result[name], columns["filter"], columns[name])
    return result
