"""The figures: what is drawn from which column, how series are told apart, and the files."""

import itertools
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import plot
from winnow import figures, grid, summary, tables
from winnow.files import InputError

GRID = {
    "datasets": ["digits"],
    "backbones": ["vgg_digits"],
    "criteria": ["apoz", "mean_activation", "average_weight", "random"],
    "scopes": ["layer"],
    "ratios": [0.2, 0.4, 0.8],
    "inits": ["inherited"],
    "seeds": [0, 1, 2],
}
LOSSES = {"unpruned": 0, "apoz": 0.05, "mean_activation": 0.1, "average_weight": 0.2, "random": 0.6, "any": 0.1}
KEY = ("digits", "vgg_digits", "layer")


def made(experiment=None, diverged=lambda cell: False, top=0.95, spread=0.002):
    """A summary of invented cells."""
    rows = []
    for cell in grid.cells(GRID | (experiment or {})):
        accuracy = top - LOSSES.get(cell.criterion, 0.3) * cell.ratio + spread * (cell.seed - 1)
        accuracy -= 0.05 * (cell.init == "random")
        rows.append(
            (
                cell,
                {
                    "status": "diverged" if diverged(cell) else "finished",
                    "accuracy": accuracy,
                    "class_accuracy": accuracy,
                    "val_accuracy": accuracy,
                    "params": 1000,
                    "macs": 1000,
                    "bytes": 4000,
                    "achieved_ratio": cell.ratio - 0.004,
                    "seconds": {"total": 1.0},
                },
            )
        )
    return summary.summarise(rows)


def drawn(frame, key=KEY):
    return figures.accuracy_against_ratio(frame, *key).to_dict()


def panels(chart):
    return chart.get("hconcat", [chart])


def marks(panel):
    """Mark type → layers of it."""
    found = {}
    for layer in panel["layer"]:
        found.setdefault(layer["mark"]["type"], []).append(layer)
    return found


def data(chart, layer, panel=None):
    source = layer.get("data") or (panel or {}).get("data") or chart["data"]
    return chart["datasets"][source["name"]]


class TestChart:
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
        criteria = [*LOSSES, "taylor", "entropy", "fpgm", "l2", "geometric", "sensitivity"]
        chart = drawn(made({"criteria": [name for name in criteria if name not in ("unpruned", "any")]}))
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
        looks = [*figures._LOOKS.values(), *figures._SPARE_LOOKS]
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


def run_plot(folder, output):
    arguments = ["--spec", '{"code": "c0de", "experiment": "demo"}', "--summary", str(folder / "summary.parquet")]
    plot.main(plot.parser().parse_args([*arguments, "--output", str(output)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    frame = made({"scopes": ["global", "layer"]}, diverged=lambda cell: cell.criterion == "apoz" and cell.seed == 1)
    tables.write_table(folder / "summary.parquet", frame, "summary", {})
    run_plot(folder, folder / "figures")
    return folder


class TestFiles:
    def test_one_figure_a_scope_in_three_formats(self, folder):
        assert sorted(path.name for path in (folder / "figures").iterdir()) == [
            f"digits-vgg_digits-{scope}.{suffix}" for scope in ("global", "layer") for suffix in ("json", "png", "svg")
        ]

    def test_svg_is_whole_and_needs_no_network(self, folder):
        text = (folder / "figures" / "digits-vgg_digits-layer.svg").read_text()
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {"apoz", "mean activation", "random control", "Test accuracy (%)", "unpruned 95.0 %"} <= words
        assert "Digits, by layer: apoz loses 2.0 points at ratio 0.4" in words
        assert not [e for e in root.iter() if any(key.endswith("href") for key in e.attrib)]

    def test_png_is_twice_the_size_of_the_svg(self, folder):
        content = (folder / "figures" / "digits-vgg_digits-layer.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        root = ElementTree.parse(folder / "figures" / "digits-vgg_digits-layer.svg").getroot()
        assert int.from_bytes(content[16:20]) == pytest.approx(2 * float(root.get("width")), abs=2)

    def test_json_carries_its_data(self, folder):
        chart = json.loads((folder / "figures" / "digits-vgg_digits-global.json").read_text())
        assert "url" not in json.dumps(chart)
        assert len(data(chart, marks(chart)["point"][0])) == 4 * 3

    def test_the_same_summary_gives_the_same_bytes(self, folder):
        run_plot(folder, folder / "again")
        for path in (folder / "figures").iterdir():
            assert path.read_bytes() == (folder / "again" / path.name).read_bytes(), path.name

    def test_where_nothing_finished_there_is_no_figure_and_no_failure(self, tmp_path, capsys):
        tables.write_table(tmp_path / "summary.parquet", made(diverged=lambda cell: True), "summary", {})
        run_plot(tmp_path, tmp_path / "figures")
        assert list((tmp_path / "figures").iterdir()) == []
        assert "demo: 0 figures" in capsys.readouterr().err

    def test_names_that_collide_are_an_error(self):
        frame = made({"datasets": ["a", "a-b"], "backbones": ["b-c", "c"]})
        with pytest.raises(InputError, match=r"same name, a-b-c-layer: rename one"):
            figures.file_names(frame)

    def test_a_damaged_summary_is_named(self, folder, tmp_path):
        whole = (folder / "summary.parquet").read_bytes()
        (tmp_path / "summary.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"summary\.parquet cannot be read"):
            run_plot(tmp_path, tmp_path / "figures")

    def test_draws_without_network(self, folder, tmp_path):
        unshare = ["unshare", "--net", "--map-root-user"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode:
            pytest.skip("network namespaces are not allowed here")
        command = [sys.executable, Path(plot.__file__), "--spec", '{"experiment": "demo"}']
        command += ["--summary", folder / "summary.parquet", "--output", tmp_path]
        subprocess.run([*unshare, *command], check=True, capture_output=True)
        assert len(list(tmp_path.iterdir())) == 6
