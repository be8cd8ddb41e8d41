"""The criteria: how much a filter matters. One function and one name each.

A criterion gets what its ``needs`` names, one layer at a time, and returns one value a filter:

* ``weights``: a convolution's weights, float32 of shape (filters, C_in, kh, kw);
* ``norms``: the scale γ of a batch norm, float32 of shape (channels,). A unit's value is the mean over the batch norms
  that its outputs go through;
* ``activations``: that layer's sufficient statistics over all classes, a mapping of name to (filters,) arrays with the
  names ``images``, ``positions``, ``sum``, ``sum_sq``, ``zeros``, ``max``: see :data:`winnow.importance.sums.SUMS`.
  What is not asked for is not read;
* ``gradients``: likewise, with the names ``images``, ``positions`` and ``sum``;
* ``nothing``: the number of filters and a ``numpy.random.Generator`` seeded by the cell's seed.

A score is always "higher means keep": the value itself, or one minus it where a low value is kept first. What is kept
or removed is a unit; where its members are filters of several layers, its value is the mean of theirs. What needs
``nothing`` is asked for the units themselves.

Each criterion that looks at something has its reversal, ``reversed_`` and its name, in which the best filters go first:
the value is the same, the score its negative. A method whose premise is right must lose much under it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A criterion's function, what it needs, which end of its values is kept first, of which activations it speaks, and
    whether it is reversed.

    ``activations``: names of functions as a layer of the manifest has them; None for all.
    """

    function: Callable[..., np.ndarray]
    needs: str
    keep: str
    activations: tuple[str, ...] | None = None
    reverse: bool = False

    def score(self, values: np.ndarray) -> np.ndarray:
        """Values turned so that higher means keep."""
        scores = values if self.keep == "high" else 1.0 - values
        return -scores if self.reverse else scores


CRITERIA: dict[str, Criterion] = {}
Function = TypeVar("Function", bound=Callable[..., np.ndarray])


def criterion(
    name: str, *, needs: str, keep: str = "high", activations: tuple[str, ...] | None = None
) -> Callable[[Function], Function]:
    """Register a function as the criterion ``name`` and, if it looks at something, as ``reversed_{name}``.

    The name is a literal: the digest of one criterion's code leaves the other criteria's functions out by it, which is
    also why criteria share helpers and never call each other.
    """

    def register(function: Function) -> Function:
        CRITERIA[name] = Criterion(function, needs, keep, activations)
        if needs != "nothing":
            CRITERIA[f"reversed_{name}"] = Criterion(function, needs, keep, activations, reverse=True)
        return function

    return register


@criterion("average_weight", needs="weights")
def average_weight(weights: np.ndarray) -> np.ndarray:
    """Mean of |w| over the filter's C_in·kh·kw weights, the bias left out.

    After Li et al., *Pruning Filters for Efficient ConvNets* (2016), who sum; averaged so that layers compare.
    """
    return np.abs(weights.astype(np.float64)).mean(axis=(1, 2, 3))


@criterion("l1_norm", needs="weights")
def l1_norm(weights: np.ndarray) -> np.ndarray:
    """Σ|w| over the filter's weights, the bias left out.

    Li et al., *Pruning Filters for Efficient ConvNets* (ICLR 2017). Within a layer it ranks as ``average_weight`` does;
    globally it favours layers with many inputs.
    """
    return np.abs(weights.astype(np.float64)).sum(axis=(1, 2, 3))


@criterion("l2_norm", needs="weights")
def l2_norm(weights: np.ndarray) -> np.ndarray:
    """√Σw² over the filter's weights, the bias left out.

    He et al., *Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks* (IJCAI 2018).
    """
    return np.sqrt(np.square(weights.astype(np.float64)).sum(axis=(1, 2, 3)))


@criterion("geometric_median", needs="weights")
def geometric_median(weights: np.ndarray) -> np.ndarray:
    """Sum of the Euclidean distances from the filter's weights to those of its layer's other filters.

    He et al., *Filter Pruning via Geometric Median* (CVPR 2019): a filter near the layer's geometric median can be
    replaced by the others, so the lowest sum goes first. Globally it favours layers with many filters and inputs.
    """
    # Imported here because the workflow reads the criteria's names at every start.
    from scipy.spatial.distance import pdist, squareform

    return squareform(pdist(weights.reshape(len(weights), -1).astype(np.float64))).sum(axis=1)


@criterion("bn_scale", needs="norms")
def bn_scale(scale: np.ndarray) -> np.ndarray:
    """|γ| of the batch norm that follows the convolution.

    Liu et al., *Learning Efficient Convolutional Networks through Network Slimming* (ICCV 2017), who train with a
    penalty on |γ| first; here γ is as it was pretrained.
    """
    return np.abs(scale.astype(np.float64))


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


@criterion("taylor", needs="gradients")
def taylor(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean over images of |mean over positions of a · ∂L/∂a|, a the output after the ReLU, L the cross-entropy.

    The first-order Taylor expansion of the loss without the filter, Molchanov et al., *Pruning Convolutional Neural
    Networks for Resource Efficient Inference* (2016), who rank it under the scope ``global_normalized`` and prune
    step by step while fine-tuning; here it is taken once, before. What L is: :mod:`winnow.importance.gradients`.
    """
    return gradients["sum"] / (gradients["images"] * gradients["positions"])


@criterion("random", needs="nothing")
def random(filters: int, generator: np.random.Generator) -> np.ndarray:
    """Uniform in [0, 1): the control that any criterion has to beat."""
    return generator.random(filters)


@criterion("any", needs="nothing")
def any_filter(filters: int, generator: np.random.Generator) -> np.ndarray:
    """All alike, so that the first filters stay: for by-layer cells with random weights, where only counts matter."""
    return np.zeros(filters)
