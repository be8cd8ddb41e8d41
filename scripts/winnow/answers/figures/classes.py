"""Which classes pay for the pruning."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from winnow.answers import summary
from winnow.answers.figures import look
from winnow.answers.figures.look import Figure, Group

# More classes than these make a figure that no page holds: the worst are shown.
SHOWN = 30


def class_losses(
    pruned: pd.DataFrame, unpruned: pd.DataFrame, row: pd.Series, dataset: str, backbone: str, scope: str
) -> Figure | None:
    """Each class's accuracy with the pruned network less that with the unpruned one, worst first.

    Parameters
    ----------
    pruned, unpruned
        Accuracies in [0, 1], a row a seed (index) and a column a class; differences are taken seed by seed.
    row
        The summary's row of the pruned networks.

    Returns
    -------
    Figure or None
        None where the two have no seed in common.
    """
    changes = 100 * (pruned - unpruned).dropna(how="all").dropna(axis=1)
    if changes.empty:
        return None
    mean = changes.mean().sort_values(kind="stable")
    worst = list(mean.index[:SHOWN])
    data = pd.DataFrame(
        {
            "class": worst,
            "change": mean[worst].to_numpy(),
            "low": changes[worst].min().to_numpy(),
            "high": changes[worst].max().to_numpy(),
            "before": 100 * unpruned.loc[changes.index, worst].mean().to_numpy(),
            "after": 100 * pruned.loc[changes.index, worst].mean().to_numpy(),
        }
    )
    seeds = changes.stack().rename_axis(["seed", "class"]).rename("change").reset_index()
    seeds = seeds[seeds["class"].isin(worst)]
    overall = float(mean.mean())
    colour = look.LOOKS["mean_activation"][0]
    y = alt.Y("class:N", sort=worst, title=None, axis=alt.Axis(labelLimit=180, ticks=False))
    title = "Change of the class's test accuracy (points)"
    base = alt.Chart(data).encode(y=y)
    ends = [min(0.0, float(data["low"].min())), max(0.0, float(data["high"].max()))]
    x: dict[str, Any] = {"title": title, "scale": alt.Scale(domain=ends)}
    text = base.mark_text(align="left", fontSize=10.5, color=look.INK, dx=8).transform_calculate(
        label="format(datum.before, '.1f') + ' → ' + format(datum.after, '.1f') + ' %'"
    )
    layers = [
        alt.Chart(pd.DataFrame({"change": [0.0]})).mark_rule(color=look.INK, strokeWidth=1.3).encode(x="change:Q"),
        alt.Chart(pd.DataFrame({"change": [overall]}))
        .mark_rule(color=look.FAINT, strokeDash=look.DASHED)
        .encode(x="change:Q"),
        base.mark_bar(color="#F0C3A5", height=8).encode(x=alt.X("change:Q", **x)),
        base.mark_point(color=colour, shape="diamond", filled=True, size=60, opacity=1).encode(
            x=alt.X("change:Q", **x),
            tooltip=["class:N", *(alt.Tooltip(f"{name}:Q", format=".1f") for name in data.columns[1:])],
        ),
        text.encode(x=alt.value(look.WIDTH), text="label:N"),
    ]
    if len(changes) > 1:
        layers.insert(3, base.mark_rule(color=colour, strokeWidth=1.5).encode(x=alt.X("low:Q", **x), x2="high:Q"))
        points = alt.Chart(seeds).mark_tick(color=colour, thickness=1.5, height=9)
        layers.insert(4, points.encode(x=alt.X("change:Q", **x), y=y))
    losing = int((mean.round(1) < -1).sum())
    beginnings = summary.beginnings(row["init"], row["protocol"])
    name = ", ".join([summary.label(row["criterion"]), f"ratio {row['ratio']:g}", *beginnings])
    how_many = f"{losing} of {len(mean)} classes lose" if losing > 1 else ("one loses" if losing else "none loses")
    verb = "loses" if mean.iloc[0] < 0 else "gains"
    most = "most" if mean.iloc[0] < 0 else "least"
    sentence = (
        f"{summary.title(dataset)}, {summary.SCOPE_NAMES[scope]} ({name}): class {worst[0]} {verb} {most}, "
        f"{abs(mean.iloc[0]):.1f} points; {how_many} more than 1 point"
    )
    notes = [
        f"{backbone}; dashed: mean over classes, {overall:+.1f} points".replace("-", "−"),
        f"Numbers: accuracy unpruned → pruned; {_spread(len(changes))}",
    ]
    if len(mean) > SHOWN:
        rest = mean.iloc[SHOWN:]
        notes.append(
            f"The {SHOWN} worst of {len(mean)} classes; the others change by {rest.min():+.1f} to "
            f"{rest.max():+.1f} points".replace("-", "−")
        )
    return Figure(
        f"{dataset}-{backbone}-{scope}-classes",
        Group.LOSSES,
        sentence,
        "Each class's accuracy on the test images with the pruned network less that with the unpruned one, seed by "
        "seed, worst first. The criterion is the one with the best test accuracy at that ratio. With few test images a "
        "class, one image is many points.",
        look.dressed(
            alt.layer(*layers).properties(width=look.WIDTH, height=17 * len(worst)), sentence, notes, look.WIDTH + 180
        ),
    )


def _spread(seeds: int) -> str:
    return f"ticks: the {seeds} seeds" if seeds > 1 else "one seed"
