"""Several trainings' predictions beside each other, whether they test the same images or each a fold."""

import numpy as np
import pytest

from winnow.answers import predictions
from winnow.files import InputError


def of(images, correct):
    return {"image": np.array(images), "label": np.array(images) % 3, "correct": np.array(correct, dtype=bool)}


def laid_out(trainings, among=None):
    """The test images, and a row a training; one that diverged, None, tests none."""
    among = among or predictions.tested([each for each in trainings if each is not None])
    nothing = np.full(among.images.size, np.nan)
    return among, np.array([nothing if each is None else among.correct(each) for each in trainings])


def test_trainings_of_one_test_part_fill_the_array():
    tested, correct = laid_out([of([3, 5, 9], [1, 0, 1]), None, of([3, 5, 9], [1, 1, 1])])
    assert tested.images.tolist() == [3, 5, 9]
    assert tested.labels.tolist() == [0, 2, 0]
    np.testing.assert_array_equal(correct, [[1, 0, 1], [np.nan] * 3, [1, 1, 1]])


def test_folds_leave_what_they_do_not_test():
    first, second, again = of([1, 4], [1, 0]), of([0, 2, 3], [1, 1, 0]), of([1, 4], [0, 0])
    tested, correct = laid_out([first, second, again])
    assert tested.images.tolist() == [0, 1, 2, 3, 4]
    assert tested.labels.tolist() == [0, 1, 2, 0, 1]
    nothing = np.nan
    expected = [[nothing, 1, nothing, nothing, 0], [1, nothing, 1, 0, nothing], [nothing, 0, nothing, nothing, 0]]
    np.testing.assert_array_equal(correct, expected)
    among, part = laid_out([second], predictions.tested([first, second]))
    assert among.images.tolist() == tested.images.tolist()
    np.testing.assert_array_equal(part, correct[1:2])


@pytest.mark.parametrize("images", [[1, 3], [0, 1], [4, 7]])
def test_other_images_than_those_asked_for_are_an_error(images):
    with pytest.raises(InputError, match="judged on other images"):
        laid_out([of(images, [1, 1])], predictions.tested([of([1, 4, 5], [1, 1, 1])]))
