"""Which filters stay: how many of each layer, and whether the criteria agree on which."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from winnow.answers import analysis, summary
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group
from winnow.workflow.grid import ANY, RANDOM, REVERSED, is_control

# (criterion, ratio) → its masks, (units,) bool each: one, or one a seed for the control.
Masks = Mapping[tuple[str, float], Sequence[np.ndarray]]

_PANELS_A_ROW = 4
_CHANCE = "by chance"
_LAYERS = alt.Axis(title=None, domain=False, ticks=False, labelLimit=160)


def kept_by_layer(layers: np.ndarray, masks: Masks, dataset: str, backbone: str, scope: str) -> Figure:
    """How many filters of each layer stay, a heat map of layers × ratios a criterion.

    Where all criteria keep equally many, as by layer, one panel says so for all.
    """
    widths = pd.concat(
        [
            analysis.kept_by_layer(layers, keeps).assign(criterion=criterion, ratio=ratio)
            for (criterion, ratio), keeps in masks.items()
        ]
    )
    criteria = look.ordered(widths["criterion"])
    counts = widths.assign(kept=widths["kept"].round(6)).groupby(["layer", "ratio"])["kept"]
    alike = counts.nunique().max() == 1
    headings = {"every criterion": criteria[0]} if alike else {summary.label(name): name for name in criteria}
    names, ratios = list(dict.fromkeys(layers)), sorted(set(widths["ratio"]))
    widths = widths.assign(
        removed=[f"{ratio:g}" for ratio in widths["ratio"]],
        percent=100 * widths["share"],
        depth=widths["share"],
        number=[f"{kept:.0f}" for kept in widths["kept"]],
    )
    x = alt.X("removed:O", title="Ratio", axis=alt.Axis(labelAngle=0, domain=False, ticks=False), sort=None)
    colour = alt.Color(
        "percent:Q",
        title="Filters kept (%)",
        scale=alt.Scale(scheme="blues", domain=[0, 100]),
        legend=alt.Legend(gradientLength=140, tickCount=5),
    )
    panels = []
    for number, (heading, criterion) in enumerate(headings.items()):
        axis = _LAYERS if number % _PANELS_A_ROW == 0 else None
        panel = look.numbered_cells(
            widths[widths["criterion"] == criterion].sort_values("ratio", kind="stable"),
            x,
            alt.Y("layer:N", sort=names, axis=axis),
            colour,
            "number",
            9,
        )
        panels.append(
            panel.properties(
                width=27 * len(ratios), height=18 * len(names), title=look.heading_of_panel(heading.capitalize())
            )
        )
    sentence = _widths_sentence(widths, criteria, dataset, scope)
    notes = [f"{backbone}; numbers: filters that stay" + ("" if RANDOM not in criteria else ", the control's a mean")]
    return Figure(
        f"{dataset}-{backbone}-{scope}-widths",
        Group.KEPT,
        sentence,
        "Each cell is a layer (row, the first layer on top) under a mask (column): the number of filters that stay, "
        "coloured by their share of the layer.",
        look.dressed(
            alt.concat(*panels, columns=_PANELS_A_ROW, spacing=14),
            sentence,
            notes,
            27 * len(ratios) * min(len(panels), _PANELS_A_ROW) + 240,
        ),
    )


def _widths_sentence(widths: pd.DataFrame, criteria: list[str], dataset: str, scope: str) -> str:
    """The layer on which two criteria differ most; of one criterion, the layers that it cuts most and least."""
    ratio = summary.headline_ratio(widths["ratio"])
    compared = [name for name in criteria if not is_control(name)] or criteria
    shares = (
        widths[(widths["ratio"] == ratio) & widths["criterion"].isin(compared)]
        .pivot(index="layer", columns="criterion", values="percent")
        .reindex(dict.fromkeys(widths["layer"]))
    )
    start = f"{summary.title(dataset)}, {summary.SCOPE_NAMES[scope]}: at ratio {ratio:g}"
    spread = shares.max(axis=1) - shares.min(axis=1)
    layer = spread.idxmax()
    if spread[layer] < 1:
        row = shares.mean(axis=1)
        if row.max() - row.min() < 5:
            return f"{start} every layer keeps {row.mean():.0f} % of its filters"
        who = "every criterion" if len(compared) > 1 else summary.label(compared[0])
        low, high = row.idxmin(), row.idxmax()
        return f"{start} {who} keeps {row[low]:.0f} % of {low}, but {row[high]:.0f} % of {high}"
    most, least = shares.loc[layer].idxmax(), shares.loc[layer].idxmin()
    return (
        f"{start} {summary.label(most)} keeps {shares.loc[layer, most]:.0f} % of {layer}, "
        f"{summary.label(least)} {shares.loc[layer, least]:.0f} %"
    )


def rank_correlation(
    layers: np.ndarray, scores: Mapping[str, np.ndarray], dataset: str, backbone: str
) -> Figure | None:
    """Spearman's correlation of every two criteria's scores, over all filters and within each layer.

    Returns
    -------
    Figure or None
        None without two criteria beside random and reversed ones, or where none of the correlations is defined.
    """
    compared = {name: scores[name] for name in look.ordered(scores) if _has_an_order_of_its_own(name)}
    found = analysis.rank_correlations(layers, compared)
    overall = found[found["layer"].isna()].dropna(subset="correlation").sort_values("correlation", kind="stable")
    if overall.empty:
        return None
    everything = "all filters"
    names = [everything, *dict.fromkeys(layers)]
    pairs = [f"{summary.label(a)} / {summary.label(b)}" for a, b in itertools.combinations(compared, 2)]
    data = found.assign(
        layer=found["layer"].fillna(everything),
        pair=[f"{summary.label(a)} / {summary.label(b)}" for a, b in zip(found["first"], found["second"], strict=True)],
        depth=found["correlation"].abs().fillna(0),
        number=[_signed(value) for value in found["correlation"]],
    )
    # A name a line where there is room for it.
    roomy = len(pairs) <= 6
    axis = alt.Axis(orient="top", labelAngle=0 if roomy else -50, domain=False, ticks=False, labelLimit=300)
    if roomy:
        axis.labelExpr, axis.labelPadding = "split(datum.label, ' / ')", 18
    width = (96 if roomy else 40) * len(pairs)
    panel = look.numbered_cells(
        data,
        alt.X("pair:N", sort=pairs, title=None, axis=axis),
        alt.Y("layer:N", sort=names, axis=_LAYERS),
        alt.Color(
            "correlation:Q",
            title="Rank correlation",
            scale=alt.Scale(scheme="blueorange", domain=[-1, 1], reverse=True),
            legend=alt.Legend(gradientLength=140, values=[-1, -0.5, 0, 0.5, 1], format=".1f"),
        ),
        "number",
        10,
    ).properties(width=width, height=20 * len(names))
    most, least = overall.iloc[-1], overall.iloc[0]
    sentence = f"{summary.title(dataset)}: {_pair(most)} rank the filters "
    if len(overall) == 1:
        sentence += f"with a Spearman correlation of {_signed(most['correlation'])}"
    else:
        sentence += f"most alike (Spearman {_signed(most['correlation'])}), "
        sentence += f"{_pair(least)} least ({_signed(least['correlation'])})"
    return Figure(
        f"{dataset}-{backbone}-correlation",
        Group.AGREEMENT,
        sentence,
        "Spearman's rank correlation of two criteria's scores (column) over all filters and within each layer (row): 1 "
        "where both put the filters in the same order, 0 where their orders have nothing to do with each other. Masks "
        "by layer depend on the order within layers only.",
        look.dressed(panel, sentence, [backbone], width + 240),
    )


def _has_an_order_of_its_own(criterion: str) -> bool:
    """Neither drawn, nor another's order backwards. What the images of another data set give is worth comparing."""
    return criterion not in (RANDOM, ANY) and not criterion.startswith(REVERSED)


def _pair(row: pd.Series) -> str:
    return f"{summary.label(row['first'])} and {summary.label(row['second'])}"


def _signed(correlation: float) -> str:
    # + 0.0: no "−0.00"
    return "–" if pd.isna(correlation) else f"{round(correlation, 2) + 0.0:.2f}".replace("-", "−")


def overlap(layers: np.ndarray, masks: Masks, dataset: str, backbone: str, scope: str) -> Figure | None:
    """The share of kept filters that two criteria have in common, against the ratio and against chance.

    A panel a criterion, with a line for each of the others; two criteria need one.

    Returns
    -------
    Figure or None
        None without two criteria beside random and reversed ones.
    """
    criteria = [name for name in look.ordered(name for name, _ in masks) if _has_an_order_of_its_own(name)]
    ratios = sorted({ratio for _, ratio in masks})
    groups = layers if scope == "layer" else np.zeros(len(layers))
    rows = []
    for (first, second), ratio in itertools.product(itertools.combinations(criteria, 2), ratios):
        if (first, ratio) in masks and (second, ratio) in masks:
            (a,), (b,) = masks[first, ratio], masks[second, ratio]
            found = {
                "ratio": ratio,
                "common": 100 * analysis.overlap(a, b),
                "chance": 100 * analysis.chance_overlap(a, b, groups),
            }
            rows += [{"panel": first, "other": second, **found}, {"panel": second, "other": first, **found}]
    if not rows:
        return None
    data = pd.DataFrame(rows)
    data["criterion"] = data["other"].map(summary.label)
    shown = criteria[:1] if len(criteria) == 2 else criteria
    columns = min(len(shown), _PANELS_A_ROW)
    width = look.WIDTH if columns == 1 else look.WIDTH * 5 // (8 if columns == 2 else 11)
    styles = look.styles(data.loc[data["panel"].isin(shown), "other"])
    styles[_CHANCE] = (*look.LOOKS[RANDOM], look.DASHED)
    panels = [
        _overlap_panel(data[data["panel"] == name], styles, first=number % columns == 0).properties(
            width=width,
            height=look.HEIGHT * 3 // 4,
            title=look.heading_of_panel(f"{summary.label(name).capitalize()} and …"),
        )
        for number, name in enumerate(shown)
    ]
    ratio = summary.headline_ratio(data["ratio"])
    row = data[data["ratio"] == ratio].sort_values("common", ascending=False, kind="stable").iloc[0]
    sentence = (
        f"{summary.title(dataset)}, {summary.SCOPE_NAMES[scope]}: {summary.label(row['panel'])} and "
        f"{row['criterion']} keep {row['common']:.0f} % of the same filters at ratio {ratio:g}; by chance it would be "
        f"{row['chance']:.0f} %"
    )
    return Figure(
        f"{dataset}-{backbone}-{scope}-overlap",
        Group.AGREEMENT,
        sentence,
        "Of the filters that the criterion of a panel keeps, the share that another criterion (line) keeps too. The "
        "dashed gray line is what two masks of the same sizes would have in common by chance.",
        look.dressed(alt.concat(*panels, columns=columns, spacing=16), sentence, [backbone], width * columns + 90),
    )


def _overlap_panel(data: pd.DataFrame, styles: look.Styles, first: bool) -> alt.LayerChart | alt.FacetChart:
    # Which pair it is taken from hardly matters: without rounding, all masks of a ratio keep equally many.
    chance = data.groupby("ratio", as_index=False)["chance"].mean().rename(columns={"chance": "common"})
    colour, shape, dash = look.series(styles)
    y = alt.Y(
        "common:Q",
        title="Kept filters in common (%)" if first else None,
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(values=list(range(0, 101, 20))),
    )
    lines = alt.Chart(pd.concat([chance.assign(criterion=_CHANCE), data])).encode(
        x=look.ratio_axis("ratio", "Ratio", tenths=2), y=y, color=colour
    )
    tooltip = ["criterion:N", "ratio:Q", alt.Tooltip("common:Q", format=".1f")]
    return alt.layer(
        lines.mark_line(strokeWidth=1.8).encode(strokeDash=dash),
        lines.mark_point(size=50, filled=True, opacity=1).encode(shape=shape, tooltip=tooltip),
    )
