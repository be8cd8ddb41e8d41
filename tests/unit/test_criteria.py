"""The criteria against brute force, and the facts that follow from their formulas."""

import numpy as np
import pyarrow as pa
import pytest

from winnow import criteria, tables
from winnow.criteria import CRITERIA


def test_average_weight_is_the_mean_of_absolute_weights():
    weights = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    expected = [sum(abs(float(w)) for w in weights[k].ravel()) / 12 for k in range(4)]
    np.testing.assert_allclose(criteria.average_weight(weights), expected, rtol=1e-12)


@pytest.fixture
def activations():
    """Activations a(n, k, i, j) of 6 images of 2 classes, 3 filters, 2×2 positions, and their table."""
    generator = np.random.default_rng(1)
    a = np.maximum(generator.normal(size=(6, 3, 2, 2)), 0)
    labels = np.array([0, 0, 1, 1, 1, 0])
    rows = []
    for k in range(3):
        for c in range(2):
            x = a[labels == c, k]
            rows.append(("conv", k, c, 3, 4, x.sum(), (x * x).sum(), (x == 0).sum(), x.max()))
    names = tables.SCHEMAS["activations"].names
    return a, pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)), schema=tables.SCHEMAS["activations"])


def test_mean_activation_and_apoz_over_images_and_positions(activations):
    a, table = activations
    merged = criteria.over_classes(table, "conv")
    np.testing.assert_allclose(criteria.mean_activation(merged), a.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(criteria.apoz(merged), (a == 0).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(merged["max"], a.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(merged["sum_sq"], (a * a).sum(axis=(0, 2, 3)))


def test_a_score_is_always_higher_means_keep(activations):
    merged = criteria.over_classes(activations[1], "conv")
    for name, value in (("apoz", 1 - criteria.apoz(merged)), ("mean_activation", criteria.mean_activation(merged))):
        np.testing.assert_array_equal(CRITERIA[name].score(CRITERIA[name].function(merged)), value)


def test_within_a_layer_mean_and_sum_of_absolute_weights_rank_alike():
    weights = np.random.default_rng(2).normal(size=(16, 8, 3, 3))
    total = np.abs(weights).sum(axis=(1, 2, 3))
    assert (np.argsort(criteria.average_weight(weights)) == np.argsort(total)).all()


def test_random_is_seeded_and_uniform():
    draw = CRITERIA["random"].function
    first, again, other = (draw(2000, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).any()
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1


def test_any_tells_no_filter_from_another():
    assert len(set(CRITERIA["any"].function(5, np.random.default_rng(0)))) == 1
