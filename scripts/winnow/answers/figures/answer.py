"""The one picture that a report opens with: how small against how often right, and what may be lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from winnow.answers import words
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group

# Name of a network → colour, shape and size of its mark. Colours as in the other figures, told apart by shape too.
LOOKS = {
    "your network": ("#000000", "triangle-down", 150),
    "chosen": ("#0072B2", "diamond", 190),
    "in int8": ("#6A3D9A", "square", 120),
    **dict.fromkeys(words.STEPS, ("#D55E00", "circle", 120)),
    "also tested": ("#9A9A9A", "circle", 45),
}
YOURS, CHOSEN, INT8, *_, OTHER = LOOKS
ALLOWED, LIMIT = "#009E73", "#00664B"
# Small, with large letters: it is read on a phone, too, and a page scales it up.
WIDTH, HEIGHT = 420, 290
# Sizes that differ by more are drawn on a logarithmic scale.
LINEAR = 4.0
# Networks that lose more than so many times the tolerance are not worth the room that they would take.
DEPTH = 4.0
# Measure → what an amount of it is divided by, and the axis that it stands on.
_AXES = {
    "bytes": (1e6, "Size of the network's file (MB)"),
    "latency_ms": (1.0, "Time for one image (ms)"),
    "params": (1e6, "Weights (millions)"),
    "macs": (1e6, "Multiplications for one image (millions)"),
}


def picture(
    answer: Mapping[str, Any], others: Iterable[Mapping[str, Any]] = (), int8: Mapping[str, Any] | None = None
) -> Figure | None:
    """An answer's networks: size on one axis, share of right answers with its interval on the other.

    The unpruned network, the chosen one, the next smaller one and, in gray, the others that were judged. A bar is the
    unpruned network's accuracy less the interval of the drop, so that a network is within the tolerance where its bar
    stays above the dashed line; a thin one is that of the mean over classes.

    Parameters
    ----------
    answer
        As :mod:`winnow.answers.words` takes it.
    others
        What its ``chosen`` has of each: sizes, ``accuracy``, ``low``, ``high``, ``class_low`` and ``class_high``.
    int8
        The certificate of the chosen network's int8 file, which is drawn where size is that of the file: its drop, and
        the interval of that over images alone, below the unpruned network's accuracy.

    Returns
    -------
    Figure or None
        None where no network was chosen, or none of its trainings went well. Size is that of the file or, with a
        budget, what the budget is of.
    """
    if answer["chosen"] is None or answer["chosen"]["accuracy"] is None:
        return None
    budget, tolerance = answer["budget"], answer["tolerance"]
    measure = budget["measure"] if budget else "bytes"
    unit, title = _AXES[measure]
    data = _points(answer, others, measure, unit, int8)
    limit = [budget["limit"] / unit] if budget else []
    x_scale, ends = _size_scale([*data["size"], *limit])
    bounds = data.loc[data["network"] != OTHER, ["low", "high", "class_low", "class_high"]]
    top = 100 * answer["unpruned"]["accuracy"]
    low, high = min(bounds.min().min(), top - 1.25 * tolerance), max(bounds.max().max(), top)
    room = 0.12 * (high - low)
    y_scale = alt.Scale(domain=[low - room / 2, high + room], zero=False, nice=False)
    x = alt.X("size:Q", title=title, scale=x_scale, axis=alt.Axis(format="~r", tickCount=6, grid=False))
    layers = [
        *_allowed(top, tolerance, ends, x_scale, y_scale),
        *[_rule(pd.DataFrame({"size": [each]}), look.FAINT, x=x) for each in limit],
        *_networks(data, x, y_scale),
        *_names(data[data["network"] != OTHER], x, y_scale, ends),
    ]
    sentence = "How small, and how often right"
    sure = f"{100 * (2 * answer['confidence'] - 1):.0f} of 100 such bars hold the true value"
    return Figure(
        f"{answer['dataset']}-{answer['backbone']}-answer",
        Group.ANSWER,
        sentence,
        "Further left is smaller, higher is better. A network whose whole bar stays above the dashed line surely loses "
        f"less than {words.points(tolerance)}; where the bar crosses it, that is not certain. Thick: of all images; "
        "thin: of the mean over classes, in which a rare class counts as much as a frequent one.",
        look.dressed(
            alt.layer(*layers).properties(width=WIDTH, height=HEIGHT), sentence, [words.subject(answer), sure], WIDTH
        ),
    )


def _points(
    answer: Mapping[str, Any],
    others: Iterable[Mapping[str, Any]],
    measure: str,
    unit: float,
    int8: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """A row a network: ``network``, ``size`` in the axis's unit, and in % ``accuracy`` and the ends of its bars."""
    whole = answer["unpruned"]
    named = [(YOURS, whole), (CHOSEN, answer["chosen"])]
    named += [(words.step(answer), answer["smaller"])] if answer["smaller"] else []
    drawn = {network.get("cell") for _, network in named if network}
    if int8 and int8["drop"] is not None and measure == "bytes":
        # One file: what is known of it is a drop, whatever its own training has come to.
        bounds = {f"{prefix}{end}": int8[end] for prefix in ("", "class_") for end in ("low", "high")}
        named.append((INT8, {"bytes": int8["bytes"], "accuracy": whole["accuracy"] - int8["drop"], **bounds}))
    named += [(OTHER, network) for network in others if network["cell"] not in drawn]
    rows = []
    for name, network in named:
        if network and network[measure] is not None and network["accuracy"] is not None:
            row = {"network": name, "size": network[measure] / unit, "accuracy": 100 * network["accuracy"]}
            for prefix in "", "class_":
                # Of the unpruned network there is no drop, and no bar.
                low, high = (network.get(f"{prefix}{end}", 0.0) for end in ("low", "high"))
                row |= {f"{prefix}low": 100 * (whole["accuracy"] - high)}
                row |= {f"{prefix}high": 100 * (whole["accuracy"] - low)}
            rows.append(row | {"mark": LOOKS[name][2]})
    data = pd.DataFrame(rows)
    floor = 100 * whole["accuracy"] - DEPTH * max(answer["tolerance"], 1.0)
    return data[(data["network"] != OTHER) | (data["accuracy"] >= floor)]


def _allowed(
    top: float, tolerance: float, ends: tuple[float, float], x_scale: alt.Scale, y_scale: alt.Scale
) -> list[alt.Chart]:
    """The unpruned network's accuracy as a line, and below it what may be lost, as a band with its limit."""
    band = pd.DataFrame({"left": [ends[0]], "right": [ends[1]], "bottom": [top - tolerance], "top": [top]})
    upper, lower = (alt.Y(f"{end}:Q", scale=y_scale) for end in ("top", "bottom"))
    chart = alt.Chart(band)
    label = chart.mark_text(align="right", baseline="top", dx=-4, dy=5, fontSize=12, color=LIMIT)
    return [
        chart.mark_rect(color=ALLOWED, opacity=0.10).encode(
            x=alt.X("left:Q", scale=x_scale), x2="right:Q", y=lower, y2="top:Q"
        ),
        _rule(band, "#9A9A9A", look.SOLID, y=upper),
        _rule(band, LIMIT, y=lower),
        label.encode(x=alt.value(WIDTH), y=lower, text=alt.value(f"{words.points(tolerance)} less, the limit")),
    ]


def _networks(data: pd.DataFrame, x: alt.X, y_scale: alt.Scale) -> list[alt.Chart]:
    """Marks and bars."""
    names = [name for name in LOOKS if name in set(data["network"])]
    colours, shapes = (alt.Scale(domain=names, range=[LOOKS[name][place] for name in names]) for place in range(2))
    colour = alt.Color("network:N", scale=colours, legend=None)
    bars, tooltip = alt.Chart(data[data["network"] != YOURS]), [alt.Tooltip("network:N")]
    tooltip += [alt.Tooltip(f"{name}:Q", title=said, format=form) for name, (said, form) in _TOLD.items()]
    y = alt.Y("accuracy:Q", title="Right answers on the test images (%)", scale=y_scale)
    shape = alt.Shape("network:N", scale=shapes, legend=None)
    return [
        bars.mark_rule(strokeWidth=width, clip=True, strokeCap="round").encode(
            x=x, y=alt.Y(f"{prefix}low:Q", scale=y_scale), y2=f"{prefix}high:Q", color=colour
        )
        for prefix, width in (("class_", 1.0), ("", 3.5))
    ] + [
        alt.Chart(data)
        .mark_point(filled=True, opacity=1, clip=True)
        .encode(x=x, y=y, color=colour, shape=shape, size=alt.Size("mark:Q", scale=None, legend=None), tooltip=tooltip)
    ]


def _names(data: pd.DataFrame, x: alt.X, y_scale: alt.Scale, ends: tuple[float, float]) -> list[alt.Chart]:
    """Each network's name above the highest of what belongs to it; one at an edge leans inwards."""
    data = data.assign(above=data[["accuracy", "high", "class_high"]].max(axis=1))
    place = {"x": x, "y": alt.Y("above:Q", scale=y_scale), "text": "network:N"}
    texts = []
    for name, row in data.groupby("network", sort=False):
        chart = alt.Chart(row)
        letters: dict[str, Any] = {"baseline": "bottom", "dy": -9, "fontSize": 13, "fontWeight": 600}
        letters["align"] = _lean(float(row["size"].iloc[0]), ends)
        # Other networks' bars may pass behind it.
        texts.append(chart.mark_text(**letters, stroke="white", strokeWidth=4).encode(**place))
        texts.append(chart.mark_text(**letters, color=LOOKS[name][0]).encode(**place))
    return texts


_TOLD = {
    "size": ("size", ".3~r"),
    "accuracy": ("right, %", ".1f"),
    "low": ("at least, %", ".1f"),
    "high": ("at most, %", ".1f"),
}


def _size_scale(sizes: Sequence[float]) -> tuple[alt.Scale, tuple[float, float]]:
    """The scale of sizes, with room at both ends, and its ends; logarithmic where they differ much."""
    smallest, largest = min(sizes), max(sizes)
    if largest > LINEAR * smallest:
        room = (largest / smallest) ** 0.08
        ends = smallest / room, largest * room
        return alt.Scale(type="log", domain=list(ends), nice=False), ends
    room = 0.08 * (largest - smallest) or 0.1 * largest
    ends = smallest - room, largest + room
    return alt.Scale(domain=list(ends), zero=False, nice=False), ends


def _lean(size: float, ends: tuple[float, float]) -> str:
    """To which side of its place a name at this size is written."""
    share = (size - ends[0]) / (ends[1] - ends[0])
    if ends[1] > LINEAR * ends[0]:
        share = math.log(size / ends[0]) / math.log(ends[1] / ends[0])
    return "left" if share < 0.12 else "right" if share > 0.88 else "center"


def _rule(data: pd.DataFrame, colour: str, dash: list[int] = look.DASHED, **place: Any) -> alt.Chart:
    return alt.Chart(data).mark_rule(color=colour, strokeDash=dash, strokeWidth=1.3).encode(**place)
