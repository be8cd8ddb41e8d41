"""Figures show controls for what they are: drawn, told apart, never the best."""

import numpy as np
import pytest

from winnow.answers import summary
from winnow.answers.figures import accuracy, filters, look
from winnow.workflow import grid

from .fabricated import metrics_of

CONTROLS = ["random", "reversed_apoz", "apoz@mine"]
GRID = {
    "datasets": ["digits"],
    "backbones": ["net"],
    "criteria": ["apoz", "mean_activation", *CONTROLS],
    "scopes": ["global", "global_normalized", "layer"],
    "ratios": [0.2, 0.4],
    "inits": ["inherited"],
    "seeds": [0, 1],
}


@pytest.fixture
def frame():
    """Controls lose nothing, which no criterion achieves."""
    rows = []
    for cell in grid.cells(GRID):
        found = metrics_of(cell)
        if grid.is_control(cell.criterion):
            found |= {"accuracy": 0.95, "val_accuracy": 0.96}
        rows.append((cell, found))
    return summary.summarise(rows)


def test_controls_are_dashed_and_stand_last():
    assert look.ordered(GRID["criteria"])[:2] == ["apoz", "mean_activation"]
    styles = look.styles(GRID["criteria"])
    dashed = {name for name, (_, _, dash) in styles.items() if dash == look.DASHED}
    assert dashed == {"random control", "reversed apoz", "apoz on mine"}
    assert len({(colour, shape) for colour, shape, _ in styles.values()}) == len(styles)


def test_no_control_is_on_the_front_or_in_the_headline(frame):
    chart = accuracy.against_cost(frame, "digits", "net", "macs").chart.to_dict()
    fronts = [rows for rows in chart["datasets"].values() if any(row.get("scope") == "none" for row in rows)]
    shown = {row["criterion"] for rows in fronts for row in rows}
    assert "apoz" in shown
    assert not shown & {"random control", "reversed apoz", "apoz on mine"}
    for scope in GRID["scopes"]:
        rows = summary.headline_rows(frame, "digits", "net", scope)
        assert [grid.is_control(name) for name in rows["criterion"]] == [False, False, True, True, True]
        assert rows["criterion"].iloc[-1] == "random"


def test_agreement_leaves_out_the_drawn_and_the_reversed_and_keeps_the_other_data_sets():
    generator = np.random.default_rng(0)
    layers = np.repeat(["a", "b"], 20)
    scores = {name: generator.random(40) for name in ["apoz", "reversed_apoz", "apoz@mine"]}
    title = filters.rank_correlation(layers, scores, "digits", "net").title
    assert title.startswith("Digits: apoz and apoz on mine rank the filters")
    masks = {(name, 0.5): [values > 0.5] for name, values in scores.items()}
    assert "apoz on mine" in filters.overlap(layers, masks, "digits", "net", "global").title
    del scores["apoz@mine"]
    assert filters.rank_correlation(layers, scores, "digits", "net") is None
