"""What the surviving filters' weights are worth: inherited against random ones."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from winnow.answers import summary
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group
from winnow.workflow.grid import UNPRUNED, is_control


def inherited_less_random(gains: pd.DataFrame, dataset: str, backbone: str) -> Figure:
    """How much more accurate networks with inherited weights are, against the ratio, a panel a scope.

    Parameters
    ----------
    gains
        Of one data set and backbone: a row a network with inherited weights that has a twin with random ones; columns
        ``criterion``, ``scope`` (``none`` for the unpruned network, which belongs in each panel), ``ratio``, ``gain``,
        ``low``, ``high`` (points; NaN without an interval) and ``seeds``. One must be of a pruned network.
    """
    scopes = [scope for scope in summary.SCOPE_NAMES if scope in set(gains["scope"])]
    names = ["unpruned" if name == UNPRUNED else summary.label(name) for name in gains["criterion"]]
    styles = look.styles(gains["criterion"])
    styles = {("unpruned" if key == look.legend_entry(UNPRUNED) else key): value for key, value in styles.items()}
    data = gains.assign(criterion=names)
    width = look.WIDTH if len(scopes) == 1 else look.WIDTH * 3 // 4
    x = look.ratio_axis("ratio", "Share of filters to remove")
    extent = [min(0.0, data[["gain", "low"]].min(axis=None)), max(0.0, data[["gain", "high"]].max(axis=None))]
    panels = {}
    for scope in scopes:
        title = "Gain of accuracy from inherited weights (points)" if scope == scopes[0] else None
        y = alt.Y("gain:Q", title=title, scale=alt.Scale(domain=extent))
        panels[summary.title(summary.SCOPE_NAMES[scope])] = alt.layer(
            *_layers(data[data["scope"].isin([scope, "none"])], styles, x, y)
        ).properties(width=width, height=look.HEIGHT)

    pruned = gains[(gains["scope"] != "none") & ~gains["criterion"].map(is_control)]
    pruned = pruned if len(pruned) else gains[gains["scope"] != "none"]
    ratio = summary.headline_ratio(pruned["ratio"])
    row = pruned[pruned["ratio"] == ratio].sort_values("gain", ascending=False, kind="stable").iloc[0]
    kind = "gain" if row["gain"] >= 0 else "lose"
    sentence = (
        f"{summary.title(dataset)}: at ratio {ratio:g}, inherited weights {kind} {abs(row['gain']):.1f} points over "
        f"random ones under {summary.label(row['criterion'])}, {summary.SCOPE_NAMES[row['scope']]}"
    )
    seeds = int(gains["seeds"].max())
    notes = [f"{backbone}; {f'bars: 95 % interval over {seeds} seeds' if seeds > 1 else 'one seed, hence no interval'}"]
    return Figure(
        f"{dataset}-{backbone}-weights",
        Group.WEIGHTS,
        sentence,
        "Test accuracy of the pruned network that keeps its pretrained weights, less that of the same architecture "
        "started from random weights; paired by seed, with the same data, recipe and widths. Above zero, the weights "
        "that survive are worth something.",
        look.dressed(look.side_by_side(panels), sentence, notes, width * len(panels) + 80),
    )


def _layers(data: pd.DataFrame, styles: look.Styles, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    colour, shape, dash = look.series(styles)
    tooltip = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("gain", "low", "high")]
    chart = alt.Chart(data)
    layers = [
        alt.Chart(pd.DataFrame({"gain": [0.0]})).mark_rule(color=look.INK, strokeWidth=1.3).encode(y=y),
        chart.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash),
        chart.mark_point(size=55, filled=True, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=["criterion:N", "ratio:Q", *tooltip, "seeds:Q"]
        ),
    ]
    spread = data[np.isfinite(data["low"])]
    if len(spread):
        bars = alt.Chart(spread).mark_rule(strokeWidth=1.5, opacity=0.6)
        layers.insert(1, bars.encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour))
    return layers
