"""What is said before anything is trained: what so many images can tell."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from winnow.answers import intervals, procedure
from winnow.workflow import certainty, config, defaults, promises

from . import programs
from .test_folders import DOT
from .test_specs import RAW

NOWHERE = RAW["datasets"]["digits"]


def test_sixty_test_images_can_tell_little_and_folds_of_three_hundred_enough():
    low, _ = certainty.smallest_drop(60)
    assert low == pytest.approx(5.1, abs=0.05)
    assert certainty.smallest_drop(300, 5) == pytest.approx((1.9, 2.9), abs=0.05)
    assert certainty.smallest_drop(750)[1] < 1.2


@pytest.mark.parametrize("disagreement", certainty.DISAGREEMENT)
@pytest.mark.parametrize(("images", "seeds"), [(60, 10), (300, 5), (750, 10)])
def test_it_is_the_half_width_of_the_interval_that_judges(images, seeds, disagreement):
    generator = np.random.default_rng(0)
    widths = []
    for _ in range(150):
        # A share of the disagreement comes again in each training: as the square of the images' own differences has it.
        own = disagreement * certainty.LASTING
        lasting = generator.choice([-1, 0, 1], p=[own / 2, 1 - own, own / 2], size=images)
        rest = disagreement * (1 - certainty.LASTING)
        fresh = generator.choice([-1, 0, 1], p=[rest / 2, 1 - rest, rest / 2], size=(seeds, images))
        differences = np.where(lasting, lasting, fresh)
        baseline, pruned = differences >= 0, differences <= 0
        drop, _, high = intervals.paired_interval(baseline, pruned)
        widths.append(100 * (high - drop))
    expected = certainty.half_width(images, seeds, disagreement)
    # That of the formula has the trainings' spread besides, and the interval's own estimate of it is not sharp.
    assert np.median(widths) == pytest.approx(expected, rel=0.12)


@given(st.floats(0.9, 0.999), st.integers(4, 2000))
def test_students_quantile(share, freedom):
    assert certainty.student(share, freedom) == pytest.approx(scipy.stats.t.ppf(share, freedom), rel=0.02)
    if share < 0.98:
        assert certainty.student(share, freedom) == pytest.approx(scipy.stats.t.ppf(share, freedom), rel=0.001)


@given(st.integers(20, 500), st.integers(2, 20))
def test_more_images_tell_more_and_folds_tell_more_than_a_fifth(images, folds):
    low, high = certainty.smallest_drop(images)
    assert 0 < low < high
    assert certainty.smallest_drop(images + 10) < (low, high)
    assert certainty.smallest_drop(5 * images, folds)[1] < high


def test_the_sentence():
    assert promises.sentence(60, 300, None, 2.0) == (
        "60 test images: no drop below 5.1 points can be told from none; with folds: 5, where each of the 300 images "
        "judges, 1.9 to 2.9. Tolerance: 2 points; too few images to be sure of that."
    )
    assert promises.sentence(60, 300, 5, 2.0) == (
        "300 images in 5 folds: no drop below 1.9 to 2.9 points can be told from none. Tolerance: 2 points; "
        "perhaps enough images to be sure of that."
    )
    official = promises.sentence(2040, 4080, None, 2.0, suggested=0)
    assert "folds" not in official
    assert official.endswith("can be told from none. Tolerance: 2 points; enough images to be sure of that.")
    assert "Tolerance: 1 point;" in promises.sentence(2040, 4080, None, 1.0, suggested=0)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of 30 images in two classes, and a configuration of it."""
    monkeypatch.chdir(tmp_path)
    for number in range(30):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DOT)

    def configured(**keys):
        dataset = {"source": "folder", "path": str(tmp_path / "photos"), "store_size": 8, "image_size": 8} | keys
        return config.load(RAW | {"datasets": RAW["datasets"] | {"photos": dataset | {"recipe": NOWHERE["recipe"]}}})

    return configured


def test_a_folders_test_images_are_counted_as_they_will_be_split(photos, tmp_path):
    said = promises.of_data_set(photos(split={"val": 0.2, "test": 0.4}), "photos")
    assert said.startswith("photos: 12 test images: no drop below ")
    assert "each of the 30 images judges" in said
    assert promises.of_data_set(photos(), "photos").startswith(f"photos: {round(0.15 * 30)} test images")
    assert promises.of_data_set(photos(folds=3), "photos").startswith("photos: 30 images in 3 folds: no drop below ")
    # A store knows what could be read, and its split what judges.
    labels = [0, 1] * 10
    store = tmp_path / "results/datasets/photos"
    programs.stored(store, np.zeros((20, 8, 8, 3), np.uint8), labels, ["train"] * 11 + ["test"] * 9)
    assert promises.of_data_set(photos(folds=3), "photos").startswith("photos: 20 images in 3 folds")
    (tmp_path / "results/splits/photos").mkdir(parents=True)
    store.with_suffix(".parquet").replace(tmp_path / "results/splits/photos/only.parquet")
    assert promises.of_data_set(photos(), "photos").startswith("photos: 9 test images")


def test_a_folders_own_split_has_no_folds(photos, tmp_path):
    for part in ("train", "test"):
        path = tmp_path / "photos" / part
        path.mkdir()
        for name in "ab":
            (tmp_path / "photos" / name).replace(path / name) if part == "train" else (path / name).mkdir()
            (path / name / "x.jpg").write_bytes(DOT)
    said = promises.of_data_set(photos(), "photos")
    assert said.startswith("photos: 2 test images")
    assert "folds" not in said
    assert defaults.survey(tmp_path / "photos").test == 2


def test_where_nothing_is_known_nothing_is_said(photos, tmp_path):
    assert promises.of_data_set(config.load(RAW), "digits") == ""
    (tmp_path / "empty").mkdir()
    assert promises.of_data_set(photos(path=str(tmp_path / "empty")), "photos") == ""


def test_searches_are_counted():
    assert promises.of_searches(0) == ""
    assert promises.of_searches(1) == "1 learning rate is found first, by 3 to 5 trainings for a fourth of the epochs"
    assert promises.of_searches(5).startswith("5 learning rates are found first, each by 3 to 5 trainings")


def test_the_most_trainings_are_those_of_the_last_look():
    assert procedure.looks(None)[-1] == certainty.MOST
