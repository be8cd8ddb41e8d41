"""What several trainings say of a data set's test images, laid beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from winnow.files import InputError


class Tested(NamedTuple):
    """The test images of several trainings together.

    Attributes
    ----------
    images : (n,) int
        Rows of the data set's store, in its order.
    labels : (n,) int
        Positions in its list of classes.
    """

    images: np.ndarray
    labels: np.ndarray

    def correct(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,) float: 1 where a training was right, 0 where it was wrong, NaN where it did not test an image.

        Raises
        ------
        InputError
            If it tested others.
        """
        found = np.full(self.images.size, np.nan)
        place = np.searchsorted(self.images, predictions["image"])
        if not np.array_equal(self.images[np.minimum(place, self.images.size - 1)], predictions["image"]):
            raise InputError("trainings of one experiment were judged on other images")
        found[place] = predictions["correct"]
        return found


def tested(predictions: Sequence[Mapping[str, np.ndarray]]) -> Tested:
    """All images that any of the trainings has tested: with folds each tests some, else all test the same.

    Parameters
    ----------
    predictions
        Columns ``image`` and ``label`` of the table of predictions, a training each; one at least.
    """
    images, first = np.unique(np.concatenate([each["image"] for each in predictions]), return_index=True)
    return Tested(images, np.concatenate([each["label"] for each in predictions])[first])
