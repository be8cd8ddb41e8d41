"""What all figures share: series that the colour-blind and a printer tell apart, titles, and the files."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert

from winnow.answers import summary, words
from winnow.files import atomic_path
from winnow.workflow.grid import ANY, RANDOM, UNPRUNED, is_control

# As vl_convert names versions.
VEGA_LITE = "_".join(alt.SCHEMA_VERSION.split(".")[:2])

# Colours of Okabe & Ito, "Color Universal Design" (2008), told apart with any colour vision; controls, which are not
# among those compared, are dashed, and the random one is gray. Shapes tell the series apart where colour does not.
LOOKS = {
    "apoz": ("#0072B2", "circle"),
    "mean_activation": ("#D55E00", "square"),
    "average_weight": ("#009E73", "triangle-up"),
    ANY: ("#CC79A7", "diamond"),
    RANDOM: ("#6E6E6E", "cross"),
    UNPRUNED: ("#000000", "triangle-down"),
}
SPARE_LOOKS = (
    *(("#E69F00", "triangle-down"), ("#56B4E9", "diamond"), ("#CC79A7", "triangle-right"), ("#000000", "square")),
    *(("#0072B2", "triangle-left"), ("#D55E00", "triangle-down"), ("#009E73", "diamond"), ("#E69F00", "square")),
)
INK, FAINT = "#222222", "#555555"
SOLID, DASHED = [1, 0], [5, 3]
FONT = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
WIDTH, HEIGHT = 460, 300  # pixels of a panel
PANELS_A_ROW = 3
# Cells of a heat map whose number is on a dark ground get it in white: from this share of the scale's length on.
_DARK = 0.6


class Group(enum.StrEnum):
    """The headings that figures belong under, in the order of a page."""

    ANSWER = "The answer"
    ACCURACY = "Accuracy"
    SIZE = "Accuracy and size"
    LATENCY = "Accuracy and latency"
    LOSSES = "Classes that lose most"
    WEIGHTS = "Inherited or random weights"
    KEPT = "Filters kept"
    AGREEMENT = "Agreement of the criteria"
    SPECIFICITY = "Classes and filters"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart with what a page needs to show it.

    Attributes
    ----------
    name : str
        The files' name without suffix.
    group : Group
    title : str
        What one sees, in a sentence; the chart carries it too.
    caption : str
        How to read it, in a sentence or two.
    chart
    """

    name: str
    group: Group
    title: str
    caption: str
    chart: alt.TopLevelMixin


def legend_entry(criterion: str) -> str:
    """A criterion's name in a legend."""
    # The unpruned network with inherited weights is the rule; as a point there is just the one with random weights.
    return "unpruned, random weights" if criterion == UNPRUNED else summary.label(criterion)


def ordered(criteria: Iterable[str]) -> list[str]:
    """Criteria in alphabetical order, then those that nobody chooses."""
    return sorted(set(criteria), key=lambda name: (name in (ANY, UNPRUNED) or is_control(name), name))


# Legend entry → colour, shape, dash.
Styles = dict[str, tuple[str, str, list[int]]]


def styles(criteria: Iterable[str]) -> Styles:
    """The looks of criteria. One that has a look of its own has it in every figure."""
    names = ordered(criteria)
    spare = iter(SPARE_LOOKS * len(names))
    looks = {name: LOOKS.get(name) or next(spare) for name in names}
    return {legend_entry(name): (*look, DASHED if is_control(name) else SOLID) for name, look in looks.items()}


def series(styles: Styles) -> tuple[alt.Color, alt.Shape, alt.StrokeDash]:
    """The column ``criterion`` as colour, shape and dash, with one legend below the figure."""
    names = list(styles)
    legend = alt.Legend(title=None, orient="bottom", direction="horizontal", columns=4, symbolOpacity=1, labelLimit=220)
    colours, shapes, dashes = (
        alt.Scale(domain=names, range=list(looks)) for looks in zip(*styles.values(), strict=True)
    )
    return (
        alt.Color("criterion:N", scale=colours, legend=legend),
        alt.Shape("criterion:N", scale=shapes, legend=legend),
        alt.StrokeDash("criterion:N", scale=dashes, legend=legend),
    )


def ratio_axis(field: str, title: str, tenths: int = 1) -> alt.X:
    """Shares of filters removed, from 0 to 1, with a tick every so many tenths."""
    return alt.X(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(values=[n / 10 for n in range(0, 11, tenths)], format=".1f", labelFlush=False),
    )


def side_by_side(panels: Mapping[str, alt.LayerChart | alt.FacetChart]) -> alt.TopLevelMixin:
    """Panels by their heading, :data:`PANELS_A_ROW` in a row; one needs none."""
    if len(panels) == 1:
        return next(iter(panels.values()))
    for heading, panel in panels.items():
        panel.title = heading_of_panel(heading)
    return alt.concat(*panels.values(), columns=PANELS_A_ROW, spacing=18)


def heading_of_panel(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, fontSize=12, anchor="middle", frame="group", offset=6)


def numbered_cells(data: pd.DataFrame, x: alt.X, y: alt.Y, colour: alt.Color, text: str, size: int) -> alt.LayerChart:
    """A heat map with a number in each cell.

    Parameters
    ----------
    data
        A row a cell; column ``depth`` in [0, 1]: how far its colour is towards a dark end of the scale.
    text
        The column that holds the number's text.
    """
    base = alt.Chart(data).encode(x=x, y=y)
    ink = alt.when(alt.datum.depth > _DARK).then(alt.value("white")).otherwise(alt.value(INK))
    return base.mark_rect(stroke="white", strokeWidth=1).encode(color=colour) + base.mark_text(fontSize=size).encode(
        text=f"{text}:N", color=ink
    )


def dressed(chart: alt.TopLevelMixin, title: str, notes: Sequence[str], width: int) -> alt.TopLevelMixin:
    """Title, remarks and the look that all figures share; ``width`` is the pixels that there are for the title."""
    characters = max(width, 480) // 7
    return (
        chart.properties(
            title=alt.TitleParams(
                _lines(title, characters),
                subtitle=[line for note in notes for line in _lines(note, characters * 6 // 5)],
            )
        )
        .configure(font=FONT, background="white", padding=10)
        .configure_title(
            anchor="start", frame="group", fontSize=14, subtitleFontSize=11.5, subtitleColor=FAINT, offset=12
        )
        .configure_axis(
            labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#E4E4E4", labelColor=INK
        )
        .configure_legend(labelFontSize=11, titleFontSize=11, titleFontWeight="normal", labelColor=INK)
        .configure_view(stroke=None)
    )


def _lines(text: str, characters: int) -> list[str]:
    """The text in lines that part no number from its unit."""
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(words.unbroken(text), characters)]


def write(figure: Figure, folder: Path) -> None:
    """Write a figure as SVG, as PNG (at twice the size, for screens and drafts) and as Vega-Lite JSON."""
    with alt.data_transformers.enable("default"), alt.data_transformers.disable_max_rows():
        # Once for all three, and not held against Vega-Lite's schema: either took longer than to draw it.
        specification = figure.chart.to_dict(validate=False)
    drawn = vl_convert.vegalite_to_svg(specification, vl_version=VEGA_LITE)
    svg = _with_own_ids(drawn, figure.name)
    contents = {
        "svg": svg.encode(),
        "png": vl_convert.svg_to_png(svg, scale=2),
        "json": json.dumps(specification, sort_keys=True, ensure_ascii=False).encode(),
    }
    for suffix, content in contents.items():
        with atomic_path(folder / f"{figure.name}.{suffix}") as temporary:
            temporary.write_bytes(content)


def _with_own_ids(svg: str, name: str) -> str:
    """The SVG with ids that no other figure has, so that a page can hold several.

    Vega numbers them through over all figures that a process draws.
    """
    ids = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))
    for number, old in enumerate(ids):
        svg = re.sub(rf'(?<=\bid="){re.escape(old)}(?=")|(?<=url\(#){re.escape(old)}(?=\))', f"{name}-{number}", svg)
    return svg
