"""What an experiment's tables say beyond its summary: fronts, agreement between criteria, class-specific filters.

Arrays over units (``scores``, ``keep``, ``layers``) are in the order of the tables of scores and masks: layers in
network order, each layer's filters together.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.cluster.hierarchy

from winnow.importance.sums import Sums


def pareto_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which points no other beats: none costs at most as much and is worth at least as much, and differs in either.

    Parameters
    ----------
    costs, values : (n,) float
        Low costs and high values are wanted.

    Returns
    -------
    (n,) bool
        Equal points are on the front together.
    """
    as_good = (costs[:, None] <= costs) & (values[:, None] >= values)
    better = (costs[:, None] < costs) | (values[:, None] > values)
    return ~np.any(as_good & better, axis=0)


def kept_by_layer(layers: np.ndarray, keeps: Sequence[np.ndarray]) -> pd.DataFrame:
    """How many filters each layer has and keeps, layers in network order.

    Parameters
    ----------
    layers : (units,) str
    keeps
        Masks of shape (units,) bool; their mean is taken: the control draws one a seed.

    Returns
    -------
    pandas.DataFrame
        Columns ``layer``, ``filters``, ``kept`` (mean number) and ``share`` in [0, 1].
    """
    units = pd.DataFrame({"layer": layers, "kept": np.mean(keeps, axis=0)})
    rows = units.groupby("layer", sort=False)["kept"].agg(["size", "sum", "mean"]).reset_index()
    return rows.set_axis(["layer", "filters", "kept", "share"], axis=1)


def rank_correlations(layers: np.ndarray, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Spearman's rank correlation of every two criteria's scores, over all filters and within each layer.

    Pearson's correlation of the ranks, ties at their mean rank (C. Spearman, *The proof and measurement of association
    between two things*, 1904).

    Parameters
    ----------
    layers : (units,) str
    scores
        Criterion → (units,) float.

    Returns
    -------
    pandas.DataFrame
        Columns ``first``, ``second``, ``layer`` (missing for all filters) and ``correlation``, NaN where a criterion
        gives all filters the same score. Pairs in the order of ``scores``; all filters first, then layers in network
        order.
    """
    frame = pd.DataFrame(dict(scores))
    parts = [(None, frame), *frame.groupby(layers, sort=False)]
    matrices = [(layer, part.corr(method="spearman")) for layer, part in parts]
    return pd.DataFrame(
        [
            {"first": first, "second": second, "layer": layer, "correlation": matrix.loc[first, second]}
            for first, second in itertools.combinations(scores, 2)
            for layer, matrix in matrices
        ],
        columns=["first", "second", "layer", "correlation"],
    )


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The share of kept filters that two masks have in common: 2·|A ∩ B| / (|A| + |B|), in [0, 1].

    For masks that keep equally many, |A ∩ B| / |A| (L. R. Dice, *Measures of the amount of ecologic association between
    species*, 1945).
    """
    return float(2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second)))


def chance_overlap(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> float:
    """The mean :func:`overlap` of two masks that keep as many filters of each group as these, but drawn at random.

    Of a group of n filters, of which one mask keeps a and the other b, both keep a·b/n on average: the mean of the
    hypergeometric distribution.

    Parameters
    ----------
    first, second : (units,) bool
    groups : (units,)
        What the filters are drawn from: one value for the whole network, or a layer each.
    """
    counts = pd.DataFrame({"first": first, "second": second}).groupby(groups).agg(["sum", "size"])
    common = counts["first", "sum"] * counts["second", "sum"] / counts["first", "size"]
    return float(2 * common.sum() / (np.count_nonzero(first) + np.count_nonzero(second)))


@dataclasses.dataclass(frozen=True)
class Responses:
    """What one layer's filters answer to each class: outputs a >= 0 after the ReLU, over images and positions.

    Attributes
    ----------
    layer : str
    classes : (C,) int
        The classes that have images.
    outputs : (C,) int
        Images × positions of each class.
    sum, sum_sq : (filters, C) float
        Σa and Σa² over a class's outputs.
    """

    layer: str
    classes: np.ndarray
    outputs: np.ndarray
    sum: np.ndarray
    sum_sq: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(filters, C): the mean output of each filter on each class."""
        return self.sum / self.outputs


def responses(activations: Sums) -> list[Responses]:
    """The statistics of activations, a layer each, in network order; classes without images are left out."""
    classes = np.flatnonzero(activations.images)
    return [
        Responses(
            layer["layer"],
            classes,
            activations.images[classes] * layer["positions"],
            *(activations.of(layer["layer"], name)[classes].T for name in ("sum", "sum_sq")),
        )
        for layer in activations.layers
    ]


def class_selectivity(means: np.ndarray) -> np.ndarray:
    """The class-selectivity index of each filter: (m₁ − m₀) / (m₁ + m₀).

    m₁ is the mean output on the class that excites the filter most, m₀ the mean over the other classes' mean outputs.
    0: all classes excite the filter alike; 1: one class does alone. From Morcos et al., *On the importance of single
    directions for generalization* (2018), who average a map over its positions, too.

    Parameters
    ----------
    means : (filters, C) float, not negative, C >= 2

    Returns
    -------
    (filters,) float
        NaN for a filter that never answers.
    """
    largest = means.max(axis=1)
    others = (means.sum(axis=1) - largest) / (means.shape[1] - 1)
    with np.errstate(invalid="ignore"):
        return (largest - others) / (largest + others)


def between_class_share(layer: Responses) -> np.ndarray:
    """η² of each filter: the share of its outputs' variance that lies between classes, in [0, 1].

    Σ n_c (m_c − m)² / Σ (a − m)², with n_c outputs of mean m_c in class c and the mean m over all, a running over
    images and positions: the correlation ratio of R. A. Fisher's analysis of variance (*Statistical Methods for
    Research Workers*, 1925). Images of a class, and positions of an image, that differ make it small.

    Returns
    -------
    (filters,) float
        NaN for a filter whose output never changes.
    """
    outputs = layer.outputs.sum()
    mean = layer.sum.sum(axis=1) / outputs
    between = (layer.outputs * (layer.means - mean[:, None]) ** 2).sum(axis=1)
    total = layer.sum_sq.sum(axis=1) - outputs * mean**2
    with np.errstate(invalid="ignore", divide="ignore"):
        # Differences of large sums: what is within their last digits of none is none.
        share = np.where(total > 1e-9 * layer.sum_sq.sum(axis=1), between / total, np.nan)
    return np.minimum(share, 1.0)


def clustered(rows: np.ndarray) -> np.ndarray:
    """An order of rows in which similar ones are neighbours.

    Leaves of the tree of average linkage on Euclidean distances, turned so that neighbours are as near as the tree
    allows (Bar-Joseph et al., *Fast optimal leaf ordering for hierarchical clustering*, 2001).

    Parameters
    ----------
    rows : (n, features) float

    Returns
    -------
    (n,) int
    """
    if len(rows) < 3:
        return np.arange(len(rows))
    return scipy.cluster.hierarchy.leaves_list(
        scipy.cluster.hierarchy.linkage(rows, method="average", optimal_ordering=True)
    )
