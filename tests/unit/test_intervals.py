"""The interval of a drop: its parts against formulas written out, folds, what other networks say, simulated truth."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.answers import intervals

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def simulated():
    place = importlib.util.spec_from_file_location("intervals_benchmark", ROOT / "benchmarks" / "intervals.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def outcomes(generator, seeds, images, accuracy):
    return generator.random((seeds, images)) < accuracy


def test_the_parts_are_the_crossed_models_mean_squares_written_out():
    generator = np.random.default_rng(0)
    baseline, pruned = outcomes(generator, 4, 30, 0.9), outcomes(generator, 4, 30, 0.7)
    d = baseline.astype(float) - pruned
    S, n = d.shape
    mean = sum(d[s, i] for s in range(S) for i in range(n)) / (S * n)
    seed_means = [sum(d[s]) / n for s in range(S)]
    image_means = [sum(d[:, i]) / S for i in range(n)]
    found = intervals.parts(baseline, pruned)
    assert found.drop == pytest.approx(mean)
    assert found.training == pytest.approx(sum((m - mean) ** 2 for m in seed_means) / (S - 1))
    assert (found.freedom, found.share, found.image_freedom) == (S - 1, 1 / S, pytest.approx(n - 1))
    # Two made-up images, as large as an image's difference is.
    large = ((sum(m**4 for m in image_means) + 1) / (sum(m**2 for m in image_means) + 1)) ** 0.5
    with_two_more = [*image_means, large, -large]
    centre = sum(with_two_more) / (n + 2)
    image_part = sum((m - centre) ** 2 for m in with_two_more) / (n + 1) / (n + 2)
    assert found.image == pytest.approx(image_part)
    rest = sum((d[s, i] - seed_means[s] - image_means[i] + mean) ** 2 for s in range(S) for i in range(n))
    rest /= (S - 1) * (n - 1)
    assert found.rest == pytest.approx(rest / (S * n))
    assert found.noise == pytest.approx(rest / n)


def test_with_folds_they_are_those_of_trainings_nested_in_folds():
    """Five folds of 12, 12, 12, 12 and 12 images, two rounds."""
    generator = np.random.default_rng(2)
    K, R, m = 5, 2, 12
    fold = np.arange(K * m) % K
    baseline, pruned = (outcomes(generator, K * R, K * m, accuracy).astype(float) for accuracy in (0.9, 0.7))
    for s in range(K * R):
        baseline[s, fold != s % K] = pruned[s, fold != s % K] = np.nan
    d = baseline - pruned
    image_means = [(d[i % K, i] + d[i % K + K, i]) / R for i in range(K * m)]
    mean = sum(image_means) / (K * m)
    own = [sum(d[s, i] for i in range(K * m) if i % K == s % K) / m for s in range(K * R)]
    found = intervals.parts(baseline, pruned)
    assert found.drop == pytest.approx(mean)
    assert (found.freedom, found.share) == (K * R - 1, 1 / (K * R))
    assert found.training == pytest.approx(sum((y - mean) ** 2 for y in own) / (K * R - 1))
    of_images = sum((a - mean) ** 2 for a in image_means) / (K * m - 1)
    rest = 0
    for k in range(K):
        there = [i for i in range(K * m) if i % K == k]
        fold_mean = sum(image_means[i] for i in there) / m
        for s in (k, k + K):
            rest += sum((d[s, i] - own[s] - image_means[i] + fold_mean) ** 2 for i in there)
    rest /= K * (R - 1) * (m - 1)
    assert found.rest == pytest.approx(rest / (R * K * m))
    # A training tests m images once; what of that is in the mean of all is not in their scatter about it.
    alone = (of_images + (1 - 1 / R) * rest) / m
    assert found.noise == pytest.approx(K * R / (K * R - 1) * (alone - of_images / (K * m)))


def test_each_image_weighs_the_same_whatever_the_number_of_its_tests():
    tests = np.array([[1, 1, np.nan, np.nan], [np.nan, np.nan, 1, 1], [1, 1, np.nan, np.nan]])
    pruned = np.where(np.isnan(tests), np.nan, [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    assert intervals.parts(tests, pruned).drop == pytest.approx((0.5 + 0.5 + 0 + 0) / 4)
    # An image that is never tested, and a training that tests none, are none.
    wider = np.pad(tests, ((0, 1), (0, 1)), constant_values=np.nan), np.pad(pruned, ((0, 1), (0, 1)))
    assert intervals.parts(*wider) == intervals.parts(tests, pruned)


def test_trainings_test_the_same_images_or_others():
    tests = np.array([[1, 1, np.nan], [np.nan, 1, 1]])
    with pytest.raises(ValueError, match="not all"):
        intervals.parts(tests, tests)
    with pytest.raises(ValueError, match="not all"):
        intervals.parts(np.array([[1, 1, np.nan], [1, np.nan, 1]]), np.ones((2, 3)))
    with pytest.raises(ValueError, match="no training"):
        intervals.parts(np.full((2, 3), np.nan), np.ones((2, 3)))


PARTS = intervals.Parts(0.01, 1e-6, 999.0, 5e-7, 1e-4, 2, 1e-5, 1 / 3)


def test_where_trainings_scatter_it_is_students_t_of_them_and_where_they_agree_of_the_images():
    scattered = dataclasses.replace(PARTS, image=1e-12, image_freedom=1e6, noise=0.0)
    half = scipy.stats.t.ppf(0.975, 2) * (1e-4 / 3) ** 0.5
    assert intervals.interval(scattered) == pytest.approx((0.01, 0.01 - half, 0.01 + half), rel=1e-3)
    half = scipy.stats.t.ppf(0.95, 999) * 1e-3
    for agreed in dataclasses.replace(PARTS, training=0.0), dataclasses.replace(PARTS, freedom=0):
        assert intervals.interval(agreed, 0.9) == pytest.approx((0.01, 0.01 - half, 0.01 + half), rel=1e-6)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [0, 1, 4])
def test_the_p_value_at_its_bound_is_what_is_left_of_the_level(level, freedom):
    found = dataclasses.replace(PARTS, freedom=freedom)
    interval = intervals.interval(found, level)
    assert intervals.p_value(found, interval.high) == pytest.approx((1 - level) / 2)
    assert intervals.p_value(found, interval.low) == pytest.approx((1 + level) / 2)


class TestPooled:
    def networks(self, *scatter, freedom=2):
        """Networks whose trainings scatter so much, in points."""
        return [dataclasses.replace(PARTS, training=(each / 100) ** 2, freedom=freedom) for each in scatter]

    def test_one_network_has_its_own_variance(self):
        assert intervals.pooled(self.networks(1.0)) is None
        assert intervals.pooled([*self.networks(1.0), *self.networks(1.0, freedom=0)]) is None
        assert intervals.moderated(PARTS, None) == (PARTS.training, 2)

    def test_networks_that_scatter_alike_lend_each_other_degrees_of_freedom_but_not_more_than_there_are(self):
        alike = self.networks(0.9, 1.0, 1.1, 1.0)
        variance, freedom = intervals.moderated(alike[1], intervals.pooled(alike))
        assert variance**0.5 == pytest.approx(0.01, rel=0.2)
        # Four networks of two, which share the unpruned one.
        assert freedom == pytest.approx(8 / (1 + 3 * intervals.SHARED))

    def test_one_training_of_three_that_lost_11_points_is_not_pooled_away(self):
        scatter = float(np.std([0.2, -0.1, 11.0], ddof=1))
        networks = self.networks(0.3, 0.2, scatter)
        found = intervals.pooled(networks)
        variance, freedom = intervals.moderated(networks[2], found)
        assert variance**0.5 > 0.7 * scatter / 100
        assert freedom < 3
        high = intervals.interval(networks[2], prior=found).high
        assert high > 0.1
        # The others do not get its scatter either.
        assert intervals.interval(networks[0], prior=found).high < intervals.interval(networks[0]).high * 1.3

    def test_trainings_that_agree_by_chance_do_not_make_networks_look_different(self):
        few = intervals.pooled(self.networks(1.0, 1.1, 0.0))
        assert few.freedom > 2

    def test_more_pooling_where_they_differ_less(self):
        worth = [intervals.pooled(self.networks(1 / by, 1, by, freedom=9)).freedom for by in (1.1, 2, 4, 10)]
        assert worth == sorted(worth, reverse=True)
        assert worth[0] > 9 > worth[-1]


def test_over_classes_the_images_are_drawn_within_theirs():
    generator = np.random.default_rng(1)
    counts = (3, 12, 25)
    S, C, n = 4, len(counts), sum(counts)
    labels = np.repeat(["rare", "b", "c"], counts)
    baseline, pruned = outcomes(generator, S, n, 0.9), outcomes(generator, S, n, 0.6)
    d = baseline.astype(float) - pruned
    of_class = [[i for i in range(n) if labels[i] == name] for name in ("rare", "b", "c")]
    mean = sum(d[s, i] / (C * S * len(there)) for there in of_class for s in range(S) for i in there)
    seed_means = [sum(d[s, i] / (C * len(there)) for there in of_class for i in there) for s in range(S)]
    all_means = [sum(d[:, i]) / S for i in range(n)]
    large = (sum(m**4 for m in all_means) + 1) / (sum(m**2 for m in all_means) + 1)
    image_parts, rest_parts = [], []
    for there in of_class:
        size = len(there)
        made_up = 2 * (1 / size) / sum(1 / count for count in counts)  # half of them lost, half of them won
        image_means = [all_means[i] for i in there]
        centre = sum(image_means) / (size + made_up)
        squares = sum((m - centre) ** 2 for m in image_means) + made_up * (large + centre**2)
        image_parts.append(squares / (size + made_up - 1) / (size + made_up) / C**2)
        by_seed = [sum(d[s, i] for i in there) / size for s in range(S)]
        centre = sum(image_means) / size
        rest = sum((d[s, i] - by_seed[s] - sum(d[:, i]) / S + centre) ** 2 for s in range(S) for i in there)
        rest_parts.append(rest / ((S - 1) * (size - 1)) / (S * size) / C**2)
    found = intervals.parts(baseline, pruned, labels)
    assert found.drop == pytest.approx(mean)
    assert found.training == pytest.approx(sum((m - mean) ** 2 for m in seed_means) / (S - 1))
    assert found.image == pytest.approx(sum(image_parts))
    assert found.rest == pytest.approx(sum(rest_parts))
    assert found.noise == pytest.approx(S * sum(rest_parts))
    freedom = sum(image_parts) ** 2 / sum(
        part**2 / (len(there) - 1) for part, there in zip(image_parts, of_class, strict=True)
    )
    assert found.image_freedom == pytest.approx(freedom)
    recalls = [baseline[:, labels == name].mean() - pruned[:, labels == name].mean() for name in ("rare", "b", "c")]
    assert found.drop == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("scenario", [(3, 1000, 0.86, 0.8, 0.0), (3, 1000, 0.86, 0.7, 0.01), (5, 1000, 0.9, 0.8, 0.01)])
def test_coverage_over_400_simulated_studies(simulated, scenario):
    covers, wrong = simulated.coverage(400, scenario)
    # Where trainings do not differ at all it covers more: that they don't is not known of three.
    assert 0.92 <= covers <= 0.99
    assert wrong <= 0.05


@pytest.mark.parametrize("name", ["5 × 200", "5 × 200, the last one loses", "4 × 200 and 20", "950 and 50"])
def test_coverage_of_the_mean_over_classes(simulated, name):
    covers, wrong = simulated.class_coverage(200, simulated.CLASS_SCENARIOS[name])
    # Of a rare class the made-up images make it wider.
    assert covers >= 0.91
    assert wrong <= 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**31), st.integers(0, 4))
def test_properties_of_the_interval(seeds, images, seed, classes):
    generator = np.random.default_rng(seed)
    baseline, pruned = outcomes(generator, seeds, images, 0.8), outcomes(generator, seeds, images, 0.6)
    labels = generator.integers(classes, size=images) if classes else None
    drop, low, high = intervals.paired_interval(baseline, pruned, labels)
    assert low < drop < high
    recalls = (
        [
            baseline[:, there].mean() - pruned[:, there].mean()
            for there in (np.arange(classes)[:, None] == labels)
            if there.any()
        ]
        if classes
        else [baseline.mean() - pruned.mean()]
    )
    assert drop == pytest.approx(np.mean(recalls))
    # Neither the order of the seeds nor that of the images says anything; the other way round is the mirror image.
    orders = generator.permutation(seeds), generator.permutation(images)
    shuffled = (side[orders[0]][:, orders[1]] for side in (baseline, pruned))
    moved = labels[orders[1]] if classes else None
    assert intervals.paired_interval(*shuffled, moved) == pytest.approx((drop, low, high))
    assert intervals.paired_interval(pruned, baseline, labels) == pytest.approx((-drop, -high, -low))
    if classes == 1:
        assert intervals.paired_interval(baseline, pruned) == (drop, low, high)


def test_networks_that_agree_on_a_few_images_are_not_known_to_be_equal():
    same, labels = np.ones((3, 20), dtype=bool), np.arange(20) % 2
    found = intervals.paired_interval(same, same)
    assert found.drop == 0
    assert found.high > 0.02
    many = np.ones((3, 2000), dtype=bool)
    assert intervals.paired_interval(many, many).high < 0.02
    # Nor are they where there are many images, but few of a class.
    assert intervals.paired_interval(many, many, np.arange(2000) < 5).high > 0.1
    assert intervals.paired_interval(same, same, labels)[1:] == pytest.approx(found[1:], rel=0.1)


class TestLostClasses:
    """5 classes: 200 images each of four, and some of the rare one."""

    def lost(self, images, before, after, seeds=3, margin=10.0):
        """The rare class is found in so many of its images, the same ones in every seed; nothing else changes."""
        labels = np.repeat(["a", "b", "c", "d", "rare"], [200] * 4 + [images])
        baseline = np.ones((seeds, len(labels)), dtype=bool)
        pruned = baseline.copy()
        baseline[:, 800 + before :] = False
        pruned[:, 800 + after :] = False
        return intervals.lost_classes(baseline, pruned, labels, margin)

    def test_one_that_is_no_longer_found_is_lost(self):
        assert self.lost(20, 16, 0) == ("rare",)
        assert self.lost(5, 4, 0) == ("rare",)

    def test_one_image_of_a_few_is_no_class(self):
        assert self.lost(5, 5, 4) == ()
        assert self.lost(5, 1, 0) == ()
        assert self.lost(2, 1, 0) == ()
        assert self.lost(1, 1, 0) == ()

    def test_one_that_surely_loses_more_than_the_margin_is_lost(self):
        assert self.lost(200, 190, 130) == ("rare",)
        assert self.lost(200, 190, 130, margin=40.0) == ()
        assert self.lost(200, 190, 180) == ()
        assert self.lost(200, 130, 190) == ()

    def test_one_that_the_unpruned_network_does_not_find_either_is_lost_if_guessing_would_find_it(self):
        # 20 images missed in a row: with one in five they would not be.
        assert self.lost(20, 0, 0) == ("rare",)
        assert self.lost(10, 0, 0) == ()

    def test_all_seeds_must_miss_it(self):
        labels = np.repeat(["a", "rare"], [100, 30])
        baseline = np.ones((3, 130), dtype=bool)
        pruned = baseline.copy()
        pruned[:2, 100:] = False
        assert intervals.lost_classes(baseline, pruned, labels, 100.0) == ()
        pruned[2, 100:] = False
        assert intervals.lost_classes(baseline, pruned, labels, 10.0) == ("rare",)


@pytest.mark.parametrize(("name", "repeats"), [("4 × 200 and 20", 50), ("102 × 20", 10)])
def test_a_network_that_loses_nothing_is_not_said_to_lose_a_class(simulated, name, repeats):
    falsely, at_margin, never = simulated.alarms(repeats, simulated.CLASS_SCENARIOS[name])
    assert falsely <= 0.02
    assert at_margin <= 0.03
    assert never >= 0.98
