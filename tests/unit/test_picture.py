"""The one picture: what is drawn, where, and that it agrees with the words."""

from __future__ import annotations

import io

import pytest

from winnow.answers.figures import answer as figures

from .test_words import ANSWER, BUDGET, CHOSEN, SMALLER, UNPRUNED, WORSE

OTHERS = [
    CHOSEN | {"cell": "a/b"},
    CHOSEN | {"cell": "a/c", "bytes": 1_500_000, "accuracy": 0.95},
    CHOSEN | {"cell": "a/d", "bytes": 100_000, "accuracy": 0.2},
]


def rows(figure) -> list[dict]:
    """The networks that are drawn."""
    found = [row for data in figure.chart.to_dict()["datasets"].values() for row in data if "network" in row]
    return list({(row["network"], row["size"]): row for row in found}.values())


def drawn(figure) -> str:
    text = io.StringIO()
    figure.chart.save(text, format="svg")
    return text.getvalue()


def test_it_has_the_networks_of_the_answer_and_the_others_in_gray():
    found = {
        row["network"]: row for row in rows(figures.picture(ANSWER | {"smaller": SMALLER | {"cell": "a/e"}}, OTHERS))
    }
    # The chosen one is not drawn twice, and one that lost most of its answers would take all the room.
    assert set(found) == {"your network", "chosen", "one step smaller", "also tested"}
    larger = ANSWER | {"smaller": SMALLER | {"cell": "a/e", "bytes": 950_000}}
    assert "the next one tested" in {row["network"] for row in rows(figures.picture(larger, OTHERS))}
    assert found["also tested"]["size"] == 1.5
    assert found["chosen"]["size"] == pytest.approx(0.91)
    assert found["chosen"]["accuracy"] == pytest.approx(96.1)
    # Bounds of the drop, taken from the unpruned network's accuracy.
    assert found["chosen"]["low"] == pytest.approx(94.7 - 0.2)
    assert found["chosen"]["high"] == pytest.approx(94.7 + 3.0)
    assert found["chosen"]["class_low"] == pytest.approx(94.7 - 1.1)


def test_the_bar_is_above_the_limit_just_where_the_network_holds():
    limit = 94.7 - 2.0
    for network, above in ((CHOSEN, True), (SMALLER, False), (WORSE, False)):
        found = {row["network"]: row for row in rows(figures.picture(ANSWER | {"chosen": network, "smaller": None}))}
        assert (min(found["chosen"]["low"], found["chosen"]["class_low"]) >= limit) is above


def test_it_is_drawn_with_its_words():
    svg = drawn(figures.picture(ANSWER))
    for text in ("your network", "chosen", "one step smaller", "2 points less, the limit", "My photos, vgg16", "(MB)"):
        assert text in svg


@pytest.mark.parametrize(("measure", "limit", "axis"), [("latency_ms", 5, "(ms)"), ("macs", 3e7, "(millions)")])
def test_with_a_budget_size_is_what_the_budget_is_of(measure, limit, axis):
    answer = ANSWER | {"budget": BUDGET | {"measure": measure, "limit": limit}}
    found = {row["network"]: row for row in rows(figures.picture(answer))}
    assert found["your network"]["size"] == UNPRUNED[measure] / figures._AXES[measure][0]
    assert axis in drawn(figures.picture(answer))


def test_an_int8_file_stands_where_its_certificate_has_it():
    int8 = {"bytes": 240_000, "drop": 0.004, "low": -0.006, "high": 0.014}
    figure = figures.picture(ANSWER, (), int8)
    found = next(row for row in rows(figure) if row["network"] == "in int8")
    assert found["size"] == pytest.approx(0.24)
    assert [found[name] for name in ("accuracy", "low", "high")] == pytest.approx([94.7 - 0.4, 94.7 - 1.4, 94.7 + 0.6])
    assert "in int8" in drawn(figure)
    # Of the unpruned network there is no drop, and of a budget of another measure no size.
    assert "in int8" not in drawn(figures.picture(ANSWER, (), int8 | {"drop": None}))
    assert "in int8" not in drawn(figures.picture(ANSWER | {"budget": BUDGET | {"measure": "macs"}}, (), int8))


def test_without_a_network_there_is_no_picture():
    assert figures.picture(ANSWER | {"chosen": None}) is None


def test_sizes_that_differ_much_are_on_a_logarithmic_scale():
    def scale(smallest):
        chart = figures.picture(ANSWER | {"smaller": SMALLER | {"bytes": smallest}}).chart.to_dict()
        return chart["layer"][0]["encoding"]["x"]["scale"].get("type")

    assert scale(1_000_000) is None
    assert scale(100_000) == "log"
