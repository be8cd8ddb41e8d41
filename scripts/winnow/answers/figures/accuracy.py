"""Accuracy against what is removed, and against what is left: MACs, parameters, latency."""

from __future__ import annotations

import dataclasses
import math

import altair as alt
import pandas as pd

from winnow.answers import analysis, preference, summary
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group
from winnow.importance.scopes import BUDGETS, share_of
from winnow.training import protocols
from winnow.training.protocols import ONE_SHOT
from winnow.workflow.grid import NO_SCOPE, UNPRUNED, is_control


@dataclasses.dataclass(frozen=True)
class Cost:
    """A column of the summary that a smaller network has less of: its axis, what a sentence calls it, ticks' format."""

    axis: str
    name: str
    format: str


COSTS = {
    "macs": Cost("Multiply-accumulates of one image", "MACs", "~s"),
    "params": Cost("Parameters", "parameters", "~s"),
    "latency_ms": Cost("Latency of one image (ms)", "latency", "~r"),
    "latency_32_ms": Cost("Latency of 32 images (ms)", "latency with 32 images", "~r"),
}


def against_ratio(frame: pd.DataFrame, dataset: str, backbone: str, scope: str) -> Figure:
    """Accuracy against the share of filters removed, for one data set, backbone and scope.

    A line with points and a 95 % band a criterion, the unpruned baseline as a rule with its own band, the random
    control in dashed gray, one panel per init and protocol. Bands are left out where there is one seed.

    Parameters
    ----------
    frame
        A summary as :func:`winnow.answers.summary.summarise` gives it, with at least one finished row of that data set,
        backbone and scope.
    """
    rows = summary.finished_rows(frame, dataset, backbone, scope)
    # In the summary's order: inherited weights and one shot first.
    pairs = set(zip(rows["init"], rows["protocol"], strict=True))
    starts = sorted(pairs, key=lambda pair: (pair[0], pair[1] != ONE_SHOT, pair[1]))
    if (rows["init"] == "random").any():
        # Where the curves of random weights come from.
        rows = pd.concat([rows, summary.finished_unpruned(frame, dataset, backbone, "random", rows["protocol"])])
    data, styles = _plotted(rows), look.styles(rows["criterion"])
    baseline = _plotted(summary.finished_unpruned(frame, dataset, backbone, "inherited", rows["protocol"]))
    x = look.ratio_axis("removed", f"Share of {share_of(scope)} removed")
    y = _accuracy_axis(pd.concat([data, baseline]))
    width = look.WIDTH if len(starts) == 1 else look.WIDTH * 3 // 4
    panels = {
        _panel_name(*start): alt.layer(
            *_baseline_layers(
                baseline[baseline["protocol"] == protocols.whole(start[1])],
                y,
                width,
                labelled=number == min(len(starts), look.PANELS_A_ROW) - 1,
            ),
            *_criterion_layers(_of_panel(data, *start), styles, x, y.title(None) if number % look.PANELS_A_ROW else y),
        ).properties(width=width, height=look.HEIGHT)
        for number, start in enumerate(starts)
    }
    sentence, remark = summary.headline(frame, dataset, backbone, scope)
    notes = [remark[:1].upper() + remark[1:], f"{backbone}; {_bands(rows)}"]
    return Figure(
        f"{dataset}-{backbone}-{scope}",
        Group.ACCURACY,
        sentence,
        f"Accuracy on the test images, mean over seeds with its 95 % interval, against the share of {share_of(scope)} "
        "that was removed. The black line is the unpruned network, fine-tuned with the same recipe; the dashed gray "
        f"one lost {'as many filters' if scope not in BUDGETS else 'as large a share'} at random.",
        look.dressed(look.side_by_side(panels), sentence, notes, width * min(len(panels), look.PANELS_A_ROW) + 80),
    )


def _panel_name(init: str, protocol: str) -> str:
    return ", ".join([summary.INIT_NAMES[init], *summary.beginnings("inherited", protocol)]).capitalize()


def _of_panel(data: pd.DataFrame, init: str, protocol: str) -> pd.DataFrame:
    """The rows of one init and protocol, and the unpruned networks of that init, where the curves come from."""
    whole = (data["scope"] == NO_SCOPE) & (data["protocol"] == protocols.whole(protocol))
    return data[(data["init"] == init) & ((data["protocol"] == protocol) | whole)]


def against_cost(frame: pd.DataFrame, dataset: str, backbone: str, cost: str) -> Figure | None:
    """Accuracy against a cost, a panel a scope, the Pareto front over all of them marked.

    The front is chosen on validation accuracy, as a user would have to choose, and drawn at test accuracy. Networks
    are those that :func:`winnow.answers.summary.plainest` picks, and smaller ones that were never pruned, by name.
    Criteria that are controls are drawn, never on the front.

    Parameters
    ----------
    cost
        A name in :data:`COSTS`.

    Returns
    -------
    Figure or None
        None where no pruned network's cost is known.
    """
    scopes = [scope for scope in summary.SCOPE_NAMES if scope in set(frame["scope"])]
    rows = pd.concat([summary.finished_rows(frame, dataset, backbone, scope) for scope in scopes])
    rows = summary.plainest(rows[rows[cost].notna()])
    if rows.empty:
        return None
    baseline_row = summary.finished_unpruned(frame, dataset, backbone, "inherited", rows["protocol"])
    smaller = summary.finished_controls(frame, dataset, backbone)
    smaller = smaller[smaller[cost].notna()]
    networks = pd.concat([baseline_row[baseline_row[cost].notna()], smaller, rows])
    # Without validation images there is no other choice.
    judged, images = ("val_accuracy", "validation") if networks["val_accuracy"].notna().all() else ("accuracy", "test")
    choice = networks[~networks["criterion"].map(is_control)]
    values = choice[judged].map(preference.exact).to_numpy(float)  # so that equals are equal
    chosen = analysis.pareto_front(choice[cost].to_numpy(float), values)
    front = choice[chosen].sort_values([cost, "accuracy"])

    styles = look.styles(rows["criterion"])
    data, baseline, whole = (_plotted(part, cost) for part in (rows, baseline_row, smaller))
    x, y = _cost_axis(networks[cost], COSTS[cost]), _accuracy_axis(pd.concat([data, baseline, whole]))
    scopes = [scope for scope in scopes if scope in set(rows["scope"])]
    width = look.WIDTH if len(scopes) == 1 else look.WIDTH * 3 // 4
    panels = {
        summary.title(summary.SCOPE_NAMES[scope]): alt.layer(
            *_baseline_layers(baseline, y, width, labelled=scope == scopes[-1]),
            *_criterion_layers(data[data["scope"] == scope], styles, x, y if scope == scopes[0] else y.title(None)),
            *_control_layers(whole.assign(criterion=smaller["control"]), x, y),
            *_front_layers(_plotted(front, cost), x, y, [scope, "none"]),
        ).properties(width=width, height=look.HEIGHT)
        for scope in scopes
    }
    sentence = _front_sentence(front, baseline_row, dataset, cost)
    where = " over all scopes" if len(scopes) > 1 else ""
    beginnings = ", ".join(summary.beginnings(rows["init"].iloc[0], rows["protocol"].iloc[0]))
    weights = f" {beginnings.capitalize()}." if beginnings else ""
    weights += "" if smaller.empty else " Black squares are smaller networks that were never pruned."
    notes = [f"Rings and dotted line: the Pareto front{where}, on {images} images", f"{backbone}; {_bands(rows)}"]
    return Figure(
        f"{dataset}-{backbone}-{cost}",
        Group.SIZE if cost in ("macs", "params") else Group.LATENCY,
        sentence,
        f"Accuracy on the test images against {COSTS[cost].name}, on a logarithmic scale; further left is smaller."
        f"{weights} Rings, joined by the dotted line, are the Pareto front{where}: networks that no other beats in "
        f"both {COSTS[cost].name} and accuracy on the {images} images"
        + (", so on test images the line may dip." if images == "validation" else "."),
        look.dressed(look.side_by_side(panels), sentence, notes, width * min(len(panels), look.PANELS_A_ROW) + 80),
    )


def _front_sentence(front: pd.DataFrame, baseline: pd.DataFrame, dataset: str, cost: str) -> str:
    """What the front's network nearest to the headline's ratio costs and loses; of latencies there may be none."""
    pruned = front[front["criterion"] != UNPRUNED]
    if pruned.empty:
        return f"{summary.title(dataset)}: no pruned network has a lower {COSTS[cost].name} than the unpruned one"
    row = pruned[pruned["ratio"] == summary.headline_ratio(pruned["ratio"])].iloc[0]
    if len(baseline) and baseline[cost].notna().all():
        size = f"{100 * row[cost] / baseline[cost].iloc[0]:.0f} % of the unpruned network's {COSTS[cost].name}"
    else:
        size = f"{summary.quantity(row[cost])} {COSTS[cost].name}"
    name = f"{summary.label(row['criterion'])}, {summary.SCOPE_NAMES[row['scope']]} at ratio {row['ratio']:g}"
    return f"{summary.title(dataset)}: {name}, {summary.outcome(row)} with {size}"


def _bands(rows: pd.DataFrame) -> str:
    seeds = int(rows["seeds"].max())
    return f"bands: 95 % interval over {seeds} seeds" if seeds > 1 else "one seed, hence no interval"


def _plotted(rows: pd.DataFrame, cost: str | None = None) -> pd.DataFrame:
    """Rows of a summary as a figure needs them: accuracies in %, intervals within [0, 100], names for the legend."""
    text = summary.formatted(rows)
    result = pd.DataFrame(
        {
            "criterion": [look.legend_entry(criterion) for criterion in rows["criterion"]],
            "scope": rows["scope"],
            "init": rows["init"],
            "protocol": rows["protocol"],
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
    return result if cost is None else result.assign(cost=rows[cost].astype(float))


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


def _cost_axis(costs: pd.Series, cost: Cost) -> alt.X:
    """A logarithmic axis a little wider than the data, with ticks at 1, 2, 5, 10, ..."""
    low, high = float(costs.min()) / 1.08, float(costs.max()) * 1.08
    steps = (1, 2, 5) if high / low > 3 else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return alt.X(
        "cost:Q",
        title=cost.axis,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format=cost.format),
    )


# What a network's mark says where one points at it.
_TOLD = [
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


def _criterion_layers(
    data: pd.DataFrame, styles: dict[str, tuple[str, str, list[int]]], x: alt.X, y: alt.Y
) -> list[alt.Chart]:
    """Bands, lines and points of one panel, a series a criterion."""
    colour, shape, dash = look.series(styles)
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
        chart.mark_point(size=55, filled=True, opacity=1).encode(x=x, y=y, color=colour, shape=shape, tooltip=_TOLD)
    )
    return layers


def _baseline_layers(baseline: pd.DataFrame, y: alt.Y, width: int, labelled: bool) -> list[alt.Chart]:
    """The baseline's band over the whole width, its rule, and its label in the margin, where nothing runs into it."""
    if baseline.empty:
        return []
    chart = alt.Chart(baseline.assign(label=[f"unpruned {accuracy:.1f} %" for accuracy in baseline["accuracy"]]))
    layers = [chart.mark_rule(color=look.INK, strokeWidth=1.3).encode(y=y)]
    if baseline["low"].notna().all():
        layers.insert(0, chart.mark_rect(color=look.INK, opacity=0.1).encode(y=alt.Y("low:Q"), y2="high:Q"))
    if labelled:
        text = chart.mark_text(color=look.INK, align="left", baseline="middle", dx=6, fontSize=11)
        layers.append(text.encode(x=alt.value(width), y=y, text="label:N"))
    return layers


def _control_layers(controls: pd.DataFrame, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The smaller networks that were never pruned, with their names."""
    if controls.empty:
        return []
    chart = alt.Chart(controls)
    layers = [
        chart.mark_point(shape="square", size=70, filled=True, color=look.INK, opacity=1).encode(
            x=x, y=y, tooltip=_TOLD
        )
    ]
    spread = controls.dropna(subset=["low", "high"])
    if not spread.empty:
        bar = alt.Chart(spread).mark_rule(color=look.INK, opacity=0.5, strokeWidth=3)
        layers.insert(0, bar.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"))
    text = chart.mark_text(color=look.INK, baseline="bottom", dy=-8, fontSize=11)
    return [*layers, text.encode(x=x, y=y, text="criterion:N")]


def _front_layers(front: pd.DataFrame, x: alt.X, y: alt.Y, scopes: list[str]) -> list[alt.Chart]:
    """The whole front as a line, and rings around those of its networks that the panel shows."""
    line = alt.Chart(front).mark_line(color=look.INK, strokeDash=[2, 3], strokeWidth=1.2)
    rings = alt.Chart(front[front["scope"].isin(scopes)]).mark_point(
        shape="circle", size=170, filled=False, stroke=look.INK, strokeWidth=1.3, opacity=1
    )
    return [line.encode(x=x, y=y), rings.encode(x=x, y=y)]
