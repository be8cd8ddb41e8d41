"""Which classes excite which filters, and how class-specific each layer is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from winnow.answers import analysis, summary
from winnow.answers.analysis import Responses
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group

# What of a layer a map shows, so that it stays legible and its file small: this many filters and classes.
MAP_FILTERS = 48
MAP_CLASSES = 120
# Up to here maps stand side by side, above it one over the other.
_FEW_CLASSES = 12


def class_specificity(responses: Sequence[Responses], dataset: str, backbone: str) -> Figure | None:
    """How class-specific each layer's filters are: two measures, their median and spread over the filters.

    Returns
    -------
    Figure or None
        None with fewer than two classes, or where no filter ever answers.
    """
    heard = [layer for layer in responses if layer.sum.any()]
    if not heard or heard[0].classes.size < 2:
        return None
    selectivity = [analysis.class_selectivity(layer.means) for layer in heard]
    measures = {
        "Class-selectivity index": selectivity,
        "Share of variance between classes (η²)": [analysis.between_class_share(layer) for layer in heard],
    }
    names = [layer.layer for layer in heard]
    panels: list[alt.LayerChart | alt.FacetChart] = []
    for title, values in measures.items():
        data = pd.DataFrame([_quantiles(of_layer) for of_layer in values]).assign(layer=names).dropna()
        y = alt.Y("layer:N", sort=names, axis=alt.Axis(title=None, labelLimit=160) if not panels else None)
        base = alt.Chart(data).encode(y=y)
        scale = alt.Scale(domain=[0, _rounded_up(data["q90"].max())])
        x: dict[str, Any] = {"title": title, "scale": scale, "axis": alt.Axis(labelFlush=False)}
        tooltip = [alt.Tooltip("layer:N"), *(alt.Tooltip(f"{name}:Q", format=".3f") for name in data.columns[:-1])]
        panels.append(
            alt.layer(
                base.mark_rule(color=look.LOOKS["apoz"][0], strokeWidth=1.2).encode(x=alt.X("q10:Q", **x), x2="q90:Q"),
                base.mark_bar(color="#9CC3DE", height=9).encode(x=alt.X("q25:Q", **x), x2="q75:Q"),
                base.mark_point(color=look.LOOKS["apoz"][0], filled=True, size=60, opacity=1).encode(
                    x=alt.X("median:Q", **x), tooltip=tooltip
                ),
            ).properties(width=look.WIDTH * 5 // 8, height=20 * len(names))
        )
    medians = [float(np.nanmedian(values)) for values in selectivity]
    most = int(np.argmax(medians))
    sentence = (
        f"{summary.title(dataset)}: {names[most]} is the most class-specific layer, with a median selectivity of "
        f"{medians[most]:.2f}; {names[0]} has {medians[0]:.2f}"
        if most
        else f"{summary.title(dataset)}: no layer is more class-specific than the first, {names[0]}, with a median "
        f"selectivity of {medians[0]:.2f}"
    )
    units = sum(len(layer.sum) for layer in responses)
    silent = units - sum(np.count_nonzero(~np.isnan(values)) for values in selectivity)
    notes = ["Dots: median filter; bars: middle half; lines: from the 10th to the 90th percentile"]
    notes.append(f"{backbone}, pretrained; {responses[0].classes.size} classes, training images")
    if silent:
        notes.append(f"{silent} of {units} filters never answer and are left out")
    return Figure(
        f"{dataset}-{backbone}-specificity",
        Group.SPECIFICITY,
        sentence,
        "Left, the class-selectivity index (Morcos et al. 2018): 0 where all classes excite a filter alike, 1 where "
        "one class does alone; few images a class raise it, of a filter that knows no class, too. Right, η²: the share "
        "of an output's variance over images and positions that lies between classes.",
        look.dressed(alt.hconcat(*panels, spacing=18), sentence, notes, look.WIDTH * 5 // 4 + 110),
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    known = values[~np.isnan(values)]
    names = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
    return {name: float(np.quantile(known, share)) if known.size else np.nan for name, share in names.items()}


def _rounded_up(value: float) -> float:
    """The end of an axis from 0: at most 1."""
    return next(end for end in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if value <= end or end == 1.0)


def activation_map(
    responses: Sequence[Responses], class_names: Sequence[str], dataset: str, backbone: str
) -> Figure | None:
    """Filters × classes of an early, a middle and a late layer: each filter's mean output on each class.

    Of a layer's filters the :data:`MAP_FILTERS` most class-specific are shown, of more than :data:`MAP_CLASSES` classes
    those that excite the late layer's filters most. Values are shares of the filter's largest class mean. Similar
    filters are neighbours; the classes' order puts those together that the late layer answers alike.

    Returns
    -------
    Figure or None
        None with fewer than two classes, or where all filters of the late layer are silent.
    """
    if responses[0].classes.size < 2:
        return None
    chosen = dict.fromkeys([0, len(responses) // 2, len(responses) - 1])
    tops = {number: _most_specific(responses[number]) for number in chosen}
    tops = {number: filters for number, filters in tops.items() if filters.size}
    if len(responses) - 1 not in tops:
        return None
    shares = {
        number: (means := responses[number].means[filters]) / means.max(axis=1, keepdims=True)
        for number, filters in tops.items()
    }
    late = shares[len(responses) - 1]
    columns = np.sort(np.argsort(-late.max(axis=0), kind="stable")[:MAP_CLASSES])
    columns = columns[analysis.clustered(late[:, columns].T)]
    classes = [class_names[number] for number in responses[0].classes[columns]]

    few = len(classes) <= _FEW_CLASSES
    cell_width = 22 if few else 8
    panels = [
        _map_panel(
            responses[number], filters, shares[number][:, columns], classes, cell_width, few or number == max(tops)
        )
        for number, filters in tops.items()
    ]
    selectivity = analysis.class_selectivity(responses[-1].means[tops[len(responses) - 1]])
    median = float(np.median(selectivity))
    # m₁ / m₀ of the index.
    times = f"{(1 + median) / (1 - median):.1f} times as strongly as the others" if median < 1 else "and no other"
    shown = max(filters.size for filters in tops.values())
    sentence = (
        f"{summary.title(dataset)}: the {selectivity.size} most class-specific filters of {responses[-1].layer} answer "
        f"their best class {times}"
    )
    notes = [f"{backbone}, pretrained; of each layer the up to {shown} most class-specific filters"]
    if len(classes) < responses[0].classes.size:
        notes.append(f"{len(classes)} of {responses[0].classes.size} classes: those that excite these filters most")
    chart = (alt.hconcat if few else alt.vconcat)(*panels, spacing=22)
    width = (cell_width * len(classes) + 60) * (len(panels) if few else 1) + 130
    return Figure(
        f"{dataset}-{backbone}-activations",
        Group.SPECIFICITY,
        sentence,
        "Mean output of a filter (row) on the training images of a class (column), as a share of that filter's "
        "largest: an evenly dark row answers all classes alike, a single dark cell one class. Similar filters, and "
        "classes that the last layer answers alike, are put together; the classes have the same order in all maps.",
        look.dressed(chart, sentence, notes, max(width, 420)),
    )


def _most_specific(layer: Responses) -> np.ndarray:
    """The layer's most class-specific filters that answer at all, similar ones together."""
    selectivity = analysis.class_selectivity(layer.means)
    order = np.argsort(-np.nan_to_num(selectivity, nan=-1), kind="stable")[: int((~np.isnan(selectivity)).sum())]
    filters = np.sort(order[:MAP_FILTERS])
    if not filters.size:
        return filters
    means = layer.means[filters]
    return filters[analysis.clustered(means / means.max(axis=1, keepdims=True))]


def _map_panel(
    layer: Responses, filters: np.ndarray, shares: np.ndarray, classes: list[str], cell_width: int, labelled: bool
) -> alt.Chart:
    """One layer's map. Rows of data are kept short: there are thousands of them."""
    row, column = (index.ravel() for index in np.indices(shares.shape))
    data = pd.DataFrame({"f": filters[row], "c": column, "v": shares.ravel().round(3)})
    cell_height = 7
    return (
        alt.Chart(alt.Data(values=data.to_dict("records")))
        .transform_calculate(name=f"{json.dumps(classes)}[datum.c]")
        .mark_rect(aria=False)
        .encode(
            x=alt.X(
                "name:N",
                sort=classes,
                title=None,
                axis=alt.Axis(labelAngle=-90, labelFontSize=min(11, cell_width), labelLimit=110, ticks=False)
                if labelled
                else None,
            ),
            y=alt.Y(
                "f:N",
                sort=[int(number) for number in filters],
                title="Filters",
                axis=alt.Axis(labels=False, ticks=False),
            ),
            color=alt.Color(
                "v:Q",
                title=["Share of the", "filter's largest"],
                scale=alt.Scale(scheme="blues", domain=[0, 1]),
                legend=alt.Legend(gradientLength=100, tickCount=3),
            ),
            tooltip=[
                alt.Tooltip("f:N", title="filter"),
                alt.Tooltip("name:N", title="class"),
                alt.Tooltip("v:Q", title="share"),
            ],
        )
        .properties(
            width=cell_width * len(classes),
            height=cell_height * len(filters),
            title=look.heading_of_panel(f"{layer.layer}: {len(filters)} of {layer.sum.shape[0]}"),
        )
    )
