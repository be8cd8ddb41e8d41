"""The figures: what is drawn from which column, how series are told apart, and the files."""

import dataclasses
import itertools
import json
import math
import re
import shutil
import string
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import plot
from winnow.answers import analysis, summary
from winnow.answers.figures import accuracy, activations, classes, filters, look, weights
from winnow.files import InputError
from winnow.workflow import grid

from .fabricated import activations_of, metrics_of, results

GRID = {
    "datasets": ["digits"],
    "backbones": ["vgg_digits"],
    "criteria": ["apoz", "mean_activation", "average_weight", "random"],
    "scopes": ["layer"],
    "ratios": [0.2, 0.4, 0.8],
    "inits": ["inherited"],
    "seeds": [0, 1, 2],
}
PLACE = ("digits", "vgg_digits")
KEY = (*PLACE, "layer")


def made(experiment=None, diverged=lambda cell: False, **invented):
    """A summary of invented cells."""
    axes = GRID | (experiment or {})
    rows = [
        (cell, {"status": "diverged"} if diverged(cell) else metrics_of(cell, **invented)) for cell in grid.cells(axes)
    ]
    return summary.summarise(rows, beside=grid.beside(axes))


def drawn(frame, key=KEY):
    return accuracy.against_ratio(frame, *key).chart.to_dict()


def panels(chart):
    return chart.get("hconcat") or chart.get("concat") or [chart]


def marks(panel):
    """Mark type → layers of it."""
    found = {}
    for layer in panel["layer"]:
        found.setdefault(layer["mark"]["type"], []).append(layer)
    return found


def data(chart, layer, panel=None):
    source = layer.get("data") or (panel or {}).get("data") or chart["data"]
    return chart["datasets"][source["name"]]


class TestAgainstRatio:
    def test_points_and_lines_are_accuracy_in_percent_against_the_share_removed(self):
        frame = made()
        chart = drawn(frame)
        (points,) = marks(chart)["point"]
        (lines,) = marks(chart)["line"]
        for layer in points, lines:
            assert layer["encoding"]["x"]["field"] == "removed"
            assert layer["encoding"]["x"]["title"] == "Share of filters removed"
            assert layer["encoding"]["y"]["field"] == "accuracy"
            assert layer["encoding"]["y"]["title"] == "Test accuracy (%)"
        shown = {(row["criterion"], row["ratio"]): row for row in data(chart, points)}
        assert len(shown) == 4 * 3
        assert shown["apoz", 0.4]["accuracy"] == pytest.approx(93.0)
        assert shown["apoz", 0.4]["removed"] == pytest.approx(0.396)
        assert shown["random control", 0.8]["accuracy"] == pytest.approx(47.0)

    def test_bands_are_the_intervals(self):
        frame = made()
        chart = drawn(frame)
        (band,) = marks(chart)["area"]
        assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
        row = frame.query("criterion == 'apoz' and ratio == 0.4").iloc[0]
        (shown,) = [r for r in data(chart, band) if (r["criterion"], r["ratio"]) == ("apoz", 0.4)]
        assert shown["low"] == pytest.approx(100 * row["accuracy_low"])
        assert shown["high"] == pytest.approx(100 * row["accuracy_high"])

    def test_the_baseline_is_a_rule_with_band_and_label(self):
        frame = made()
        chart = drawn(frame)
        found = marks(chart)
        (rule,), (band,), (label,) = found["rule"], found["rect"], found["text"]
        (shown,) = data(chart, rule)
        assert rule["encoding"].keys() == {"y"}
        assert shown["accuracy"] == pytest.approx(95.0)
        assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
        assert shown["low"] == pytest.approx(100 * frame.loc[0, "accuracy_low"])
        assert shown["label"] == "unpruned 95.0 %"
        # In the margin to the right of the plot, where no curve comes.
        assert label["encoding"]["x"]["value"] == chart["width"]
        assert label["mark"]["dx"] > 0

    def test_series_differ_in_colour_and_shape_and_the_control_is_gray_and_dashed(self):
        criteria = ["apoz", "mean_activation", "average_weight", "random"]
        criteria += ["taylor", "entropy", "fpgm", "l2", "geometric", "sensitivity"]
        chart = drawn(made({"criteria": criteria}))
        (points,), (lines,) = marks(chart)["point"], marks(chart)["line"]
        colour, shape = (points["encoding"][channel]["scale"] for channel in ("color", "shape"))
        dash = lines["encoding"]["strokeDash"]["scale"]
        assert colour["domain"] == shape["domain"] == dash["domain"]
        looks = dict(zip(colour["domain"], zip(colour["range"], shape["range"], strict=True), strict=True))
        assert len(set(looks.values())) == len(looks) == 10
        dashes = dict(zip(dash["domain"], dash["range"], strict=True))
        assert looks["random control"][0] == "#6E6E6E"
        assert [name for name, pattern in dashes.items() if pattern != [1, 0]] == ["random control"]

    def test_a_criterion_looks_the_same_in_every_figure(self):
        looks = []
        for criteria in (["apoz", "random"], ["random", "mean_activation", "apoz", "taylor"]):
            scale = marks(drawn(made({"criteria": criteria})))["point"][0]["encoding"]["color"]["scale"]
            looks.append(dict(zip(scale["domain"], scale["range"], strict=True))["apoz"])
        assert looks[0] == looks[1]

    def test_colours_are_those_that_the_colour_blind_tell_apart(self):
        okabe_ito = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
        looks = [*look.LOOKS.values(), *look.SPARE_LOOKS]
        assert {colour for colour, _ in looks} <= okabe_ito | {"#6E6E6E"}
        assert len(set(looks)) == len(looks)

    def test_the_title_says_what_one_sees(self):
        title = drawn(made())["title"]
        assert title["text"] == ["Digits, by layer: apoz loses 2.0 points at ratio 0.4"]
        assert title["subtitle"] == [
            "The random control loses 24.0 points there",
            "vgg_digits; bands: 95 % interval over 3 seeds",
        ]

    def test_a_long_title_is_broken(self):
        name = "birds_" * 15 + "end"
        title = drawn(made({"datasets": [name]}), (name, "vgg_digits", "layer"))["title"]
        assert len(title["text"]) > 1
        assert max(map(len, title["text"])) <= 77

    def test_one_seed_has_no_band(self):
        chart = drawn(made({"seeds": [3]}))
        assert marks(chart).keys() == {"rule", "text", "line", "point"}
        assert "one seed, hence no interval" in chart["title"]["subtitle"][-1]

    def test_one_ratio_has_bars_in_place_of_bands(self):
        chart = drawn(made({"ratios": [0.4]}))
        assert "area" not in marks(chart)
        _, bars = marks(chart)["rule"]
        assert len(data(chart, bars)) == 4

    def test_inits_are_panels_with_one_axis(self):
        chart = drawn(made({"inits": ["inherited", "random"], "ratios": [0, 0.2, 0.4]}))
        left, right = panels(chart)
        assert [panel["title"]["text"] for panel in (left, right)] == ["Inherited weights", "Random weights"]
        scales = [marks(panel)["point"][0]["encoding"]["y"]["scale"] for panel in (left, right)]
        assert scales[0] == scales[1]
        names = [{row["criterion"] for row in data(chart, marks(p)["point"][0], p)} for p in (left, right)]
        assert names[0] == {"apoz", "average weight", "mean activation", "random control"}
        assert names[1] == {"any criterion", "unpruned, random weights"}
        assert "text" not in marks(left)
        assert "text" in marks(right)
        assert marks(left)["rule"][0]["mark"] == marks(right)["rule"][0]["mark"]

    def test_other_data_sets_backbones_and_scopes_stay_out(self):
        frame = made({"datasets": ["digits", "flowers"], "backbones": ["v", "w"], "scopes": ["global", "layer"]})
        chart = drawn(frame, ("flowers", "w", "global"))
        points = data(chart, marks(chart)["point"][0])
        assert len(points) == 4 * 3
        assert chart["title"]["text"][0].startswith("Flowers, globally: ")

    def test_failed_rows_and_a_failed_baseline_are_left_out(self):
        frame = made(diverged=lambda cell: cell.ratio in (0, 0.8))
        chart = drawn(frame)
        assert marks(chart).keys() == {"area", "line", "point"}
        assert {row["ratio"] for row in data(chart, marks(chart)["point"][0])} == {0.2, 0.4}
        assert "apoz reaches 93.0 %" in chart["title"]["text"][0]

    @pytest.mark.parametrize("ratios", [[0.02, 0.04], [0.2, 0.4, 0.8]])
    @pytest.mark.parametrize(("top", "spread"), [(0.95, 0.002), (1.0, 0.0), (0.999, 0.1), (0.6, 0.0001), (0.5, 0.3)])
    def test_the_axis_holds_the_data_and_its_ticks_stay_within_100(self, top, spread, ratios):
        chart = drawn(made(top=top, spread=spread, experiment={"criteria": ["apoz"], "ratios": ratios}))
        (points,) = marks(chart)["point"]
        low, high = points["encoding"]["y"]["scale"]["domain"]
        ticks = points["encoding"]["y"]["axis"]["values"]
        for row in [*data(chart, points), *data(chart, marks(chart)["text"][0])]:
            assert 0 <= row["low"] <= row["high"] <= 100
            assert low <= min(row["low"], row["accuracy"])
            assert max(row["high"], row["accuracy"]) < high
        assert 2 <= len(ticks) <= 9
        assert max(low, 0) <= ticks[0]
        assert ticks[-1] <= min(high, 100)
        steps = [b - a for a, b in itertools.pairwise(ticks)]
        assert all(math.isclose(step, steps[0], abs_tol=1e-9) for step in steps)


def test_each_protocol_has_a_panel_of_its_own():
    frame = made({"protocols": ["iterative_3", "one_shot", "distilled"], "inits": ["inherited", "random"]})
    chart = drawn(frame)
    expected = {
        "Inherited weights": "one_shot",
        "Inherited weights, distilled": "distilled",
        "Inherited weights, pruned in 3 steps": "iterative_3",
        "Random weights": "one_shot",
        "Random weights, distilled": "distilled",
    }
    assert [panel["title"]["text"] for panel in panels(chart)] == list(expected)
    assert chart["columns"] == 3
    for panel, first_of_its_row in zip(panels(chart), (True, False, False, True, False), strict=True):
        assert (marks(panel)["point"][0]["encoding"]["y"].get("title") is not None) == first_of_its_row
    for protocol, panel in zip(expected.values(), panels(chart), strict=True):
        shown = data(chart, marks(panel)["point"][0], panel)
        assert {row["protocol"] for row in shown if row["ratio"]} == {protocol}
        assert len({(row["criterion"], row["ratio"]) for row in shown}) == len(shown)
    # The headline and the costs speak of one protocol: one shot where there is one.
    assert "steps" not in accuracy.against_ratio(frame, *KEY).title
    alone = made({"protocols": ["iterative_3"]})
    assert "by layer, pruned in 3 steps: apoz" in accuracy.against_ratio(alone, *KEY).title
    for some, shown in (frame, "one_shot"), (alone, "iterative_3"):
        chart = against(some).chart.to_dict()
        assert {row["protocol"] for row in data(chart, marks(chart)["point"][0])} == {shown}


def test_each_panel_has_the_baseline_that_its_networks_are_held_against():
    chart = drawn(made({"repairs": ["none", "compensated", "compensated_fitted"]}))
    baselines = [marks(panel)["rule"][0] for panel in panels(chart)]
    shown = [
        [row["protocol"] for row in data(chart, rule, panel)]
        for rule, panel in zip(baselines, panels(chart), strict=True)
    ]
    assert shown == [["one_shot"], ["one_shot"], ["fitted"]]
    alone = made({"repairs": ["compensated_fitted"]})
    assert against(alone) is not None


def against(frame, cost="macs"):
    return accuracy.against_cost(frame, *PLACE, cost)


def ringed(chart):
    """The networks with a ring around them: (criterion, scope, ratio)."""
    return {
        (row["criterion"], row["scope"], row["ratio"])
        for panel in panels(chart)
        for layer in marks(panel)["point"]
        if not layer["mark"]["filled"]
        for row in data(chart, layer, panel)
    }


class TestAgainstCost:
    def test_a_panel_a_scope_with_common_axes_and_the_cost_on_the_horizontal_one(self):
        frame = made({"scopes": ["global", "layer"]})
        chart = against(frame).chart.to_dict()
        assert [panel["title"]["text"] for panel in panels(chart)] == ["Globally", "By layer"]
        points = [marks(panel)["point"][0] for panel in panels(chart)]
        assert points[0]["encoding"]["x"]["scale"] == points[1]["encoding"]["x"]["scale"]
        assert points[0]["encoding"]["y"]["scale"] == points[1]["encoding"]["y"]["scale"]
        low, high = points[0]["encoding"]["x"]["scale"]["domain"]
        for panel, scope in zip(panels(chart), ("global", "layer"), strict=True):
            shown = data(chart, marks(panel)["point"][0], panel)
            assert len(shown) == 4 * 3
            for row in shown:
                (wanted,) = frame[
                    (frame["criterion"].map(look.legend_entry) == row["criterion"])
                    & (frame["scope"] == scope)
                    & (frame["ratio"] == row["ratio"])
                ].itertuples()
                assert low < row["cost"] == wanted.macs < high
                assert row["accuracy"] == pytest.approx(100 * wanted.accuracy)
        assert marks(panels(chart)[0])["area"]
        assert {"rect", "rule"} <= marks(panels(chart)[0]).keys()

    def test_smaller_networks_that_were_never_pruned_have_a_mark_and_a_name_in_each_panel(self):
        frame = made({"scopes": ["global", "budget_macs"], "controls": ["squeezenet1_1"]})
        chart = against(frame).chart.to_dict()
        assert [panel["title"]["text"] for panel in panels(chart)] == ["Globally", "Within a budget of MACs"]
        (wanted,) = frame[frame["control"].notna()].itertuples()
        for panel in panels(chart):
            (square,) = (layer for layer in marks(panel)["point"] if layer["mark"].get("shape") == "square")
            (row,) = data(chart, square, panel)
            assert (row["criterion"], row["cost"]) == ("squeezenet1_1", wanted.macs)
            assert any(layer["encoding"]["text"].get("field") == "criterion" for layer in marks(panel)["text"])
        assert "Black squares are smaller networks" in against(frame).caption
        assert "Black squares" not in against(made()).caption
        # Of a budget the share is of what it is of.
        of_budget = drawn(frame, (*PLACE, "budget_macs"))
        assert marks(panels(of_budget)[0])["point"][0]["encoding"]["x"]["title"] == "Share of MACs removed"

    def test_rings_are_the_front_on_validation_accuracy_over_both_scopes(self):
        frame = made({"scopes": ["global", "layer"], "criteria": ["apoz", "average_weight"]})
        # On validation images alone the order is the other way round.
        weight = frame["criterion"] == "average_weight"
        frame.loc[weight, "val_accuracy"] += 0.5
        frame.loc[(frame["scope"] == "layer") & weight, "val_accuracy"] += 0.1
        chart = against(frame).chart.to_dict()
        networks = frame[frame["seeds"] > 0]
        expected = {
            (row.criterion.replace("_", " "), row.scope, row.ratio)
            for row in networks.itertuples()
            if not any(
                other.macs <= row.macs
                and other.val_accuracy >= row.val_accuracy
                and (other.macs, other.val_accuracy) != (row.macs, row.val_accuracy)
                for other in networks.itertuples()
            )
        }
        assert ringed(chart) == expected
        assert ("average weight", "layer", 0.2) in expected
        assert "unpruned, random weights" not in {name for name, _, _ in expected}
        assert "validation images" in against(frame).caption

    def test_without_validation_images_the_test_images_judge_and_the_caption_says_so(self):
        frame = made().assign(val_accuracy=math.nan)
        figure = against(frame)
        assert ("apoz", "layer", 0.2) in ringed(figure.chart.to_dict())
        assert "accuracy on the test images" in figure.caption
        assert "validation" not in figure.caption

    def test_the_title_is_the_front_at_the_headlines_ratio(self):
        figure = against(made())
        share = round(100 * metrics_of(grid.Cell(*PLACE, "apoz", "layer", 0.4, None, "inherited", 0))["macs"] / 1e8)
        assert figure.title == (
            f"Digits: apoz, by layer at ratio 0.4, loses 2.0 points with {share} % of the unpruned network's MACs"
        )
        assert figure.chart.to_dict()["title"]["text"][0].startswith("Digits: apoz, by layer at ratio 0.4")

    def test_a_cost_that_is_not_known_has_no_figure(self):
        frame = made()
        assert against(frame, "latency_ms") is None
        frame["latency_ms"] = [20.0 - row for row in range(len(frame))]
        figure = against(frame, "latency_ms")
        assert (figure.name, figure.group) == ("digits-vgg_digits-latency_ms", "Accuracy and latency")
        chart = figure.chart.to_dict()
        shown = data(chart, marks(chart)["point"][0])
        assert {row["cost"] for row in shown} == set(frame["latency_ms"][1:])

    def test_pruned_networks_that_are_slower_are_not_praised(self):
        frame = made().assign(latency_ms=2.0)
        frame.loc[0, "latency_ms"] = 1.0
        assert against(frame, "latency_ms").title == (
            "Digits: no pruned network has a lower latency than the unpruned one"
        )

    def test_random_weights_are_drawn_where_there_are_no_others(self):
        for inits, shown in (["random"], "random"), (["inherited", "random"], "inherited"):
            figure = against(made({"inits": inits}))
            chart = figure.chart.to_dict()
            assert {row["init"] for row in data(chart, marks(chart)["point"][0])} == {shown}
            assert ("Random weights." in figure.caption) == (shown == "random")

    def test_a_failed_baseline_is_left_out(self):
        figure = against(made(diverged=lambda cell: cell.ratio == 0))
        assert "text" not in marks(figure.chart.to_dict())
        assert "M MACs" in figure.title

    @pytest.mark.parametrize(("low", "high"), [(1e6, 1.1e6), (1e3, 9e8), (0.4, 1.3), (80e3, 620e3)])
    def test_ticks_lie_within_the_axis_and_are_neither_few_nor_many(self, low, high):
        frame = made().assign(macs=[high, *[low] * 12])
        x = marks(against(frame).chart.to_dict())["point"][0]["encoding"]["x"]
        first, last = x["scale"]["domain"]
        assert first < low < high < last
        assert all(first <= tick <= last for tick in x["axis"]["values"])
        assert 1 <= len(x["axis"]["values"]) <= 20


LAYERS = np.repeat(["features.2", "features.10"], [4, 6])


def kept(*filters):
    keep = np.zeros(10, bool)
    keep[list(filters)] = True
    return keep


MASKS = {
    ("apoz", 0.4): [kept(0, 1, 4, 5, 6, 7)],
    ("average_weight", 0.4): [kept(0, 1, 2, 3, 4, 5)],
    ("taylor", 0.4): [kept(0, 1, 4, 5, 6, 8)],
    ("random", 0.4): [kept(0, 4, 5, 6, 7, 8), kept(0, 1, 5, 6, 7, 8)],
}


def cells_of(chart, panel):
    """A heat map's rows of data."""
    return chart["datasets"][(panel.get("data") or panel["layer"][0].get("data") or chart["data"])["name"]]


class TestWidths:
    def test_a_panel_a_criterion_with_the_number_of_filters_that_stay(self):
        figure = filters.kept_by_layer(LAYERS, MASKS, *PLACE, "global")
        chart = figure.chart.to_dict()
        assert [panel["title"]["text"] for panel in chart["concat"]] == [
            *("Apoz", "Average weight", "Taylor", "Random control")
        ]
        numbers = [[row["number"] for row in cells_of(chart, panel)] for panel in chart["concat"]]
        assert numbers == [["2", "4"], ["4", "2"], ["2", "4"], ["2", "4"]]
        percents = [row["percent"] for row in cells_of(chart, chart["concat"][3])]
        assert percents == pytest.approx([100 * 1.5 / 4, 100 * 4.5 / 6])
        y = chart["concat"][0]["layer"][0]["encoding"]["y"]
        assert y["sort"] == ["features.2", "features.10"]

    def test_the_title_is_the_layer_on_which_criteria_differ_most(self):
        figure = filters.kept_by_layer(LAYERS, MASKS, *PLACE, "global")
        assert figure.title == "Digits, globally: at ratio 0.4 average weight keeps 100 % of features.2, apoz 50 %"

    def test_criteria_that_keep_equally_many_share_a_panel(self):
        masks = {key: found for key, found in MASKS.items() if key[0] in ("apoz", "taylor")}
        figure = filters.kept_by_layer(LAYERS, masks, *PLACE, "layer")
        (panel,) = figure.chart.to_dict()["concat"]
        assert panel["title"]["text"] == "Every criterion"
        assert figure.title == (
            "Digits, by layer: at ratio 0.4 every criterion keeps 50 % of features.2, but 67 % of features.10"
        )

    def test_layers_that_keep_the_same_share_are_said_to(self):
        figure = filters.kept_by_layer(LAYERS, {("apoz", 0.5): [kept(0, 1, 4, 5, 6)]}, *PLACE, "layer")
        assert figure.title == "Digits, by layer: at ratio 0.5 every layer keeps 50 % of its filters"


class TestAgreement:
    SCORES: ClassVar = {
        "taylor": np.arange(10.0),
        "random": np.zeros(10),
        "apoz": np.arange(10.0) ** 2,
        "average_weight": -np.arange(10.0),
    }

    def test_correlations_of_all_pairs_but_the_controls(self):
        figure = filters.rank_correlation(LAYERS, self.SCORES, *PLACE)
        rows = cells_of(chart := figure.chart.to_dict(), chart)
        assert len(rows) == 3 * 3
        assert {row["layer"] for row in rows} == {"all filters", "features.2", "features.10"}
        assert {row["pair"]: row["number"] for row in rows} == {
            "apoz / average weight": "−1.00",
            "apoz / taylor": "1.00",
            "average weight / taylor": "−1.00",
        }
        assert figure.title.startswith("Digits: apoz and taylor rank the filters most alike (Spearman 1.00), ")
        assert figure.title.endswith(" least (−1.00)")

    def test_a_layer_without_a_correlation_has_a_dash(self):
        scores = self.SCORES | {"apoz": np.array([1.0] * 4 + [*range(6)])}
        rows = cells_of(chart := filters.rank_correlation(LAYERS, scores, *PLACE).chart.to_dict(), chart)
        assert {row["number"] for row in rows if "apoz" in row["pair"] and row["layer"] == "features.2"} == {"–"}

    def test_one_criterion_agrees_with_nobody(self):
        alone = {"apoz": np.arange(10.0), "random": np.arange(10.0)}
        assert filters.rank_correlation(LAYERS, alone, *PLACE) is None
        masks = {key: found for key, found in MASKS.items() if key[0] in ("apoz", "random")}
        assert filters.overlap(LAYERS, masks, *PLACE, "global") is None

    @pytest.mark.parametrize(("scope", "chance"), [("global", 60.0), ("layer", 100 * (2 * 4 / 4 + 4 * 2 / 6) / 6)])
    def test_overlaps_are_those_of_the_masks_with_chance_beside_them(self, scope, chance):
        figure = filters.overlap(LAYERS, MASKS, *PLACE, scope)
        chart = figure.chart.to_dict()
        assert [panel["title"]["text"] for panel in chart["concat"]] == [
            "Apoz and …",
            "Average weight and …",
            "Taylor and …",
        ]
        rows = {row["criterion"]: row for row in cells_of(chart, chart["concat"][0])}
        assert rows.keys() == {"by chance", "average weight", "taylor"}
        assert rows["average weight"]["common"] == pytest.approx(100 * 4 / 6)
        assert rows["taylor"]["common"] == pytest.approx(100 * 5 / 6)
        assert rows["average weight"]["chance"] == pytest.approx(chance)
        assert "apoz and taylor keep 83 % of the same filters at ratio 0.4; by chance" in figure.title

    def test_two_criteria_need_one_panel(self):
        masks = {key: found for key, found in MASKS.items() if key[0] != "taylor"}
        (panel,) = filters.overlap(LAYERS, masks, *PLACE, "global").chart.to_dict()["concat"]
        assert panel["title"]["text"] == "Apoz and …"


def metrics(experiment):
    return {cell: metrics_of(cell) for cell in grid.cells(GRID | experiment)}


class TestWeights:
    def test_gains_are_paired_by_the_other_axes_and_by_seed(self):
        found = metrics({"scopes": ["global", "layer"], "inits": ["inherited", "random"], "ratios": [0, 0.4]})
        for cell, number in zip(found, itertools.count()):
            found[cell] = found[cell] | {"accuracy": 0.5 + 0.001 * number**1.5}
        del found[next(cell for cell in found if (cell.criterion, cell.init, cell.seed) == ("any", "random", 1))]
        gains = plot.gains_from_weights(found)
        assert len(gains) == 1 + 2 * 4
        for row in gains.itertuples():
            expected = [
                100 * (of_cell["accuracy"] - twin["accuracy"])
                for cell, of_cell in found.items()
                if (cell.criterion, cell.scope, cell.ratio, cell.init)
                == (row.criterion, row.scope, row.ratio, "inherited")
                for other, twin in found.items()
                if other.init == "random"
                and (other.seed, other.scope, other.ratio) == (cell.seed, cell.scope, cell.ratio)
                and other.criterion == ("any" if cell.scope == "layer" else cell.criterion)
            ]
            assert row.seeds == len(expected) == (2 if row.scope == "layer" else 3)
            assert row.gain == pytest.approx(sum(expected) / len(expected))
            assert (row.low, row.high) == pytest.approx(summary.interval(expected))

    def test_a_panel_a_scope_with_the_unpruned_network_in_each(self):
        gains = plot.gains_from_weights(
            metrics({"scopes": ["global", "layer"], "inits": ["inherited", "random"], "ratios": [0, 0.4, 0.6]})
        )
        figure = weights.inherited_less_random(gains, *PLACE)
        chart = figure.chart.to_dict()
        for panel in panels(chart):
            shown = data(chart, marks(panel)["point"][0], panel)
            assert {(row["criterion"], row["ratio"]) for row in shown} == {
                ("unpruned", 0),
                *itertools.product(("apoz", "average weight", "mean activation", "random control"), (0.4, 0.6)),
            }
        # any: 0.95 - 0.1 · 0.4 - 0.05; apoz: 0.95 - 0.05 · 0.4
        assert figure.title == (
            "Digits: at ratio 0.4, inherited weights gain 7.0 points over random ones under apoz, by layer"
        )

    def test_only_where_there_are_both(self):
        for inits in ["inherited"], ["random"]:
            assert (plot.gains_from_weights(metrics({"inits": inits}))["scope"] == grid.NO_SCOPE).all()


def accuracies(losses, seeds=3):
    """Per-class accuracies of unpruned and pruned networks that lose so many points, a little more with each seed."""
    names = list(string.ascii_letters[: len(losses)])
    unpruned = pd.DataFrame([[0.9] * len(losses)] * seeds, columns=names)
    steps = [[loss / 100 + 0.01 * (seed - (seeds - 1) / 2) for loss in losses] for seed in range(seeds)]
    return unpruned - pd.DataFrame(steps, columns=names), unpruned


ROW = pd.Series({"criterion": "apoz", "ratio": 0.4, "init": "inherited", "protocol": "one_shot"})


class TestClasses:
    def test_worst_first_with_mean_and_range_over_seeds(self):
        figure = classes.class_losses(*accuracies([1, 7, -2]), ROW, *KEY)
        chart = figure.chart.to_dict()
        (bars,) = marks(chart)["bar"]
        rows = data(chart, bars)
        assert [row["class"] for row in rows] == ["b", "a", "c"]
        assert bars["encoding"]["y"]["sort"] == ["b", "a", "c"]
        assert [row["change"] for row in rows] == pytest.approx([-7, -1, 2])
        assert [(row["low"], row["high"]) for row in rows] == [
            pytest.approx(pair) for pair in [(-8, -6), (-2, 0), (1, 3)]
        ]
        assert [(row["before"], row["after"]) for row in rows] == [
            pytest.approx(pair) for pair in [(90, 83), (90, 89), (90, 92)]
        ]
        (ticks,) = marks(chart)["tick"]
        assert len(data(chart, ticks)) == 3 * 3
        assert figure.title == (
            "Digits, by layer (apoz, ratio 0.4): class b loses most, 7.0 points; one loses more than 1 point"
        )

    def test_of_many_classes_the_worst_are_shown_and_the_rest_told(self):
        figure = classes.class_losses(*accuracies([*range(40)]), ROW, *KEY)
        chart = figure.chart.to_dict()
        rows = data(chart, marks(chart)["bar"][0])
        assert [row["change"] for row in rows] == pytest.approx([*range(-39, -9)])
        assert "30 worst of 40 classes; the others change by −9.0 to +0.0 points" in " ".join(
            chart["title"]["subtitle"]
        )
        assert "38 of 40 classes lose more than 1 point" in figure.title

    def test_seeds_are_paired_and_one_that_failed_is_left_out(self):
        pruned, unpruned = accuracies([4, 0])
        figure = classes.class_losses(pruned, unpruned.drop(index=0), ROW, *KEY)
        chart = figure.chart.to_dict()
        assert data(chart, marks(chart)["bar"][0])[0]["change"] == pytest.approx(-4.5)
        assert len(data(chart, marks(chart)["tick"][0])) == 2 * 2
        assert classes.class_losses(pruned.iloc[:1], unpruned.iloc[1:], ROW, *KEY) is None
        one = classes.class_losses(pruned.iloc[:1], unpruned, ROW, *KEY).chart.to_dict()
        assert "tick" not in marks(one)

    def test_if_none_loses_it_says_so(self):
        assert "class b gains least, 1.0 points; none loses more than 1 point" in (
            classes.class_losses(*accuracies([-2, -1]), ROW, *KEY).title
        )

    def test_random_weights_are_named(self):
        row = ROW.replace({"inherited": "random"})
        assert "(apoz, ratio 0.4, random weights)" in classes.class_losses(*accuracies([2, 1]), row, *KEY).title


def responses(filters_a_layer=60, number=5, silent=()):
    found = activations_of(dict.fromkeys(("a", "b", "c", "d"), filters_a_layer), number)
    for layer in "abcd":
        for name in ("sum", "sum_sq"):
            found.of(layer, name)[:, list(silent)] = 0.0
    return analysis.responses(found)


class TestActivations:
    def test_specificity_has_the_quantiles_of_both_measures(self):
        found = responses(silent=[3, 4])
        figure = activations.class_specificity(found, *PLACE)
        chart = figure.chart.to_dict()
        measures = (
            [analysis.class_selectivity(layer.means) for layer in found],
            [analysis.between_class_share(layer) for layer in found],
        )
        for panel, values in zip(chart["hconcat"], measures, strict=True):
            rows = cells_of(chart, panel)
            assert [row["layer"] for row in rows] == ["a", "b", "c", "d"]
            for row, of_layer in zip(rows, values, strict=True):
                for name, share in {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}.items():
                    assert row[name] == pytest.approx(np.nanquantile(of_layer, share))
        first, last = (np.nanmedian(measures[0][number]) for number in (0, -1))
        assert figure.title == (
            f"Digits: d is the most class-specific layer, with a median selectivity of {last:.2f}; a has {first:.2f}"
        )
        assert "8 of 240 filters never answer and are left out" in chart["title"]["subtitle"]

    def test_a_layer_that_is_silent_is_left_out(self):
        found = responses()
        found[1] = dataclasses.replace(found[1], sum=np.zeros((60, 5)))
        rows = cells_of(chart := activations.class_specificity(found, *PLACE).chart.to_dict(), chart["hconcat"][0])
        assert [row["layer"] for row in rows] == ["a", "c", "d"]
        assert activations.class_specificity(responses(silent=range(60)), *PLACE) is None
        assert activations.activation_map(responses(silent=range(60)), "vwxyz", *PLACE) is None

    def test_the_map_has_the_most_specific_filters_of_an_early_a_middle_and_a_late_layer(self):
        found = responses()
        names = ["v", "w", "x", "y", "z"]
        figure = activations.activation_map(found, names, *PLACE)
        chart = figure.chart.to_dict()
        assert [panel["title"]["text"] for panel in panels(chart)] == [f"{name}: 48 of 60" for name in "acd"]
        for panel, number in zip(panels(chart), (0, 2, 3), strict=True):
            means = found[number].means
            best = set(np.argsort(-analysis.class_selectivity(means), kind="stable")[:48].tolist())
            rows = chart["datasets"][panel["data"]["name"]] if "name" in panel["data"] else panel["data"]["values"]
            assert {row["f"] for row in rows} == best
            assert len(rows) == 48 * 5
            order = panel["encoding"]["x"]["sort"]
            assert sorted(order) == names
            for row in rows:
                column = names.index(order[row["c"]])
                assert row["v"] == pytest.approx(means[row["f"], column] / means[row["f"]].max(), abs=5e-4)
            assert set(panel["encoding"]["y"]["sort"]) == best

    def test_its_title_is_measured(self):
        found = responses()
        selectivity = np.sort(analysis.class_selectivity(found[-1].means))[-48:]
        means = found[-1].means[np.argsort(-analysis.class_selectivity(found[-1].means))[:48]]
        largest = means.max(axis=1)
        times = np.median(largest / ((means.sum(axis=1) - largest) / 4))
        assert f"{times:.1f} times as strongly" in activations.activation_map(found, "vwxyz", *PLACE).title
        assert selectivity.size == 48

    def test_many_classes_are_capped_and_their_maps_stand_one_over_the_other(self):
        found = responses(filters_a_layer=6, number=150)
        chart = activations.activation_map(found, [str(number) for number in range(150)], *PLACE).chart.to_dict()
        assert len(chart["vconcat"]) == 3
        order = chart["vconcat"][-1]["encoding"]["x"]["sort"]
        shares = found[-1].means / found[-1].means.max(axis=1, keepdims=True)
        lightest = shares.max(axis=0)[[int(name) for name in order]].min()
        others = [number for number in range(150) if str(number) not in order]
        assert len(order) == 120
        assert shares.max(axis=0)[others].max() <= lightest
        assert "120 of 150 classes" in " ".join(chart["title"]["subtitle"])

    def test_one_class_has_nothing_to_compare(self):
        assert activations.class_specificity(responses(number=1), *PLACE) is None
        assert activations.activation_map(responses(number=1), ["a"], *PLACE) is None


SPEC = {"code": "c0de", "experiment": "demo", "activations": True, "folds": {}}
NETWORK = {"features.0": 8, "features.2": 12, "features.10": 16}


def run_plot(folder, output, spec=SPEC, experiment=GRID):
    arguments = ["--spec", json.dumps(spec | {"grid": experiment}), "--summary", str(folder / "summary.parquet")]
    plot.main(plot.parser().parse_args([*arguments, "--results", str(folder), "--output", str(output)]))


BOTH = GRID | {"scopes": ["global", "layer"], "inits": ["inherited", "random"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    results(folder, BOTH, NETWORK, ["5", "6", "7"], lambda cell: cell.criterion == "apoz" and cell.seed == 1)
    run_plot(folder, folder / "figures", experiment=BOTH)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and listed, and not drawn: it is drawing that takes time."""
    monkeypatch.setattr(look, "write", lambda figure, folder: None)


@pytest.mark.usefixtures("undrawn")
def test_cells_that_make_their_own_masks_have_figures_but_those_of_masks(tmp_path):
    experiment = GRID | {"protocols": ["iterative_3"]}
    results(tmp_path, experiment, NETWORK, ["5", "6", "7"])
    run_plot(tmp_path, tmp_path / "own", SPEC | {"activations": False}, experiment)
    names = {entry["name"] for entry in index_of(tmp_path / "own")}
    assert {"digits-vgg_digits-layer", "digits-vgg_digits-macs", "digits-vgg_digits-layer-classes"} <= names
    assert {entry["group"] for entry in index_of(tmp_path / "own")} == {
        look.Group.ACCURACY,
        look.Group.SIZE,
        look.Group.LOSSES,
    }


def index_of(folder):
    return json.loads((folder / "index.json").read_text())


class TestFiles:
    def test_the_index_lists_what_was_made_in_the_order_of_a_page(self, folder):
        index = index_of(folder / "figures")
        assert [(entry["name"].removeprefix("digits-vgg_digits-"), entry["group"]) for entry in index] == [
            ("global", "Accuracy"),
            ("layer", "Accuracy"),
            ("macs", "Accuracy and size"),
            ("params", "Accuracy and size"),
            ("global-classes", "Classes that lose most"),
            ("layer-classes", "Classes that lose most"),
            ("weights", "Inherited or random weights"),
            ("global-widths", "Filters kept"),
            ("layer-widths", "Filters kept"),
            ("global-overlap", "Agreement of the criteria"),
            ("layer-overlap", "Agreement of the criteria"),
            ("correlation", "Agreement of the criteria"),
            ("specificity", "Classes and filters"),
            ("activations", "Classes and filters"),
        ]
        assert {path.name for path in (folder / "figures").iterdir()} == {"index.json"} | {
            f"{entry['name']}.{suffix}" for entry in index for suffix in ("json", "png", "svg")
        }
        for entry in index:
            assert entry.keys() == {"name", "group", "title", "caption"}
            assert entry["title"].startswith("Digits")
            assert any(character.isdigit() for character in entry["title"])
            assert entry["caption"].endswith(".")

    def test_every_svg_is_whole_needs_no_network_and_shows_its_title(self, folder):
        for entry in index_of(folder / "figures"):
            root = ElementTree.parse(folder / "figures" / f"{entry['name']}.svg").getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
            words += [element.text for element in root.iter("{http://www.w3.org/2000/svg}tspan")]
            assert set(entry["title"].split()) <= set(" ".join(filter(None, words)).split())
            assert not [e for e in root.iter() if any(key.endswith("href") for key in e.attrib)]

    def test_svgs_can_stand_on_one_page(self, folder):
        ids = []
        for path in (folder / "figures").glob("*.svg"):
            text = path.read_text()
            own = re.findall(r'\bid="([^"]+)"', text)
            assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(own)
            ids += own
        assert ids
        assert len(set(ids)) == len(ids)

    def test_png_is_twice_the_size_of_the_svg(self, folder):
        content = (folder / "figures" / "digits-vgg_digits-layer.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        root = ElementTree.parse(folder / "figures" / "digits-vgg_digits-layer.svg").getroot()
        assert int.from_bytes(content[16:20]) == pytest.approx(2 * float(root.get("width")), abs=2)

    def test_json_carries_its_data(self, folder):
        for path in (folder / "figures").glob("digits*.json"):
            assert "url" not in path.read_text()
        chart = json.loads((folder / "figures" / "digits-vgg_digits-global.json").read_text())
        shown = [row for panel in panels(chart) for row in data(chart, marks(panel)["point"][0], panel)]
        assert len(shown) == 2 * 4 * 3

    @pytest.mark.usefixtures("undrawn")
    def test_a_grid_of_its_own_shows_its_own_cells_and_needs_no_statistics(self, tmp_path):
        experiment = BOTH | {"criteria": ["average_weight", "random"], "scopes": ["global"], "inits": ["inherited"]}
        results(tmp_path, experiment, NETWORK, ["5", "6"])
        shutil.rmtree(tmp_path / "statistics")
        shutil.rmtree(tmp_path / "datasets")
        run_plot(tmp_path, tmp_path / "figures", SPEC | {"activations": False}, experiment)
        names = [entry["name"].removeprefix("digits-vgg_digits-") for entry in index_of(tmp_path / "figures")]
        assert names == ["global", "macs", "params", "global-classes", "global-widths"]

    def test_where_nothing_finished_there_is_no_figure_and_no_failure(self, tmp_path, capsys):
        results(tmp_path, GRID, NETWORK, ["5", "6"], diverged=lambda cell: True)
        run_plot(tmp_path, tmp_path / "figures")
        assert [path.name for path in (tmp_path / "figures").iterdir()] == ["index.json"]
        assert index_of(tmp_path / "figures") == []
        assert "demo: 0 figures" in capsys.readouterr().err

    def test_where_only_baselines_finished_there_is_none_either(self, tmp_path):
        results(tmp_path, GRID, NETWORK, ["5", "6"], diverged=lambda cell: cell.ratio > 0)
        run_plot(tmp_path, tmp_path / "figures")
        assert index_of(tmp_path / "figures") == []

    @pytest.mark.usefixtures("undrawn")
    def test_cells_that_a_partial_summary_leaves_out_are_not_asked_for(self, tmp_path):
        results(tmp_path, GRID, NETWORK, ["5", "6"], diverged=lambda cell: cell.ratio == 0.8)
        for path in tmp_path.glob("cells/**/0.800"):
            shutil.rmtree(path)
        for path in tmp_path.glob("masks/**/0.800.parquet"):
            path.unlink()
        run_plot(tmp_path, tmp_path / "figures")
        assert len(index_of(tmp_path / "figures")) == 9

    def test_names_that_collide_are_an_error(self, tmp_path):
        experiment = GRID | {"datasets": ["a", "a-b"], "backbones": ["b-c", "c"], "ratios": [0.4], "seeds": [0]}
        results(tmp_path, experiment, NETWORK, ["5", "6"])
        with pytest.raises(InputError, match=r"\('a', 'b-c'\) and \('a-b', 'c'\) .* name, a-b-c-layer: rename"):
            run_plot(tmp_path, tmp_path / "figures", experiment=experiment)

    @pytest.mark.parametrize(
        "name",
        [
            "summary.parquet",
            "masks/digits/vgg_digits/apoz/layer/0.400.parquet",
            "scores/digits/vgg_digits/apoz.parquet",
            "statistics/digits/vgg_digits/activations.npz",
        ],
    )
    def test_a_damaged_table_is_named(self, folder, tmp_path, name):
        copied = tmp_path / "results"
        shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("figures"))
        whole = (copied / name).read_bytes()
        (copied / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=rf"{Path(name).name} cannot be read"):
            run_plot(copied, tmp_path / "figures", experiment=BOTH)

    @pytest.mark.slow("a process of its own draws all figures")
    def test_a_process_of_its_own_without_network_draws_the_same_bytes(self, folder, tmp_path):
        unshare = ["unshare", "--net", "--map-root-user"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode:
            unshare = []  # not allowed here
        command = [sys.executable, Path(plot.__file__), "--spec", json.dumps(SPEC | {"grid": BOTH})]
        command += ["--results", folder, "--summary", folder / "summary.parquet", "--output", tmp_path]
        subprocess.run([*unshare, *command], check=True, capture_output=True)
        assert len(list(tmp_path.iterdir())) == 3 * 14 + 1
        for path in tmp_path.iterdir():
            assert path.read_bytes() == (folder / "figures" / path.name).read_bytes(), path.name


def test_a_thesis_size_map_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(look.vl_convert, "svg_to_png", lambda svg, scale: b"")
    names = [f"hard-leaved pocket orchid {number}" for number in range(102)]
    found = analysis.responses(activations_of({"a": 64, "b": 256, "c": 512}, 102))
    look.write(activations.activation_map(found, names, *PLACE), tmp_path)
    sizes = {path.suffix: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes[".json"] < 1.5e6
    assert sizes[".svg"] < 1.5e6
