"""The summary: numbers against formulas written out, what happens to failed seeds, and the files that people read."""

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import show
import summarize
from winnow import tables
from winnow.answers import intervals, summary
from winnow.files import InputError
from winnow.workflow import grid
from winnow.workflow.grid import Cell

GRID = {
    "datasets": ["digits"],
    "backbones": ["vgg_digits"],
    "criteria": ["apoz", "mean_activation", "random"],
    "scopes": ["global", "layer"],
    "ratios": [0.4, 0.8],
    "inits": ["inherited", "random"],
    "seeds": [0, 1, 2],
    "round_to": None,
}
DIVERGED = {"status": "diverged", "reason": "loss is nan in epoch 3 at learning rate 0.5", "accuracy": None}


def metrics(accuracy, **changes):
    return {
        "status": "finished",
        "reason": None,
        "accuracy": accuracy,
        "class_accuracy": accuracy - 0.01,
        "val_accuracy": accuracy + 0.01,
        "params": 84_100_000,
        "macs": 5_620_000_000,
        "bytes": 336_400_000,
        "achieved_ratio": 0.4,
        "seconds": {"total": 2.0, "train": 1.5},
    } | changes


def cell(criterion="apoz", seed=0, ratio=0.4, scope="layer", **changes):
    return (
        Cell("digits", "vgg_digits", criterion, scope, ratio, None, "inherited", seed)
        if not changes
        else (dataclasses.replace(cell(criterion, seed, ratio, scope), **changes))
    )


def with_baseline(accuracies, baselines):
    """Rows of one pruned cell and its baseline; None stands for a diverged seed."""
    rows = []
    for pruned, values in ((True, accuracies), (False, baselines)):
        for seed, value in values.items():
            one = cell(seed=seed) if pruned else cell(seed=seed).baseline
            rows.append((one, DIVERGED if value is None else metrics(value)))
    return rows


IMAGES = 1000


def right(accuracy):
    """Test outcomes of so much accuracy: a network that is better is right on more of the same images."""
    return np.arange(IMAGES) < round(IMAGES * accuracy)


def sides_of(rows):
    """Test outcomes of cells whose accuracy their metrics have; the classes take turns."""
    found = dict(rows)

    def sides(cells, backbone):
        pairs = [[right(found[each]["accuracy"]) for each in (one.baseline_of(backbone), one)] for one in cells]
        return *np.array(pairs).swapaxes(0, 1), np.arange(IMAGES) % 2

    return sides


def pruned_row(rows):
    frame = summary.summarise(rows, sides=sides_of(rows))
    return frame[frame["criterion"] != "unpruned"].iloc[0]


def fake_results(root, experiment=None, accuracy=None):
    """A tree of metrics.json for a grid; ``accuracy`` maps a cell to a number or to metrics."""

    def default(one):
        loss = {"unpruned": 0, "apoz": 0.05, "mean_activation": 0.1, "random": 0.5, "any": 0.1}[one.criterion]
        return 0.95 - loss * one.ratio - 0.002 * one.seed - 0.05 * (one.init == "random")

    for one in grid.cells(experiment or GRID):
        value = (accuracy or default)(one)
        path = root / "cells" / one.path / "metrics.json"
        path.parent.mkdir(parents=True)
        value = value if isinstance(value, dict) else metrics(value)
        path.write_text(json.dumps(value))
        predictions(path.parent / "predictions.parquet", value.get("accuracy"))


def predictions(path, accuracy, first=0):
    """A cell's test outcomes; none where its training diverged."""
    correct = right(accuracy) if accuracy is not None else np.zeros(0, dtype=bool)
    rows = np.arange(correct.size)
    columns = {"image": first + rows, "label": rows % 2, "predicted": rows % 2, "probability": np.ones(rows.size)}
    tables.write_table(path, pd.DataFrame(columns | {"correct": correct}), "predictions", {"spec": {}})


def latency(milliseconds, unpruned=0.5):
    """A latency's file: what the summary needs of it."""
    batch = {"unpruned_ms": {"median": unpruned}, "speedup": {"median": unpruned / milliseconds}}
    return {"batches": {"1": batch, "32": batch}}


def fake_latencies(root, experiment, milliseconds):
    for name in grid.latencies(experiment, grid.cells(experiment)):
        path = root / "latency" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(latency(milliseconds(name))))


def run_summarize(root, output, *flags, experiment=None):
    spec = {"code": "c0de", "experiment": "demo", "grid": experiment or GRID}
    arguments = ["--spec", json.dumps(spec), "--results", str(root), "--output", str(output), *flags]
    summarize.main(summarize.parser().parse_args(arguments))
    return summary.read(output / "summary.parquet")


def test_libraries_that_change_numbers_are_named_where_several_meet(tmp_path):
    new, old = ({"versions": {"torch": version, "torchvision": "0.1", "winnow": version}} for version in ("2.2", "2.1"))
    assert summary.mixed_versions([new, new, None]) is None
    # Winnow's own version is none of them: its code is in each cell's spec.
    assert summary.mixed_versions([new, new | {"versions": new["versions"] | {"winnow": "9"}}]) is None
    remark = summary.mixed_versions([old, new, new])
    assert "1 with torch 2.1, torchvision 0.1; 2 with torch 2.2, torchvision 0.1" in remark
    results = tmp_path / "results"
    versions = iter([old, new] * 50)
    fake_results(results, accuracy=lambda one: metrics(0.9) | next(versions))
    run_summarize(results, tmp_path)
    assert "torch 2.1, torchvision 0.1" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_networks_that_were_not_trained_alike_are_marked_and_named(tmp_path, capsys, batch_norm):
    def found(one):
        fewer = (one.criterion, one.scope, one.ratio, one.seed) == ("apoz", "layer", 0.4, 1)
        return metrics(0.9, batch_norm=batch_norm, micro_batch=16 if fewer else 32)

    fake_results(tmp_path, accuracy=found)
    frame = run_summarize(tmp_path, tmp_path)
    show.main(show.parser().parse_args(["--summary", str(tmp_path / "summary.parquet")]))
    printed = capsys.readouterr().out
    page = (tmp_path / "summary.md").read_text()
    if not batch_norm:
        # What batches are added up of changes last bits.
        assert set(frame["unequal_seeds"]) == {""}
        assert "≠" not in printed + page
        return
    row = frame.query("criterion == 'apoz' and scope == 'layer' and ratio == 0.4 and init == 'inherited'")
    assert row["unequal_seeds"].tolist() == ["1"]
    assert (frame["unequal_seeds"] != "").sum() == 1
    text = summary.formatted(frame)["drop, points"]
    assert text[text.str.endswith(" ≠")].index.tolist() == row.index.tolist()
    remark = "Not trained alike (≠)", "digits, vgg_digits, apoz, layer, ratio 0.4, inherited: seed 1"
    assert all(part in page for part in remark)
    assert all(part in " ".join(printed.split()) for part in remark)
    # Which of the two had to shrink makes no difference.
    rows = [(cell(), metrics(0.9) | {"batch_norm": True, "micro_batch": 32})]
    rows += [(cell().baseline, metrics(0.9) | {"batch_norm": True, "micro_batch": 8})]
    assert pruned_row(rows)["unequal_seeds"] == "0"


class TestNumbers:
    def test_mean_spread_and_interval_are_those_of_the_formulas(self):
        accuracies, baselines = {0: 0.91, 1: 0.93, 2: 0.89, 3: 0.94}, {0: 0.95, 1: 0.96, 2: 0.955, 3: 0.948}
        row = pruned_row(with_baseline(accuracies, baselines))
        values = np.array(list(accuracies.values()))
        drops = np.array(list(baselines.values())) - values
        # Printed tables give t(0.975, 3) = 3.182446.
        half = 3.182446305 * values.std(ddof=1) / 2
        assert row["accuracy"] == pytest.approx(values.mean(), abs=1e-12)
        assert row["accuracy_std"] == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / 3), abs=1e-12)
        assert row["accuracy_low"] == pytest.approx(values.mean() - half, abs=1e-9)
        assert row["accuracy_high"] == pytest.approx(values.mean() + half, abs=1e-9)
        sides = [np.array([right(value) for value in each.values()]) for each in (baselines, accuracies)]
        assert row["drop"] == pytest.approx(drops.mean(), abs=1e-12)
        paired = intervals.paired_interval(*sides)
        assert row[["drop", "drop_low", "drop_high"]].tolist() == pytest.approx(list(paired), abs=1e-12)
        classes = intervals.paired_interval(*sides, np.arange(IMAGES) % 2)
        assert row[["class_drop", "class_drop_low", "class_drop_high"]].tolist() == pytest.approx(list(classes))
        assert row["seeds"] == 4
        assert row["failed_seeds"] == ""

    def test_pairing_takes_out_what_seeds_share(self):
        """Accuracies that swing with the seed, with the baseline swinging alike: the drop is sharp all the same."""
        swing = {0: 0.0, 1: 0.1, 2: -0.1}
        row = pruned_row(with_baseline({s: 0.8 + d for s, d in swing.items()}, {s: 0.85 + d for s, d in swing.items()}))
        assert row["drop"] == pytest.approx(0.05, abs=1e-12)
        assert row["drop_high"] - row["drop_low"] < 0.03
        assert row["accuracy_high"] - row["accuracy_low"] > 0.2

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_drop_is_the_mean_over_the_seeds_that_both_have(self, data):
        outcome = st.one_of(st.none(), st.integers(0, IMAGES).map(lambda count: count / IMAGES))
        seeds = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
        accuracies = {seed: data.draw(outcome) for seed in seeds}
        baselines = {seed: data.draw(outcome) for seed in seeds}
        row = pruned_row(with_baseline(accuracies, baselines))

        done = [accuracies[seed] for seed in seeds if accuracies[seed] is not None]
        drops = [
            baselines[seed] - accuracies[seed] for seed in seeds if None not in (accuracies[seed], baselines[seed])
        ]
        assert row["seeds"] == len(done)
        assert row["failed_seeds"] == ", ".join(str(seed) for seed in sorted(seeds) if accuracies[seed] is None)
        for column, values in ("accuracy", done), ("drop", drops):
            if not values:
                assert pd.isna(row[column])
            else:
                assert row[column] == pytest.approx(sum(values) / len(values), abs=1e-12)
            # Of one training there is an interval over images.
            least = 2 if column == "accuracy" else 1
            assert pd.isna(row[f"{column}_low"]) == pd.isna(row[f"{column}_high"]) == (len(values) < least)
        if len(done) > 1:
            low, high = scipy.stats.t.interval(0.95, len(done) - 1, np.mean(done), max(scipy.stats.sem(done), 1e-300))
            assert row["accuracy_low"] == pytest.approx(low, abs=1e-9)
            assert row["accuracy_high"] == pytest.approx(high, abs=1e-9)

    def test_one_seed_has_a_mean_and_no_interval_but_over_images(self):
        row = pruned_row(with_baseline({7: 0.9}, {7: 0.95}))
        assert row["accuracy"] == 0.9
        assert row["drop"] == pytest.approx(0.05)
        assert row[["accuracy_std", "accuracy_low", "accuracy_high"]].isna().all()
        assert row["drop_low"] < row["drop"] < row["drop_high"]

    def test_how_trainings_scatter_is_pooled_over_networks(self):
        """Three seeds that hardly differ: with a second network that says the same, more is known of it."""
        accuracies = {0: 0.90, 1: 0.91, 2: 0.905}, {0: 0.89, 1: 0.88, 2: 0.90}
        rows = with_baseline(accuracies[0], {0: 0.95, 1: 0.945, 2: 0.955})
        alone = pruned_row(rows)
        rows += [(cell("apoz", seed=s, ratio=0.8), metrics(value)) for s, value in accuracies[1].items()]
        together = summary.summarise(rows, sides=sides_of(rows)).query("ratio == 0.4").iloc[0]
        assert together["drop"] == alone["drop"]
        assert together["drop_high"] < alone["drop_high"]

    def test_a_network_whose_baseline_is_of_other_test_images_is_an_error(self, tmp_path):
        fake_results(tmp_path)
        one = cell(seed=1)
        place = tmp_path / "cells" / one.path / "predictions.parquet"
        predictions(place, 0.9, first=5)
        with pytest.raises(InputError, match=f"{one.path}.*other test images than {one.baseline.path}"):
            run_summarize(tmp_path, tmp_path / "out")

    def test_the_baseline_is_that_of_the_same_data_set_and_backbone(self):
        rows = []
        for dataset, backbone, accuracy in ("a", "v", 0.9), ("a", "w", 0.8), ("b", "v", 0.7):
            own = cell(dataset=dataset, backbone=backbone)
            rows += [(own, metrics(0.6)), (own.baseline, metrics(accuracy))]
        frame = summary.summarise(rows).query("criterion == 'apoz'").set_index(["dataset", "backbone"])
        assert frame["drop"].to_dict() == pytest.approx({("a", "v"): 0.3, ("a", "w"): 0.2, ("b", "v"): 0.1})

    def test_random_weights_are_compared_with_inherited_ones(self):
        whole = dataclasses.replace(cell().baseline, init="random")
        pruned = cell("any", init="random")
        frame = summary.summarise([(cell().baseline, metrics(0.9)), (whole, metrics(0.7)), (pruned, metrics(0.6))])
        assert frame["drop"].tolist() == pytest.approx([0.0, 0.2, 0.3])

    def test_sizes_that_differ_by_seed_are_averaged_and_rounded(self):
        rows = [
            (cell("random", seed=s), metrics(0.5, params=p, macs=p, bytes=p)) for s, p in ((0, 10), (1, 11), (2, 11))
        ]
        row = pruned_row(rows)
        assert (row["params"], row["macs"], row["bytes"]) == (11, 11, 11)
        assert row["seconds"] == 2.0
        assert pd.isna(row["latency_ms"])

    def test_latencies_are_comparable_though_the_machines_speed_drifted(self):
        """Each file: the unpruned network's milliseconds beside it, and the speed-up over it."""
        files = {"unpruned/none/0.000": (30.0, 1.0), "apoz/layer/0.400": (10.0, 2.0), "apoz/layer/0.800": (20.0, 4.0)}
        latencies = {f"digits/vgg_digits/{name}.json": {1: pair, 32: pair} for name, pair in files.items()}
        other = {"digits/vgg16/unpruned/none/0.000.json": {1: (500.0, 1.0), 32: (5000.0, 1.0)}}
        found = summary.comparable(latencies | other)
        milliseconds = [found[path]["latency_ms"] for path in latencies]
        assert milliseconds == [20.0, 10.0, 5.0]
        assert found["digits/vgg16/unpruned/none/0.000.json"] == {"latency_ms": 500.0, "latency_32_ms": 5000.0}

    def test_a_row_has_the_latency_of_its_first_seed(self):
        rows = [(cell("random", seed=s, scope="global"), DIVERGED if s == 1 else metrics(0.5)) for s in (2, 1)]
        rows.append((cell("random", scope="layer"), metrics(0.5)))
        pair = {1: (3.0, 1.5), 32: (60.0, 2.0)}
        frame = summary.summarise(rows, {"digits/vgg_digits/random~1/global/0.400.json": pair})
        whole, by_layer = (frame[frame["scope"] == scope].iloc[0] for scope in ("global", "layer"))
        assert (whole["latency_ms"], whole["latency_32_ms"]) == (2.0, 30.0)
        assert by_layer[["latency_ms", "latency_32_ms"]].isna().all()

    def test_without_validation_images_there_is_no_validation_accuracy(self):
        row = pruned_row([(cell(seed=s), metrics(0.5, val_accuracy=None)) for s in range(3)])
        assert pd.isna(row["val_accuracy"])
        assert row["accuracy"] == 0.5


class TestRows:
    def test_one_row_a_cell_less_its_seed_baseline_first(self):
        cells = grid.cells(GRID | {"ratios": [0, 0.4, 0.8], "round_to": 8})
        frame = summary.summarise([(one, metrics(0.5)) for one in cells])
        assert len(frame) == len({dataclasses.replace(one, seed=0) for one in cells})
        assert (frame["seeds"] == 3).all()
        assert frame.loc[0, ["criterion", "init"]].tolist() == ["unpruned", "inherited"]
        assert frame.loc[1, ["criterion", "init"]].tolist() == ["unpruned", "random"]
        rest = frame[2:]
        assert list(zip(rest["scope"], rest["ratio"], strict=True)) == sorted(
            zip(rest["scope"], rest["ratio"], strict=True)
        )
        assert frame["round_to"].isna().tolist() == [True, True] + [False] * len(rest)

    def test_the_order_in_which_cells_come_does_not_matter(self):
        rows = [(one, metrics(0.1 * one.seed + 0.07 * one.ratio)) for one in grid.cells(GRID)]
        shuffled = random.Random(0).sample(rows, len(rows))
        pd.testing.assert_frame_equal(summary.summarise(rows), summary.summarise(shuffled), check_exact=True)

    def test_failed_and_absent_seeds_are_named_and_left_out(self):
        rows = [(cell(seed=0), metrics(0.9)), (cell(seed=10), DIVERGED), (cell(seed=2), None)]
        row = pruned_row(rows)
        assert row["failed_seeds"] == "2, 10"
        assert (row["seeds"], row["accuracy"]) == (1, 0.9)

    def test_a_row_of_which_all_failed_has_no_numbers(self, tmp_path):
        frame = summary.summarise([(cell(seed=s), DIVERGED) for s in (1, 0)] + [(cell().baseline, metrics(0.9))])
        row = frame[frame["criterion"] == "apoz"].iloc[0]
        numbers = [
            name for name in frame.columns if name not in cell().__slots__ and name not in ("seeds", "failed_seeds")
        ]
        numbers.remove("unequal_seeds")
        assert row[numbers].isna().all()
        assert (row["seeds"], row["failed_seeds"]) == (0, "0, 1")
        tables.write_table(tmp_path / "t.parquet", frame, "summary", {})
        stored = tables.read_table(tmp_path / "t.parquet", "summary").to_pylist()[1]
        assert all(stored[name] is None for name in numbers)

    def test_a_row_is_declared_as_its_schema_is(self):
        assert list(summary.Row.__annotations__) == tables.SCHEMAS["summary"].names

    def test_the_table_survives_its_file(self, tmp_path):
        frame = summary.summarise([(one, metrics(0.5)) for one in grid.cells(GRID)])
        tables.write_table(tmp_path / "t.parquet", frame, "summary", {})
        assert tables.read_table(tmp_path / "t.parquet", "summary").schema.equals(
            tables.SCHEMAS["summary"], check_metadata=False
        )
        pd.testing.assert_frame_equal(summary.read(tmp_path / "t.parquet"), frame)


class TestWords:
    @pytest.mark.parametrize(
        ("count", "text"),
        [
            (0, "0"),
            (999, "999"),
            (1000, "1.00 k"),
            (45_600, "45.6 k"),
            (999_400, "999 k"),
            (999_600, "1.00 M"),
            (84_100_000, "84.1 M"),
            (134_260_544, "134 M"),
            (5_620_000_000, "5.62 G"),
        ],
    )
    def test_quantity(self, count, text):
        assert summary.quantity(count) == text

    @pytest.mark.parametrize(
        ("drop", "text"),
        [(0.008, "loses 0.8 points"), (-0.0031, "gains 0.3 points"), (-0.0001, "loses 0.0 points")],
    )
    def test_points(self, drop, text):
        assert summary.points(drop) == text

    def headline(self, accuracies, ratios=(0.3, 0.5), inits=("inherited",), baseline=0.95):
        rows = [(cell().baseline, DIVERGED if baseline is None else metrics(baseline))]
        for ratio in ratios:
            for init in inits:
                rows += [
                    (cell(criterion, ratio=ratio, init=init), metrics(accuracy - ratio / 10))
                    for criterion, accuracy in accuracies.items()
                ]
        return summary.headline(summary.summarise(rows), "digits", "vgg_digits", "layer")

    def test_headline_names_the_best_criterion_and_the_control(self):
        accuracies = {"apoz": 0.90, "mean_activation": 0.91, "random": 0.93}
        sentence, remark = self.headline(accuracies)
        assert sentence == "Digits, by layer: mean activation loses 7.0 points at ratio 0.3"
        assert remark == "the random control loses 5.0 points there"

    def test_headline_is_of_no_control_where_there_is_a_criterion(self):
        accuracies = {"apoz": 0.90, "random": 0.91, "reversed_apoz": 0.92, "apoz@mine": 0.93}
        sentence, remark = self.headline(accuracies)
        assert sentence == "Digits, by layer: apoz loses 8.0 points at ratio 0.3"
        assert remark == "the random control loses 7.0 points there"
        sentence, remark = self.headline({"random": 0.91, "apoz@mine": 0.93})
        assert sentence.startswith("Digits, by layer: apoz on mine loses")
        assert remark == ""

    def test_headline_takes_the_ratio_nearest_to_the_claims(self):
        assert self.headline({"apoz": 0.9}, (0.1, 0.35, 0.9))[0].endswith("at ratio 0.35")

    def test_headline_without_control_baseline_or_inherited_weights(self):
        assert self.headline({"apoz": 0.9})[1] == ""
        assert self.headline({"random": 0.9})[0].startswith("Digits, by layer: random control loses")
        assert "apoz reaches 87.0 %" in self.headline({"apoz": 0.9}, baseline=None)[0]
        assert self.headline({"any": 0.9}, inits=["random"])[0].startswith(
            "Digits, by layer, random weights: any criterion loses"
        )

    def test_cells_of_the_printed_table(self):
        rows = with_baseline({0: 0.92, 1: 0.93, 2: 0.94}, {0: 0.95, 1: 0.95, 2: 0.95})
        frame = summary.summarise(rows, sides=sides_of(rows))
        whole, pruned = summary.formatted(frame).to_dict("records")
        assert whole["drop, points"] == "–"
        # t(0.975, 2) = 4.302653: half of the interval is 4.302653 · 1 / √3 = 2.48 points.
        assert pruned["accuracy %"] == "93.0 ± 2.5"
        assert pruned["drop, points"] == "2.0 [-0.6, 4.6]"  # over images too
        assert (pruned["params"], pruned["MACs"], pruned["removed"]) == ("84.1 M", "5.62 G", "40.0 %")
        assert pruned["seeds"] == "3"

    @pytest.mark.parametrize(
        ("value", "text"), [(0.01234, "0.0123"), (1.0, "1.00"), (12.345, "12.3"), (1234.5, "1234"), (None, "–")]
    )
    def test_milliseconds_have_three_digits(self, value, text):
        frame = summary.summarise([(cell(), metrics(0.5))]).assign(latency_ms=[value])
        frame = pd.concat([frame, frame.assign(latency_ms=5.0)])
        assert summary.formatted(frame)[summary.LATENCY].tolist() == [text, "5.00"]

    def test_cells_of_failed_and_single_seeds(self):
        frame = summary.summarise(with_baseline({0: 0.92, 1: None}, {0: None, 1: 0.95}))
        whole, pruned = summary.formatted(frame).to_dict("records")
        assert (whole["accuracy %"], whole["seeds"], whole["failed seeds"]) == ("95.0", "1 of 2", "0")
        assert (pruned["accuracy %"], pruned["drop, points"], pruned["failed seeds"]) == ("92.0", "–", "1")


class TestProgram:
    def test_makes_table_csv_and_page(self, tmp_path):
        fake_results(tmp_path)
        frame = run_summarize(tmp_path, tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "summary.csv",
            "summary.md",
            "summary.parquet",
        ]
        provenance = tables.read_provenance(tmp_path / "out" / "summary.parquet")
        assert provenance["spec"]["grid"] == GRID
        assert provenance["missing"] == []

        csv = pd.read_csv(tmp_path / "out" / "summary.csv", keep_default_na=False)
        assert list(csv.columns) == tables.SCHEMAS["summary"].names
        assert len(csv) == len(frame)
        assert csv["scope"].iloc[0] == "none"
        assert csv["accuracy"].astype(float).tolist() == frame["accuracy"].tolist()
        assert csv["params"].astype(int).tolist() == frame["params"].tolist()

    def test_page_has_a_table_a_scope_and_init_led_by_the_baseline(self, tmp_path):
        fake_results(tmp_path)
        run_summarize(tmp_path, tmp_path / "out")
        page = (tmp_path / "out" / "summary.md").read_text()
        assert page.startswith("# Summary of demo\n")
        sections = page.split("\n### ")[1:]
        assert [section.splitlines()[0] for section in sections] == [
            "Globally, inherited weights",
            "Globally, random weights",
            "By layer, inherited weights",
            "By layer, random weights",
        ]
        for section in sections:
            lines = [line for line in section.splitlines() if line.startswith("|")]
            assert len({line.count("|") for line in lines}) == 1
            assert "unpruned" in lines[2]
        first = [[field.strip() for field in line.split("|")[1:-1]] for line in sections[0].splitlines()[2:] if line]
        assert first[0][:4] == ["ratio", "criterion", "accuracy %", "drop, points"]
        # 0.95 − 0.05 · 0.4 − 0.002 · seed: 92.8 % on average; t(0.975, 2) · 0.2 / √3 = 0.5; the drop is always 2,
        # of 1,000 images.
        assert first[3][:4] == ["0.4", "apoz", "**92.8 ± 0.5**", "2.0 [1.1, 2.9]"]
        assert first[5][1:3] == ["random", "74.8 ± 0.5"]
        assert "failed" not in sections[0]
        assert "Criterion any" in page

    def test_a_network_stands_below_the_baseline_that_began_as_well(self, tmp_path):
        experiment = GRID | {"scopes": ["global"], "inits": ["inherited"], "repairs": ["compensated", "fitted"]}
        better = {"one_shot": 0, "compensated": 0, "fitted": 0.01}
        fake_results(tmp_path, experiment, accuracy=lambda one: 0.9 - 0.1 * one.ratio + better[one.protocol])
        run_summarize(tmp_path, tmp_path / "out", experiment=experiment)
        sections = (tmp_path / "out" / "summary.md").read_text().split("\n### ")[1:]
        for section, accuracy in zip(sections, ("90.0 ± 0.0", "91.0 ± 0.0"), strict=True):
            rows = [line for line in section.splitlines() if "| unpruned" in line]
            assert len(rows) == 1
            assert accuracy in rows[0]
            # 0.1 · 0.4 less than its own baseline.
            assert "4.0 [" in section

    def test_neither_control_nor_baseline_is_bold(self, tmp_path):
        best = {"unpruned": 0.99, "random": 0.97, "apoz": 0.95, "any": 0.95, "mean_activation": 0.94}
        best |= {"reversed_apoz": 0.96, "apoz@mine": 0.98}
        experiment = GRID | {"ratios": [0, 0.4], "criteria": [*GRID["criteria"], "reversed_apoz", "apoz@mine"]}
        fake_results(tmp_path, experiment, accuracy=lambda one: best[one.criterion])
        run_summarize(tmp_path, tmp_path / "out", experiment=experiment)
        bold = [line for line in (tmp_path / "out" / "summary.md").read_text().splitlines() if "| **" in line]
        assert [line.split("|")[2].strip() for line in bold] == ["apoz"] * 3

    def test_two_runs_give_the_same_bytes_but_for_times(self, tmp_path):
        for run, seconds in ("a", 1.0), ("b", 2.0):
            fake_results(
                tmp_path / run, accuracy=lambda one, t=seconds: metrics(0.9 - one.ratio / 7, seconds={"total": t})
            )
        frames = [run_summarize(tmp_path / run, tmp_path / run / "out") for run in "ab"]
        pages = [(tmp_path / run / "out" / "summary.md").read_bytes() for run in "ab"]
        assert pages[0] == pages[1]
        pd.testing.assert_frame_equal(*[frame.drop(columns="seconds") for frame in frames], check_exact=True)
        run_summarize(tmp_path / "a", tmp_path / "again")
        for name in "summary.parquet", "summary.csv":
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a" / "out" / name).read_bytes()

    def test_latencies_have_columns_and_a_section_that_comes_last(self, tmp_path):
        timed = GRID | {"latency": True, "ratios": [0.4], "inits": ["inherited"]}
        pages = []
        for run, factor in ("a", 1), ("b", 2):
            fake_results(tmp_path / run, timed)
            fake_latencies(tmp_path / run, timed, lambda name, f=factor: f * (0.25 if "/any/" in name else 0.5))
            frame = run_summarize(tmp_path / run, tmp_path / run / "out", experiment=timed)
            pages.append((tmp_path / run / "out" / "summary.md").read_text())
        assert frame["latency_32_ms"].tolist() == frame["latency_ms"].tolist()
        assert sorted(set(frame[frame["scope"] == "layer"]["latency_ms"])) == [0.5]
        assert sorted(set(frame[frame["scope"] != "layer"]["latency_ms"])) == [1.0]
        first, second = (page.split(summary.LATENCY_SECTION) for page in pages)
        assert first[0] == second[0]
        assert first[1] != second[1]
        assert " ms " not in first[0]
        rows = [[field.strip() for field in line.split("|")[1:-1]] for line in first[1].splitlines() if "|" in line]
        assert rows[0][:3] + rows[0][-2:] == ["scope", "ratio", "criterion", "ms", "ms, 32 images"]
        # By layer the three criteria share a measurement.
        assert [row[:3] + row[-2:] for row in rows[2:]] == [
            ["none", "0", "unpruned", "0.500", "0.500"],
            ["global", "0.4", "apoz", "0.500", "0.500"],
            ["global", "0.4", "mean_activation", "0.500", "0.500"],
            ["global", "0.4", "random", "0.500", "0.500"],
            ["layer", "0.4", "any", "0.250", "0.250"],
        ]

    def test_where_nothing_is_timed_no_latency_is_read_and_none_is_shown(self, tmp_path):
        fake_results(tmp_path)
        frame = run_summarize(tmp_path, tmp_path / "out", experiment=GRID | {"latency": False})
        assert frame[["latency_ms", "latency_32_ms"]].isna().all(axis=None)
        assert summary.LATENCY_SECTION not in (tmp_path / "out" / "summary.md").read_text()
        assert summary.LATENCY not in summary.formatted(frame)

    def test_a_missing_latency_is_an_error_unless_partial(self, tmp_path, capsys):
        timed = GRID | {"latency": True}
        fake_results(tmp_path, timed)
        fake_latencies(tmp_path, timed, lambda name: 1.0)
        gone = "digits/vgg_digits/any/layer/0.800.json"
        (tmp_path / "latency" / gone).unlink()
        with pytest.raises(InputError, match=rf"latency/{gone} does not exist"):
            run_summarize(tmp_path, tmp_path / "out", experiment=timed)
        frame = run_summarize(tmp_path, tmp_path / "out", "--partial", experiment=timed)
        assert f"missing: latency/{gone}" in capsys.readouterr().err
        null = frame["latency_ms"].isna()
        assert (null == ((frame["scope"] == "layer") & (frame["ratio"] == 0.8))).all()

    @pytest.mark.parametrize(
        "text",
        ["[]", "{}", '{"batches": {"1": {}, "32": {}}}', json.dumps(latency(float("nan"))), json.dumps(latency(-1.0))],
    )
    def test_a_corrupted_latency_is_an_error_that_names_the_file(self, tmp_path, text):
        timed = GRID | {"latency": True}
        fake_results(tmp_path, timed)
        fake_latencies(tmp_path, timed, lambda name: 1.0)
        path = tmp_path / "latency" / "digits/vgg_digits/unpruned/none/0.000.json"
        path.write_text(text)
        with pytest.raises(InputError) as error:
            run_summarize(tmp_path, tmp_path / "out", experiment=timed)
        assert f"{path} is not a network's latency" in str(error.value)

    def test_diverged_cells_are_named(self, tmp_path, capsys):
        fake_results(tmp_path, accuracy=lambda one: DIVERGED if (one.criterion, one.seed) == ("apoz", 1) else 0.9)
        frame = run_summarize(tmp_path, tmp_path / "out")
        assert (frame[frame["criterion"] == "apoz"]["failed_seeds"] == "1").all()
        assert (frame[frame["criterion"] != "apoz"]["failed_seeds"] == "").all()
        errors = capsys.readouterr().err
        assert "diverged: digits/vgg_digits/apoz/global/0.400/inherited/1: loss is nan in epoch 3" in errors
        assert "2 of 3" in (tmp_path / "out" / "summary.md").read_text()

    def test_a_missing_cell_is_an_error_unless_partial(self, tmp_path, capsys):
        fake_results(tmp_path)
        gone = "digits/vgg_digits/random~2/layer/0.800/inherited/2"
        (tmp_path / "cells" / gone / "metrics.json").unlink()
        with pytest.raises(InputError, match=rf"{gone}/metrics\.json does not exist"):
            run_summarize(tmp_path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        frame = run_summarize(tmp_path, tmp_path / "out", "--partial")
        assert f"missing: {gone}" in capsys.readouterr().err
        assert frame.query("criterion == 'random' and scope == 'layer' and ratio == 0.8")["failed_seeds"].tolist() == [
            "2"
        ]
        assert "Not complete: 1 cells have no result" in (tmp_path / "out" / "summary.md").read_text()
        assert tables.read_provenance(tmp_path / "out" / "summary.parquet")["missing"] == [gone]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ('{"status": "fini', "not valid JSON"),
            ("[]", "a JSON object is needed, got list"),
            ('{"status": "running"}', "status is 'running'; allowed: finished, diverged"),
            (json.dumps(metrics(0.5) | {"accuracy": None}), "accuracy is None"),
            (json.dumps(metrics(float("nan"))), "accuracy is nan"),
            (json.dumps(metrics(0.5, params=True)), "params is True"),
            (json.dumps(metrics(0.5, val_accuracy="high")), "val_accuracy is 'high'"),
            (json.dumps(metrics(0.5, seconds={})), "seconds.total is missing"),
        ],
    )
    @pytest.mark.parametrize("flags", [[], ["--partial"]])
    def test_corrupted_metrics_are_an_error_that_names_the_file(self, tmp_path, text, complaint, flags):
        small = GRID | {
            "criteria": ["apoz"],
            "scopes": ["layer"],
            "ratios": [0.4],
            "inits": ["inherited"],
            "seeds": [0],
        }
        fake_results(tmp_path, small)
        path = tmp_path / "cells" / cell().path / "metrics.json"
        path.write_text(text)
        with pytest.raises(InputError) as error:
            run_summarize(tmp_path, tmp_path / "out", *flags, experiment=small)
        assert str(path) in str(error.value)
        assert complaint in str(error.value)

    def test_runs_alone_and_loads_no_torch(self, tmp_path):
        code = (
            "import sys, summarize, show, plot; print([m for m in sys.modules if m.split('.')[0].startswith('torch')])"
        )
        scripts = Path(summarize.__file__).parent
        done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
        done = subprocess.run(
            [sys.executable, scripts / "show.py", "--summary", tmp_path / "none.parquet"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr == f"error: {tmp_path}/none.parquet does not exist\n"


class TestShow:
    def shown(self, capsys, root, figures=None):
        arguments = ["--summary", str(root / "out" / "summary.parquet")]
        show.main(show.parser().parse_args(arguments + (["--figures", str(figures)] if figures else [])))
        return capsys.readouterr().out

    @pytest.fixture(autouse=True)
    def plain_stdout(self, monkeypatch):
        # What pytest puts in place of the terminal cannot be reconfigured under every way of capturing.
        monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)

    def test_aligned_baseline_first_and_sorted(self, tmp_path, capsys):
        fake_results(tmp_path, accuracy=lambda one: DIVERGED if (one.criterion, one.seed) == ("apoz", 1) else 0.9)
        run_summarize(tmp_path, tmp_path / "out")
        capsys.readouterr()
        text = self.shown(capsys, tmp_path, tmp_path / "figures")
        lines = text.splitlines()
        assert [line for line in lines if len(line) > 100 and "pytest" not in line] == []
        start = lines.index("digits, vgg_digits")
        table = lines[start + 3 : lines.index("failed: global 0.4 apoz inherited, seed 1")]
        keys = [tuple(line.split()[:2]) for line in table]
        assert table[0].split()[:3] == ["none", "0", "unpruned"]
        assert keys[1:] == sorted(keys[1:])
        column = lines[start + 1].index("drop, points")
        assert all(line[column - 1] == " " and line[column] != " " for line in table)
        made = [Path(line).name for line in lines[-4:]]
        assert made == ["summary.csv", "summary.md", "summary.parquet", "figures"]
        assert "Digits, globally: " in text

    def test_a_table_with_latencies_fits_the_terminal(self, tmp_path, capsys):
        timed = GRID | {"latency": True}
        fake_results(tmp_path, timed, accuracy=lambda one: DIVERGED if one.seed == 1 else 0.5 + 0.4 * (one.seed == 2))
        fake_latencies(tmp_path, timed, lambda name: 1234.5)
        run_summarize(tmp_path, tmp_path / "out", experiment=timed)
        capsys.readouterr()
        lines = [line for line in self.shown(capsys, tmp_path).splitlines() if "pytest" not in line]
        assert max(map(len, lines)) <= 100
        assert lines[2].split()[-2:] == ["MACs", "ms"]
        assert lines[4].split()[-1] == "1234"

    def test_columns_that_say_nothing_are_left_out(self, tmp_path, capsys):
        small = GRID | {"inits": ["inherited"]}
        fake_results(tmp_path, small)
        run_summarize(tmp_path, tmp_path / "out", experiment=small)
        capsys.readouterr()
        text = self.shown(capsys, tmp_path)
        assert "inherited" not in text
        assert text.splitlines()[1] == "digits, vgg_digits, seeds: 3"
        assert "seeds" not in text.splitlines()[2]

    def test_an_old_terminal_gets_its_table(self, tmp_path):
        small = GRID | {"inits": ["inherited"], "scopes": ["layer"]}
        fake_results(tmp_path, small)
        run_summarize(tmp_path, tmp_path / "out", experiment=small)
        done = subprocess.run(
            [sys.executable, show.__file__, "--summary", tmp_path / "out" / "summary.parquet"],
            env={"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=True,
        )
        assert b"92.8 ? 0.5" in done.stdout
