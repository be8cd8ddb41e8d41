"""The statistics behind the figures, against brute force: loops over points, filters, images and permutations."""

import itertools

import numpy as np
import pandas as pd
import pytest

from winnow.answers import analysis
from winnow.importance.sums import Sums

from .fabricated import activations_of


class TestFront:
    def test_no_point_of_it_is_beaten_and_every_other_is(self):
        generator = np.random.default_rng(0)
        for _ in range(200):
            costs = generator.integers(0, 6, 12).astype(float)
            values = generator.integers(0, 6, 12).astype(float)
            points = list(zip(costs, values, strict=True))
            expected = [
                not any(
                    other_cost <= cost and other_value >= value and (other_cost, other_value) != (cost, value)
                    for other_cost, other_value in points
                )
                for cost, value in points
            ]
            assert analysis.pareto_front(costs, values).tolist() == expected

    def test_low_costs_and_high_values_are_wanted(self):
        assert analysis.pareto_front(np.array([1.0, 2.0]), np.array([0.5, 0.4])).tolist() == [True, False]
        assert analysis.pareto_front(np.array([1.0, 2.0]), np.array([0.4, 0.5])).tolist() == [True, True]


class TestWidths:
    def test_layers_stay_in_order_and_the_masks_of_the_control_are_averaged(self):
        layers = np.array(["features.2", "features.2", "features.10", "features.10", "features.10"])
        keeps = [np.array([True, False, True, True, False]), np.array([True, True, False, True, False])]
        rows = analysis.kept_by_layer(layers, keeps)
        assert rows["layer"].tolist() == ["features.2", "features.10"]
        assert rows["filters"].tolist() == [2, 3]
        assert rows["kept"].tolist() == [1.5, 1.5]
        assert rows["share"].tolist() == [0.75, 0.5]


def spearman(a, b):
    """Pearson's correlation of mean ranks, counted out."""

    def ranks(values):
        return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]

    a, b = np.array(ranks(a)), np.array(ranks(b))
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


class TestRankCorrelation:
    def test_over_all_filters_and_within_layers_with_ties(self):
        generator = np.random.default_rng(1)
        layers = np.repeat(["b", "a", "c"], [7, 5, 9])
        scores = {name: generator.integers(0, 6, layers.size) / 3 for name in ("x", "y", "z")}
        found = analysis.rank_correlations(layers, scores)
        assert len(found) == 3 * 4
        assert found["layer"].isna().tolist()[:4] == [True, False, False, False]
        assert found["layer"].tolist()[1:4] == ["b", "a", "c"]
        for row in found.itertuples():
            part = slice(None) if pd.isna(row.layer) else layers == row.layer
            expected = spearman(scores[row.first][part], scores[row.second][part])
            assert row.correlation == pytest.approx(expected, abs=1e-12)

    def test_a_layer_whose_filters_all_score_alike_has_none(self):
        layers = np.repeat(["a", "b"], 3)
        found = analysis.rank_correlations(layers, {"x": np.array([1, 2, 3, 4, 4, 4]), "y": np.arange(6)})
        assert found["correlation"].isna().tolist() == [False, False, True]

    def test_of_one_criterion_there_is_none(self):
        assert analysis.rank_correlations(np.array(["a", "a"]), {"x": np.arange(2)}).empty


class TestOverlap:
    def test_is_the_share_of_what_both_keep(self):
        first, second = np.array([1, 1, 1, 0, 0], bool), np.array([0, 1, 1, 1, 0], bool)
        assert analysis.overlap(first, second) == pytest.approx(2 / 3)
        assert analysis.overlap(first, first) == 1
        assert analysis.overlap(first, np.array([0, 0, 0, 1, 0], bool)) == 0
        # Of different sizes: twice what is common over what both keep.
        assert analysis.overlap(first, np.array([1, 0, 0, 0, 0], bool)) == pytest.approx(2 / 4)

    @pytest.mark.parametrize(("first", "second"), [((1, 2), (1, 2)), ((2, 1), (1, 3)), ((0, 2), (2, 2))])
    @pytest.mark.parametrize("by_layer", [False, True])
    def test_chance_is_the_mean_over_all_masks_of_those_sizes(self, first, second, by_layer):
        layers = np.repeat(["a", "b"], [3, 4])

        def masks(counts):
            sizes = [(np.arange(3), counts[0]), (np.arange(3, 7), counts[1])]
            if not by_layer:
                sizes = [(np.arange(7), sum(counts))]
            for choice in itertools.product(*(itertools.combinations(*size) for size in sizes)):
                keep = np.zeros(7, bool)
                keep[list(itertools.chain(*choice))] = True
                yield keep

        expected = np.mean([analysis.overlap(a, b) for a in masks(first) for b in masks(second)])
        groups = layers if by_layer else np.zeros(7)
        one = next(iter(masks(first))), next(iter(masks(second)))
        assert analysis.chance_overlap(*one, groups) == pytest.approx(expected)


@pytest.fixture(scope="module")
def outputs():
    """Outputs of two layers' filters, image by image: (images, filters, positions), and the images' labels.

    Class 1 has no image; the first filter never answers, the second always alike.
    """
    generator = np.random.default_rng(2)
    labels = np.array([0, 2, 2, 3, 0, 2])
    layers = {"features.9": generator.gamma(1, size=(6, 5, 9)), "features.10": generator.gamma(1, size=(6, 3, 4))}
    layers["features.9"][labels == 3, 3] *= 20
    layers["features.9"][:, 0], layers["features.9"][:, 1] = 0, 0.7
    return layers, labels


def sums_of(outputs):
    layers, labels = outputs
    parts = {layer: [values[labels == number] for number in range(4)] for layer, values in layers.items()}
    arrays = {f"{layer}.sum": np.array([x.sum((0, 2)) for x in parts[layer]]) for layer in layers}
    arrays |= {f"{layer}.sum_sq": np.array([(x**2).sum((0, 2)) for x in parts[layer]]) for layer in layers}
    known = [{"layer": layer, "filters": x.shape[1], "positions": x.shape[2]} for layer, x in layers.items()]
    return Sums("activations", np.bincount(labels, minlength=4), known, arrays)


class TestClasses:
    def test_responses_are_the_outputs_class_means(self, outputs):
        layers, labels = outputs
        found = analysis.responses(sums_of(outputs))
        assert [layer.layer for layer in found] == list(layers)
        for layer in found:
            values = layers[layer.layer]
            assert layer.classes.tolist() == [0, 2, 3]
            assert layer.outputs.tolist() == [count * values.shape[2] for count in (2, 3, 1)]
            for filter_, column in itertools.product(range(values.shape[1]), range(3)):
                expected = values[labels == layer.classes[column], filter_].mean()
                assert layer.means[filter_, column] == pytest.approx(expected)

    def test_selectivity_is_that_of_the_definition(self, outputs):
        for layer in analysis.responses(sums_of(outputs)):
            for means, found in zip(layer.means.tolist(), analysis.class_selectivity(layer.means), strict=True):
                best = max(means)
                others = sorted(means)[:-1]
                rest = sum(others) / len(others)
                if best == 0:
                    assert np.isnan(found)
                else:
                    assert found == pytest.approx((best - rest) / (best + rest))

    def test_selectivity_lies_between_all_alike_and_one_class_alone(self):
        means = np.array([[2.0, 2.0, 2.0], [0.0, 3.0, 0.0], [4.0, 2.0, 0.0]])
        assert analysis.class_selectivity(means).tolist() == pytest.approx([0, 1, 3 / 5])

    def test_between_class_share_is_that_of_the_outputs_themselves(self, outputs):
        layers, labels = outputs
        for layer in analysis.responses(sums_of(outputs)):
            found = analysis.between_class_share(layer)
            for filter_ in range(found.size):
                values = layers[layer.layer][:, filter_]
                mean = values.mean()
                of_classes = [values[labels == number] for number in (0, 2, 3)]
                between = sum(part.size * (part.mean() - mean) ** 2 for part in of_classes)
                total = ((values - mean) ** 2).sum()
                if values.std() < 1e-12:
                    assert np.isnan(found[filter_])
                else:
                    assert found[filter_] == pytest.approx(between / total)
                    assert 0 < found[filter_] < 1

    def test_between_class_share_is_1_where_classes_alone_make_the_difference(self):
        layer = analysis.Responses(
            "a", np.arange(2), np.array([10, 30]), np.array([[10.0, 90.0]]), np.array([[10.0, 270.0]])
        )
        assert analysis.between_class_share(layer).tolist() == [1.0]

    def test_of_the_made_up_layers_the_deeper_are_the_more_specific(self):
        layers = analysis.responses(activations_of({"a": 20, "b": 20, "c": 20}, classes=6))
        medians = [np.median(analysis.class_selectivity(layer.means)) for layer in layers]
        assert medians == sorted(medians)


class TestClustered:
    def test_alike_rows_become_neighbours(self):
        generator = np.random.default_rng(4)
        group = generator.integers(0, 4, 30)
        rows = np.eye(4)[group] + generator.normal(scale=0.05, size=(30, 4))
        order = analysis.clustered(rows)
        assert sorted(order) == list(range(30))
        changes = sum(a != b for a, b in itertools.pairwise(group[order]))
        assert changes == len(set(group)) - 1

    def test_the_tree_is_turned_so_that_neighbours_are_near(self):
        values = np.random.default_rng(5).gamma(1, size=20)
        order = analysis.clustered(values[:, None])
        assert values[order].tolist() in (sorted(values), sorted(values, reverse=True))

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_few_rows_stay(self, count):
        assert analysis.clustered(np.ones((count, 3))).tolist() == list(range(count))
