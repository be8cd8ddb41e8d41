"""Which classes a network takes for which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group

# More classes than these make a figure that no page holds.
SHOWN = 30
RIGHT, WRONG = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def confusion(shares: np.ndarray, classes: Sequence[str], name: str, note: str) -> Figure | None:
    """A confusion matrix: of the images of each class (row), which share is taken for which class (column).

    Right answers are blue, wrong ones orange; a cell is the darker, the larger its share, small ones lifted by a square
    root. A share that rounds to 0 % has no number.

    Parameters
    ----------
    shares : (C, C)
        Rows add up to 1; a row of NaN is of a class without test images, and is left out.
    name
        Of the figure.
    note
        Whose images and network these are.

    Returns
    -------
    Figure or None
        None where there are more than :data:`SHOWN` classes.
    """
    if len(classes) > SHOWN:
        return None
    rows = []
    for label, taken in zip(*np.nonzero(~np.isnan(shares)), strict=True):
        share = float(shares[label, taken])
        percent = round(100 * share)
        rows.append(
            {
                "class": classes[label],
                "taken for": classes[taken],
                "percent": 100 * share,
                "text": str(percent) if percent else "",
                "depth": math.sqrt(share),
                "fill": _mixed(RIGHT if label == taken else WRONG, math.sqrt(share)),
            }
        )
    side = 44 if len(classes) <= 12 else 25
    angle = 0 if max(map(len, classes)) * 7 < side else -45
    x_axis, y_axis = (alt.Axis(labelLimit=150, ticks=False, domain=False, labelAngle=each) for each in (angle, 0))
    chart = look.numbered_cells(
        pd.DataFrame(rows),
        alt.X("taken for:N", title="taken for", sort=list(classes), axis=x_axis),
        alt.Y("class:N", title="images of", sort=list(classes), axis=y_axis),
        alt.Color("fill:N", scale=None, legend=None),
        "text",
        11 if side > 30 else 9,
    ).encode(tooltip=["class:N", "taken for:N", alt.Tooltip("percent:Q", format=".1f", title="of its images, %")])
    size = side * len(classes)
    return Figure(
        name,
        Group.ANSWER,
        "What it takes for what",
        "Of the test images of the class at the left, how many percent the smaller network takes for the class below. "
        "Blue: right; orange: wrong.",
        look.dressed(
            chart.properties(width=size, height=size), "What it takes for what, % of a class", [note], size + 120
        ),
    )


def _mixed(colour: tuple[int, int, int], depth: float) -> str:
    """The colour on white, by how much of it there is."""
    return "#" + "".join(f"{round(255 + depth * (part - 255)):02X}" for part in colour)
