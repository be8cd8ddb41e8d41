"""Which images train, choose and judge: stratified, seeded, complete, groups together, and every image in one fold."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from winnow.data import splits
from winnow.data.splits import Images
from winnow.data.store import Store
from winnow.files import InputError
from winnow.tables import read_provenance

from . import programs

QUARTERS = {"split": {"val": 0.2, "test": 0.2}}


def images_of(labels, groups=None, official=None):
    nothing = [None] * len(labels)
    names = [str(label) for label in range(max(labels) + 1)]
    return Images(names, np.array(labels), official or nothing, groups or nothing)


@st.composite
def drawn(draw, most_groups=0, least=1):
    """Images of some classes in some order, and perhaps in groups, which may have images of several classes."""
    counts = draw(st.lists(st.integers(least, 40), min_size=1, max_size=4))
    labels = draw(st.permutations([label for label, count in enumerate(counts) for _ in range(count)]))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    count = draw(st.integers(0, most_groups))
    numbers = generator.integers(0, 2 * count + 1, len(labels)) if count else np.full(len(labels), count)
    return counts, images_of(list(labels), [None if number >= count else f"g{number}" for number in numbers])


def straddling(parts, images):
    """Groups that are in several parts."""
    found = collections.defaultdict(set)
    for part, group in zip(parts, images.groups, strict=True):
        if group is not None:
            found[group].add(part)
    return {group for group, there in found.items() if len(there) > 1}


@given(drawn(), st.integers(0, 99), st.integers(0, 3), st.sampled_from([None, 2, 5]))
@settings(max_examples=100)
def test_every_part_has_its_share_of_each_stratum(found, draw, seed, folds):
    _, images = found
    strata = [("mono", "poly", None)[n] for n in np.random.default_rng(draw).integers(0, 3, images.labels.size)]
    images = dataclasses.replace(images, strata=strata)
    dataset = QUARTERS | {"folds": folds, "seed": seed}
    try:
        parts = splits.assign(dataset, images, 0 if folds else None)
    except InputError:
        assume(False)
    own = collections.Counter(zip(images.labels.tolist(), strata, strict=True))
    of_part = collections.Counter(zip(images.labels.tolist(), strata, parts, strict=True))
    of_class = collections.Counter(zip(images.labels.tolist(), parts, strict=True))
    for (label, stratum), size in own.items():
        for part in splits.PARTS:
            share = size / np.count_nonzero(images.labels == label)
            # A part of a class is cut out of it, of the rest with folds: at either end it may be one image off.
            assert abs(of_part[label, stratum, part] - share * of_class[label, part]) <= 3


@given(drawn(most_groups=3), st.integers(0, 3))
@settings(max_examples=50)
def test_without_strata_the_order_is_the_seeded_permutation(found, seed):
    _, images = found
    for label in range(len(images.classes)):
        rows = np.random.default_rng((seed, label)).permutation(np.flatnonzero(images.labels == label))
        assert images.order(label, seed).tolist() == rows.tolist()


@given(drawn(), st.floats(0.0, 0.5), st.floats(0.05, 0.45), st.integers(0, 3))
@settings(max_examples=150)
def test_the_split_is_stratified_seeded_and_complete(found, val, test, seed):
    counts, images = found
    dataset = {"split": {"val": val, "test": test}, "seed": seed}
    try:
        parts = splits.assign(dataset, images)
    except InputError:
        assert any(n <= max(1, round(test * n)) + (max(1, round(val * n)) if val else 0) for n in counts)
        return
    assert parts == splits.assign(dataset, images)
    assert None not in parts
    for label, count in enumerate(counts):
        there = collections.Counter(part for part, own in zip(parts, images.labels, strict=True) if own == label)
        assert there["test"] == max(1, round(test * count))
        assert there["val"] == (max(1, round(val * count)) if val else 0)
        assert there["train"] >= 1


def test_a_split_is_the_one_that_it_always_was():
    parts = splits.assign(QUARTERS | {"seed": 3}, images_of([0, 1] * 10))
    short = "".join(part[1] for part in parts)
    assert short == "arreaarrrerrerrrraer"


@given(drawn(), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["train", "train+val"]))
@settings(max_examples=100)
def test_a_smaller_subset_lies_within_a_larger_one_and_judges_on_the_same_images(found, first, second, train_on):
    counts, images = found
    few, many = sorted((first, second))
    dataset = QUARTERS | {"train_on": train_on}
    try:
        small, large = (splits.assign(dataset | {"train_per_class": n}, images) for n in (few, many))
    except InputError:
        assume(False)
    for a, b in zip(small, large, strict=True):
        assert a != "train" or b == "train"
        assert (a == "test") == (b == "test")
    for label in range(len(counts)):
        assert sum(large[row] == "train" for row in np.flatnonzero(images.labels == label)) == many


@given(drawn(most_groups=12), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_groups_stay_together_and_every_class_is_in_every_part(found, seed):
    counts, images = found
    try:
        parts = splits.assign(QUARTERS | {"seed": seed}, images)
    except InputError:
        assume(False)
    assert parts == splits.assign(QUARTERS | {"seed": seed}, images)
    assert not straddling(parts, images)
    for label in range(len(counts)):
        assert {parts[row] for row in np.flatnonzero(images.labels == label)} == set(splits.PARTS)


@given(drawn(least=8), st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_every_image_judges_in_one_fold_and_folds_are_alike(found, folds, seed):
    counts, images = found
    dataset = {"split": {"val": 0.15, "test": 0.15}, "folds": folds, "seed": seed}
    made = [splits.assign(dataset, images, fold) for fold in range(folds)]
    assert made == [splits.assign(dataset, images, fold) for fold in range(folds)]
    tests = np.array([[part == "test" for part in parts] for parts in made])
    assert (tests.sum(axis=0) == 1).all()
    for label, count in enumerate(counts):
        by_class = tests[:, images.labels == label].sum(axis=1)
        assert by_class.max() - by_class.min() <= 1
        for parts in made:
            there = [parts[row] for row in np.flatnonzero(images.labels == label)]
            assert there.count("val") == max(1, round(0.15 * count))
            assert there.count("train") >= 1
            assert None not in there
    sizes = tests.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1


@given(drawn(most_groups=12, least=10), st.integers(2, 4))
@settings(max_examples=200, deadline=None)
def test_groups_stay_together_in_every_fold(found, folds):
    counts, images = found
    dataset = QUARTERS | {"folds": folds}
    made = []
    for fold in range(folds):
        try:
            made.append(splits.assign(dataset, images, fold))
        except InputError:
            assume(False)
    assert (np.array([[part == "test" for part in parts] for parts in made]).sum(axis=0) == 1).all()
    for parts in made:
        assert not straddling(parts, images)
        for label in range(len(counts)):
            assert {parts[row] for row in np.flatnonzero(images.labels == label)} == set(splits.PARTS)


def test_groups_of_one_size_are_stratified_as_images_are():
    # 2 classes of 10 groups of 5 images.
    labels = [number // 50 for number in range(100)]
    images = images_of(labels, [f"g{number // 5}" for number in range(100)])
    for fold in range(5):
        parts = splits.assign({"split": {"val": 0.2, "test": 0.2}, "folds": 5}, images, fold)
        assert collections.Counter(zip(parts, labels, strict=True)) == {
            (part, label): count for part, count in (("test", 10), ("val", 10), ("train", 30)) for label in (0, 1)
        }
    parts = splits.assign(QUARTERS, images)
    assert collections.Counter(parts) == {"test": 20, "val": 20, "train": 60}


def test_what_chooses_in_one_fold_judges_in_the_next():
    images = images_of([0] * 20)
    dataset = {"split": {"val": 0.2, "test": 0.2}, "folds": 4}
    made = [np.array(splits.assign(dataset, images, fold)) for fold in range(4)]
    for before, after in zip(made, [*made[1:], made[0]], strict=True):
        assert (after[before == "val"] == "test").all()


def test_an_official_split_stays_and_groups_are_heeded_where_validation_is_carved():
    official = ["train"] * 20 + ["test"] * 20
    groups = [f"g{number // 4}" for number in range(40)]
    images = images_of([0] * 40, groups, official)
    parts = splits.assign({}, images)
    assert [part == "test" for part in parts] == [part == "test" for part in official]
    assert parts.count("val") == 4
    assert not straddling(parts, images)
    with pytest.raises(InputError, match="folds: these images come with a test part of their own"):
        splits.assign({"folds": 5}, images, 0)


@pytest.mark.parametrize(
    ("dataset", "fold", "labels", "groups", "says"),
    [
        (
            {"split": {"val": 0.1, "test": 0.1}, "train_per_class": 9},
            None,
            [0, 1] * 10,
            None,
            "class '0' has 8 readable images to train on, 9 are needed",
        ),
        (
            {"train_per_class": 20, "val_per_class": 10},
            None,
            [0] * 20,
            None,
            "class '0' has 20 readable images, 31 are needed: 20 to train on, 10 for",
        ),
        (
            {"folds": 5},
            0,
            [0] * 9 + [1] * 4,
            None,
            "'1' has 4 readable images, 5 are needed: one to test in each",
        ),
        (
            {"folds": 2, "val_per_class": 5},
            0,
            [0] * 10,
            None,
            "'0' has 10 readable images, of which 5 are left where 5 test in one of 2 folds; 6 are needed: 1 to train",
        ),
        (
            {"folds": 5},
            0,
            [0] * 20,
            ["a", "b"] * 10,
            r"0' has 20 readable images \(its 20 are of 2 groups, which",
        ),
        (QUARTERS, None, [0] * 20, ["a"] * 20, "class '0' has no readable image"),
        (QUARTERS, None, [0] * 20, ["a", "b"] * 10, "class '0' has no readable image"),
    ],
)
def test_too_few_images_name_class_count_and_need(dataset, fold, labels, groups, says):
    with pytest.raises(InputError, match=says):
        splits.assign(dataset, images_of(labels, groups), fold)


def test_the_split_of_a_million_images_is_small_enough_for_its_content_to_be_compared(tmp_path):
    parts = np.random.default_rng(0).choice(["train", "val", "test"], 10**6, p=[0.6, 0.2, 0.2]).tolist()
    splits.write(tmp_path / "split.parquet", parts, {"index_sha256": ""}, {})
    assert (tmp_path / "split.parquet").stat().st_size < 300_000


def test_a_split_is_written_with_its_counts_and_only_for_its_store(tmp_path):
    pixels = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    parts = ["train", None, "val", "test", "train", "test"]
    programs.stored(tmp_path / "store", pixels, [0, 1] * 3, parts)
    store, path = Store.open(tmp_path / "store"), tmp_path / "store.parquet"
    split = splits.Split.open(path, store)
    assert [split.rows(part).tolist() for part in splits.PARTS] == [[0, 4], [2], [3, 5]]
    assert split.counts == read_provenance(path)["counts"] == {"train": 2, "val": 1, "test": 2}
    programs.stored(tmp_path / "other", pixels, [1, 0] * 3, parts)
    with pytest.raises(InputError, match=r"other.parquet is no split of .*store"):
        splits.Split.open(tmp_path / "other.parquet", store)
