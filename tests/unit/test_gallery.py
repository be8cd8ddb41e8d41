"""A user's images in the answer: which two networks disagree on, which classes are confused, what the data set is."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from winnow.answers import gallery
from winnow.answers.figures import confusion

LABELS = [0, 0, 1, 1, 2]


def training(predicted, probability=None, images=(3, 5, 7, 9, 11), labels=LABELS):
    predicted = np.array(predicted)
    probability = np.where(predicted == labels, 0.9, 0.1) if probability is None else np.array(probability)
    return {"image": np.array(images), "label": np.array(labels), "predicted": predicted, "probability": probability}


def test_what_most_trainings_say_counts_and_the_clearest_errors_come_first():
    unpruned = gallery.Outcomes.of([training(LABELS), training(LABELS), training([0, 0, 1, 0, 1])])
    pruned = gallery.Outcomes.of(
        [
            training([1, 2, 1, 1, 1], [0.3, 0.02, 0.9, 0.9, 0.2]),
            training([2, 2, 1, 1, 2], [0.3, 0.04, 0.9, 0.9, 0.9]),
            training([1, 0, 1, 1, 2], [0.3, 0.9, 0.9, 0.9, 0.9]),
        ]
    )
    lost, gained, losses, gains = gallery.changed(unpruned, pruned)
    # Of image 7 all are right; of 11 most of either are. The first has the lower probability, as a mean: 0.3 of 0.32.
    assert [(case.image, case.label, case.taken_for) for case in lost] == [(3, 0, 1), (5, 0, 2)]
    assert lost[0].probability == pytest.approx(0.3)
    assert (losses, gains) == (2, 0)
    assert gained == []
    other_way, back, *_ = gallery.changed(pruned, unpruned)
    assert [case.image for case in back] == [3, 5]
    assert other_way == []
    assert len(gallery.changed(unpruned, pruned, shown=1)[0]) == 1


def test_what_trainings_are_of_two_minds_about_is_neither_lost_nor_gained():
    sure, torn = (gallery.Outcomes.of([training(LABELS), training(other)]) for other in (LABELS, [1, 1, 0, 0, 0]))
    assert gallery.changed(sure, torn) == ([], [], 0, 0)
    assert gallery.changed(torn, sure) == ([], [], 0, 0)


def test_with_folds_an_image_is_what_the_trainings_say_that_test_it():
    first = training([0, 1], images=(3, 5), labels=[0, 0])
    second = training([1, 2, 0], images=(7, 9, 11), labels=[1, 1, 2])
    again = training([1, 0], images=(3, 5), labels=[0, 0])
    found = gallery.Outcomes.of([first, second, again])
    assert found.images.tolist() == [3, 5, 7, 9, 11]
    assert found.labels.tolist() == LABELS
    assert found.right.tolist() == [0.5, 0.5, 1.0, 0.0, 0.0]
    assert np.isnan(found.probability[0, 2:]).all()
    # An image that was tested twice counts once.
    assert found.shares(3).tolist() == [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]
    assert np.isnan(found.shares(4)[3]).all()


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(2, 6), st.integers(0, 2**31))
def test_no_image_is_lost_and_gained_and_shares_add_up(seeds, images, classes, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=images)

    def drawn():
        predicted = generator.integers(classes, size=(seeds, images))
        return gallery.Outcomes.of(
            [training(row, generator.random(images), np.arange(images), labels) for row in predicted]
        )

    unpruned, pruned = drawn(), drawn()
    lost, gained, losses, gains = gallery.changed(unpruned, pruned, shown=images)
    assert not {case.image for case in lost} & {case.image for case in gained}
    assert (len(lost), len(gained)) == (losses, gains)
    assert all(case.taken_for != case.label for case in lost + gained)
    assert [case.probability for case in lost] == sorted(case.probability for case in lost)
    rows = pruned.shares(classes).sum(axis=1)
    assert rows[~np.isnan(rows)] == pytest.approx(1)
    for pair in gallery.confusions(unpruned.shares(classes), pruned.shares(classes), listed=5):
        assert pair.label != pair.taken_for
        assert 0 < max(pair.unpruned, pair.pruned) <= 1


def test_confusions_are_told_that_are_frequent_and_that_have_gone():
    before = np.array([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.05, 0.95]])
    after = np.array([[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.0, 0.05, 0.95]])
    found = gallery.confusions(before, after)
    assert found == [(0, 1, 0.2, 0.0), (1, 0, 0.0, 0.1), (2, 1, 0.05, 0.05)]
    assert gallery.confusions(before, after, listed=1) == found[:1]
    assert gallery.confusions(np.eye(3), np.eye(3)) == []


def test_a_data_set_is_told_by_parts_classes_and_what_was_skipped():
    labels = np.array([0, 1] * 20 + [2])
    parts = np.array(["train"] * 30 + ["test"] * 11)
    skipped = [{"file": f"{number}.jpg", "reason": "empty"} for number in range(3)]
    skipped.append({"file": "x.heic", "reason": "not an image"})
    found = gallery.overview(["a", "b", "c"], labels, parts, skipped)
    assert found.counts == {"to train on": 30, "to test on": 11}
    assert [each.name for each in found.classes] == ["a", "b", "c"]
    assert found.classes[0].counts == {"to train on": 15, "to test on": 5}
    assert found.classes[0].images == [0, 6, 14, 22, 30, 38]
    assert found.classes[2].images == [40]
    assert found.skipped == [("empty", 3, "0.jpg"), ("not an image", 1, "x.heic")]
    assert gallery.overview(["a", "b", "c"], labels, None).counts == {"images": 41}


def test_of_many_classes_each_has_an_image_and_no_more_than_all_have_room():
    names = [str(number) for number in range(500)]
    labels = np.repeat(np.arange(500), 4)
    found = gallery.overview(names, labels, None, examples=240)
    assert len(found.classes) == 240
    assert found.more == 260
    assert sum(len(each.images) for each in found.classes) == 240
    # A class none of whose images could be read.
    assert gallery.overview(["a", "b"], np.zeros(3, dtype=int), None).classes[1].images == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("side", "kind", "shown"), [(8, "png", 8), (32, "png", 32), (48, "jpeg", 48), (256, "jpeg", 64)]
)
def test_a_thumbnail_is_small_and_a_tiny_image_itself(side, kind, shown, channels):
    pixels = np.random.default_rng(0).integers(256, size=(side, side, channels), dtype=np.uint8)
    head, content = gallery.thumbnail(pixels).split(",")
    assert head == f"data:image/{kind};base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.size == (shown, shown)
    if kind == "png":
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert len(content) < 6000


def test_the_matrix_has_a_number_a_cell_and_is_left_out_for_many_classes():
    shares = np.array([[0.75, 0.25], [0.004, 0.996]])
    figure = confusion.confusion(shares, ["a", "b"], "digits-net-confusion", "Digits, net")
    (data,) = figure.chart.to_dict()["datasets"].values()
    assert [(row["class"], row["taken for"], row["text"]) for row in data] == [
        *(("a", "a", "75"), ("a", "b", "25"), ("b", "a", ""), ("b", "b", "100"))
    ]
    assert data[3]["fill"] == "#0172B2"
    assert data[1]["fill"] == "#EAAE80"
    many = confusion.SHOWN + 1
    assert confusion.confusion(np.eye(many), [str(number) for number in range(many)], "x", "y") is None
