"""An experiment's figures: Altair charts made from its summary, legible in print and for the colour-blind."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import altair as alt
import pandas as pd

from winnow import summary
from winnow.files import InputError, atomic_path
from winnow.grid import ANY, RANDOM, UNPRUNED

# Colours of Okabe & Ito, "Color Universal Design" (2008), told apart with any colour vision; the control, which is not
# one of those compared, is gray and dashed. Shapes tell the series apart where colour does not.
_LOOKS = {
    "apoz": ("#0072B2", "circle"),
    "mean_activation": ("#D55E00", "square"),
    "average_weight": ("#009E73", "triangle-up"),
    ANY: ("#CC79A7", "diamond"),
    RANDOM: ("#6E6E6E", "cross"),
    UNPRUNED: ("#000000", "triangle-down"),
}
_SPARE_LOOKS = (
    *(("#E69F00", "triangle-down"), ("#56B4E9", "diamond"), ("#CC79A7", "triangle-right"), ("#000000", "square")),
    *(("#0072B2", "triangle-left"), ("#D55E00", "triangle-down"), ("#009E73", "diamond"), ("#E69F00", "square")),
)
_INK = "#222222"
_SOLID, _DASHED = [1, 0], [5, 3]
_FONT = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
_WIDTH, _HEIGHT = 460, 300


def accuracy_against_ratio(frame: pd.DataFrame, dataset: str, backbone: str, scope: str) -> alt.TopLevelMixin:
    """Accuracy against the share of filters removed, for one data set, backbone and scope.

    A line with points and a 95 % band a criterion, the unpruned baseline as a rule with its own band, the random
    control in dashed gray, one panel per init. Bands are left out where there is one seed.

    Parameters
    ----------
    frame
        A summary as :func:`winnow.summary.summarise` gives it, with at least one finished row of that data set,
        backbone and scope.
    """
    rows = summary.finished_rows(frame, dataset, backbone, scope)
    inits = [init for init in summary.INIT_NAMES if init in set(rows["init"])]
    if "random" in inits:
        # Where the curves of random weights come from.
        rows = pd.concat([rows, summary.finished_unpruned(frame, dataset, backbone, "random")])
    data, styles = _plotted(rows), _styles(rows)
    baseline = _plotted(summary.finished_unpruned(frame, dataset, backbone, "inherited"))
    y = _accuracy_axis(pd.concat([data, baseline]))
    width = _WIDTH if len(inits) == 1 else _WIDTH * 3 // 4
    panels = [
        alt.layer(
            *_baseline_layers(baseline, y, width, labelled=init == inits[-1]),
            *_criterion_layers(data[data["init"] == init], styles, y if init == inits[0] else y.title(None)),
        ).properties(width=width, height=_HEIGHT)
        for init in inits
    ]
    if len(panels) == 1:
        chart = panels[0]
    else:
        for panel, init in zip(panels, inits, strict=True):
            panel.title = alt.TitleParams(summary.INIT_NAMES[init].capitalize(), fontSize=12, anchor="middle")
        chart = alt.hconcat(*panels, spacing=18)
    return _dressed(chart, frame, dataset, backbone, scope, characters=(width * len(panels) + 80) // 7)


def _plotted(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary as a figure needs them: accuracies in %, intervals within [0, 100], names for the legend."""
    text = summary.formatted(rows)
    return pd.DataFrame(
        {
            "criterion": [_legend_entry(criterion) for criterion in rows["criterion"]],
            "init": rows["init"],
            "ratio": rows["ratio"],
            "removed": rows["achieved_ratio"],
            "accuracy": 100 * rows["accuracy"],
            "low": (100 * rows["accuracy_low"]).clip(0, 100),
            "high": (100 * rows["accuracy_high"]).clip(0, 100),
            "seeds": rows["seeds"].astype(int),
            "drop": text["drop, points"],
            "params": text["params"],
            "MACs": text["MACs"],
        }
    )


def _legend_entry(criterion: str) -> str:
    # The unpruned network with inherited weights is the rule; as a point there is just the one with random weights.
    return "unpruned, random weights" if criterion == UNPRUNED else summary.label(criterion)


def _styles(rows: pd.DataFrame) -> dict[str, tuple[str, str, list[int]]]:
    """Legend entry → colour, shape, dash: the criteria in alphabetical order, then those that nobody chooses."""
    names = sorted(set(rows["criterion"]), key=lambda name: (name in (ANY, RANDOM, UNPRUNED), name))
    spare = iter(_SPARE_LOOKS * len(names))
    looks = {name: _LOOKS.get(name) or next(spare) for name in names}
    return {_legend_entry(name): (*look, _DASHED if name == RANDOM else _SOLID) for name, look in looks.items()}


def _accuracy_axis(data: pd.DataFrame) -> alt.Y:
    """An axis in %, a little wider than the data, without a tick above 100 %."""
    shown = data[["accuracy", "low", "high"]]
    low, high = shown.min(axis=None), shown.max(axis=None)
    margin = max(0.06 * (high - low), 0.5)
    low, high = max(0.0, low - margin), high + margin
    step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20) if (high - low) / step <= 8)
    ticks = [round(step * n, 1) for n in range(math.ceil(low / step), math.floor(min(high, 100) / step) + 1)]
    return alt.Y(
        "accuracy:Q",
        title="Test accuracy (%)",
        scale=alt.Scale(domain=[low, high], zero=False, nice=False),
        axis=alt.Axis(values=ticks, format=".0f" if step >= 1 else ".1f"),
    )


def _criterion_layers(data: pd.DataFrame, styles: dict[str, tuple[str, str, list[int]]], y: alt.Y) -> list[alt.Chart]:
    """Bands, lines and points of one panel, a series a criterion."""
    names = list(styles)
    colours, shapes, dashes = (list(column) for column in zip(*styles.values(), strict=True))
    legend = alt.Legend(title=None, orient="bottom", direction="horizontal", columns=4, symbolOpacity=1, labelLimit=220)
    x = alt.X(
        "removed:Q",
        title="Share of filters removed",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[n / 10 for n in range(11)], format=".1f", labelFlush=False),
    )
    colour = alt.Color("criterion:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    shape = alt.Shape("criterion:N", scale=alt.Scale(domain=names, range=shapes), legend=legend)
    dash = alt.StrokeDash("criterion:N", scale=alt.Scale(domain=names, range=dashes), legend=legend)
    tooltip = [
        alt.Tooltip("criterion:N"),
        alt.Tooltip("ratio:Q", title="ratio asked for"),
        alt.Tooltip("removed:Q", title="share removed", format=".3f"),
        alt.Tooltip("accuracy:Q", title="accuracy (%)", format=".1f"),
        alt.Tooltip("low:Q", title="95 % interval from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
        alt.Tooltip("drop:N", title="drop (points)"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("params:N"),
        alt.Tooltip("MACs:N"),
    ]
    chart = alt.Chart(data)
    layers = []
    spread = data.dropna(subset=["low", "high"])
    # An area needs two points; an interval that stands alone is drawn as a bar.
    alone = ~spread.duplicated("criterion", keep=False)
    bounds = {"x": x, "y": alt.Y("low:Q"), "y2": "high:Q", "color": colour}
    if not spread[~alone].empty:
        layers.append(alt.Chart(spread[~alone]).mark_area(opacity=0.14).encode(**bounds))
    if not spread[alone].empty:
        layers.append(alt.Chart(spread[alone]).mark_rule(opacity=0.5, strokeWidth=3).encode(**bounds))
    layers.append(chart.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash))
    layers.append(
        chart.mark_point(size=55, filled=True, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip)
    )
    return layers


def _baseline_layers(baseline: pd.DataFrame, y: alt.Y, width: int, labelled: bool) -> list[alt.Chart]:
    """The baseline's band over the whole width, its rule, and its label in the margin, where nothing runs into it."""
    if baseline.empty:
        return []
    chart = alt.Chart(baseline.assign(label=[f"unpruned {accuracy:.1f} %" for accuracy in baseline["accuracy"]]))
    layers = [chart.mark_rule(color=_INK, strokeWidth=1.3).encode(y=y)]
    if baseline["low"].notna().all():
        layers.insert(0, chart.mark_rect(color=_INK, opacity=0.1).encode(y=alt.Y("low:Q"), y2="high:Q"))
    if labelled:
        text = chart.mark_text(color=_INK, align="left", baseline="middle", dx=6, fontSize=11)
        layers.append(text.encode(x=alt.value(width), y=y, text="label:N"))
    return layers


def _dressed(
    chart: alt.TopLevelMixin, frame: pd.DataFrame, dataset: str, backbone: str, scope: str, characters: int
) -> alt.TopLevelMixin:
    """Title, remarks and the look that all figures share."""
    sentence, remark = summary.headline(frame, dataset, backbone, scope)
    seeds = int(summary.finished_rows(frame, dataset, backbone, scope)["seeds"].max())
    bands = f"bands: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed, hence no interval"
    notes = [remark[:1].upper() + remark[1:], f"{backbone}; {bands}"]
    return (
        chart.properties(
            title=alt.TitleParams(
                textwrap.wrap(sentence, characters),
                subtitle=[line for note in notes for line in textwrap.wrap(note, characters * 6 // 5)],
            )
        )
        .configure(font=_FONT, background="white", padding=10)
        .configure_title(
            anchor="start", frame="group", fontSize=14, subtitleFontSize=11.5, subtitleColor="#555555", offset=12
        )
        .configure_axis(
            labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#E4E4E4", labelColor=_INK
        )
        .configure_legend(labelFontSize=11, labelColor=_INK)
        .configure_view(stroke=None)
    )


def file_names(frame: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """(data set, backbone, scope) → the figure's file name without suffix, for those of which something has finished.

    Raises
    ------
    InputError
        If two figures would share a name, since names may contain the hyphen that joins them.
    """
    rows = frame[(frame["criterion"] != UNPRUNED) & (frame["seeds"] > 0)]
    keys = list(dict.fromkeys(rows[["dataset", "backbone", "scope"]].itertuples(index=False, name=None)))
    names = {key: "-".join(key) for key in keys}
    for key, name in names.items():
        twin = next(other for other in keys if names[other] == name)
        if twin != key:
            raise InputError(
                f"data set and backbone {twin[:2]} and {key[:2]} give figures of the same name, {name}: rename one"
            )
    return names


def write(chart: alt.TopLevelMixin, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG, as PNG (at twice the size, for screens and drafts) and as Vega-Lite JSON."""
    made = []
    for suffix, options in ("svg", {}), ("png", {"scale_factor": 2}), ("json", {}):
        path = folder / f"{name}.{suffix}"
        with atomic_path(path) as temporary:
            chart.save(str(temporary), format=suffix, **options)
        made.append(path)
    return made
