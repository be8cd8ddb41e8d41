"""The verdict: its interval against formulas written out and simulated truth, what is chosen, and what is said."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow import tables
from winnow.answers import summary, verdict
from winnow.files import InputError, write_json
from winnow.workflow import grid

from . import programs

ROOT = Path(__file__).parents[2]
GRID = {
    "datasets": ["digits"],
    "backbones": ["net"],
    "criteria": ["apoz", "mean_activation", "random"],
    "scopes": ["layer"],
    "ratios": [0.2, 0.4, 0.6],
    "inits": ["inherited"],
    "seeds": [0, 1, 2],
    "round_to": None,
}


@pytest.fixture(scope="module")
def intervals():
    place = importlib.util.spec_from_file_location("intervals", ROOT / "benchmarks" / "intervals.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def outcomes(generator, seeds, images, accuracy):
    return generator.random((seeds, images)) < accuracy


def test_the_interval_is_the_crossed_models_with_its_mean_squares_written_out():
    generator = np.random.default_rng(0)
    baseline, pruned = outcomes(generator, 4, 30, 0.9), outcomes(generator, 4, 30, 0.7)
    d = baseline.astype(float) - pruned
    S, n = d.shape
    mean = sum(d[s, i] for s in range(S) for i in range(n)) / (S * n)
    seed_means = [sum(d[s]) / n for s in range(S)]
    image_means = [sum(d[:, i]) / S for i in range(n)]
    seed_part = sum((m - mean) ** 2 for m in seed_means) / (S - 1) / S
    with_two_more = [*image_means, 1.0, -1.0]
    centre = sum(with_two_more) / (n + 2)
    image_part = sum((m - centre) ** 2 for m in with_two_more) / (n + 1) / (n + 2)
    rest = sum((d[s, i] - seed_means[s] - image_means[i] + mean) ** 2 for s in range(S) for i in range(n))
    rest_part = rest / ((S - 1) * (n - 1)) / (S * n)
    variance = seed_part + image_part - rest_part
    assert variance > image_part / 2
    freedom = variance**2 / (seed_part**2 / (S - 1) + image_part**2 / (n - 1) + rest_part**2 / ((S - 1) * (n - 1)))
    half = scipy.stats.t.ppf(0.975, freedom) * variance**0.5
    assert verdict.paired_interval(baseline, pruned) == pytest.approx((mean, mean - half, mean + half))


@pytest.mark.parametrize("scenario", [(3, 1000, 0.86, 0.8, 0.0), (3, 1000, 0.86, 0.7, 0.01), (5, 1000, 0.9, 0.8, 0.01)])
def test_coverage_over_1000_simulated_studies(intervals, scenario):
    covers, wrong = intervals.coverage(1000, scenario)
    assert 0.93 <= covers <= 0.97
    assert wrong <= 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**31))
def test_properties_of_the_interval(seeds, images, seed):
    generator = np.random.default_rng(seed)
    baseline, pruned = outcomes(generator, seeds, images, 0.8), outcomes(generator, seeds, images, 0.6)
    drop, low, high = verdict.paired_interval(baseline, pruned)
    assert low < drop < high
    assert drop == pytest.approx(baseline.mean() - pruned.mean())
    # Neither the order of the seeds nor that of the images says anything; the other way round is the mirror image.
    orders = generator.permutation(seeds), generator.permutation(images)
    shuffled = (side[orders[0]][:, orders[1]] for side in (baseline, pruned))
    assert verdict.paired_interval(*shuffled) == pytest.approx((drop, low, high))
    assert verdict.paired_interval(pruned, baseline) == pytest.approx((-drop, -high, -low))


def test_networks_that_agree_on_a_few_images_are_not_known_to_be_equal():
    same = np.ones((3, 20), dtype=bool)
    drop, low, high = verdict.paired_interval(same, same)
    assert drop == 0
    assert verdict.verdict(low, high, 2.0) == "undecided"
    many = np.ones((3, 2000), dtype=bool)
    assert verdict.verdict(*verdict.paired_interval(many, many)[1:], 2.0) == "holds"


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "expected"),
    [
        (-0.01, 0.02, 2.0, "holds"),
        (-0.01, 0.0201, 2.0, "undecided"),
        (0.02, 0.03, 2.0, "undecided"),
        (0.0201, 0.03, 2.0, "fails"),
        (0.001, 0.002, 0.0, "fails"),
        (-0.002, 0.0, 0.0, "holds"),
    ],
)
def test_the_verdicts_bounds(low, high, tolerance, expected):
    assert verdict.verdict(low, high, tolerance) == expected


# How much accuracy each network loses, on validation and on the test, in points.
LOSSES = {
    ("apoz", 0.2): (0, 0),
    ("apoz", 0.4): (1, 0.5),
    ("apoz", 0.6): (9, 9),
    ("mean_activation", 0.2): (1, 1),
    ("mean_activation", 0.4): (3, 0),
    ("mean_activation", 0.6): (5, 5),
    ("random", 0.2): (-2, -2),
    ("random", 0.4): (-2, -2),
    ("random", 0.6): (-2, -2),
}
IMAGES = 2000


class Study:
    """An experiment's files with chosen losses."""

    def __init__(self, folder: Path, losses=LOSSES, failed=(), val=True, **changes):
        self.folder, self.grid = folder, GRID | changes
        self.output = folder / "experiments" / "study"
        rows = []
        for cell in grid.cells(self.grid):
            val_loss, test_loss = losses.get((cell.criterion, cell.ratio), (0, 0))
            metrics = {
                "status": "finished",
                "reason": None,
                "val_accuracy": 0.9 - val_loss / 100 + cell.seed / 10000 if val else None,
                "accuracy": 0.9 - test_loss / 100,
                "class_accuracy": 0.9,
                "params": round(1000 * (1 - cell.ratio)),
                # One of the two criteria keeps cheaper filters.
                "macs": round(9000 * (1 - cell.ratio)) - (cell.criterion == "mean_activation"),
                "bytes": 4000,
                "achieved_ratio": cell.ratio,
                "seconds": {"total": 1.0},
            }
            if (cell.criterion, cell.seed) in failed:
                metrics = {"status": "diverged", "reason": "loss is nan"}
            place = folder / "cells" / cell.path
            write_json(place / "metrics.json", metrics)
            wrong = round(IMAGES * (1 - metrics.get("accuracy", 0)))
            # The unpruned network is wrong on the first images, and a pruned one on the same and some more.
            correct = np.arange(IMAGES) >= wrong
            images = np.arange(IMAGES)
            self.predictions(place, images, correct if metrics["status"] == "finished" else correct[:0])
            rows.append((cell, metrics))
        self.frame = summary.summarise(rows)
        tables.write_table(self.output / "summary.parquet", self.frame, "summary", {})

    def predictions(self, place: Path, images, correct) -> None:
        columns = {
            "image": images[: len(correct)],
            "label": np.zeros(len(correct)),
            "predicted": np.zeros(len(correct)),
            "probability": np.ones(len(correct)),
            "correct": correct,
        }
        tables.write_table(place / "predictions.parquet", pd.DataFrame(columns), "predictions", {"spec": {}})

    def answer(self, tolerance: float = 2.0) -> dict:
        spec = {"experiment": "study", "grid": self.grid, "tolerance": tolerance}
        arguments = ("--summary", self.output / "summary.parquet", "--results", self.folder, "--output", self.output)
        programs.run("recommend", spec, *arguments)
        return json.loads((self.output / "recommendation.json").read_text())


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def network(row):
    return row["criterion"], row["ratio"]


def test_validation_chooses_and_the_test_judges(study):
    answer = study.answer()
    macs, params = answer["verdicts"]
    # On the test images mean activation is as good at 0.4; the choice must not know.
    assert (macs["measure"], *network(macs), macs["verdict"]) == ("macs", "apoz", 0.4, "holds")
    assert (params["measure"], *network(params)) == ("params", "apoz", 0.4)
    assert macs["drop"] == pytest.approx(0.005)
    assert (macs["size"], macs["baseline_size"]) == (5400, 9000)
    assert [network(row) for row in answer["ladder"]] == [("apoz", 0.2), ("apoz", 0.4), ("mean_activation", 0.6)]
    assert [row["verdict"] for row in answer["ladder"]] == ["holds", "holds", "fails"]
    assert answer["lines"] == [
        "Digits, net: HOLDS. apoz, by layer, ratio 0.4 needs 60 % of the MACs and loses 0.5 points (drop 0.2 to 0.8), "
        "within the tolerance of 2. Smallest by parameters too.",
        "Digits, net: every ratio up to 0.4 holds (apoz, by layer, ratio 0.4: 60 % of the MACs); at 0.6, the best "
        "loses 5.0 points (drop 4.0 to 6.0).",
        "Digits, net: the claim that the best criterion loses less than 2 points at ratio 0.4 holds: apoz, by layer, "
        "loses 0.5 points (drop 0.2 to 0.8).",
    ]


def test_a_protocol_is_part_of_the_network_and_the_claim_is_of_one_shot(tmp_path):
    answer = Study(tmp_path / "both", protocols=["one_shot", "iterative_3"]).answer()
    # Each row is judged by its own seeds.
    assert {row["seeds"] for row in answer["verdicts"] + answer["ladder"]} == {len(GRID["seeds"])}
    assert {row["protocol"] for row in answer["claims"]} == {"one_shot"}
    assert "weights and protocol are chosen" in answer["notes"][0]

    study = Study(tmp_path / "one", protocols=["iterative_3"])
    answer = study.answer()
    assert answer["claims"] == []
    assert answer["lines"][0].startswith("Digits, net: HOLDS. apoz, by layer, ratio 0.4, pruned in 3 steps needs 60 %")
    assert grid.parse_path(answer["chosen"][0]["cell"]).protocol == "iterative_3"
    assert "protocol" not in Study(tmp_path / "plain").answer()["notes"][0]


@pytest.mark.parametrize("control", ["random", "reversed_apoz", "apoz@mine"])
def test_a_control_is_never_chosen_though_it_does_best(tmp_path, control):
    losses = LOSSES | {(control, ratio): (-2, -2) for ratio in (0.2, 0.4, 0.6)}
    answer = Study(tmp_path, losses, criteria=["apoz", "mean_activation", control]).answer()
    chosen = {row["criterion"] for name in ("verdicts", "ladder", "claims") for row in answer[name]}
    assert chosen == {"apoz", "mean_activation"}


def test_it_fails_with_a_tolerance_of_0_where_accuracy_dropped(tmp_path):
    losses = dict.fromkeys(LOSSES, (1, 3))
    study = Study(tmp_path, losses)
    assert study.answer(5.0)["verdicts"][0]["verdict"] == "holds"
    answer = study.answer(0.0)
    assert answer["verdicts"][0]["verdict"] == "fails"
    assert "FAILS" in answer["lines"][0]
    assert "No network is within it on validation." in answer["lines"][0]
    assert "already at ratio 0.2" in answer["lines"][1]
    # The claim has its own tolerance.
    assert answer["claims"][0]["verdict"] == "fails"


def test_the_seed_that_did_best_on_validation_goes_home(study):
    (chosen,) = study.answer()["chosen"]
    assert chosen == {
        "dataset": "digits",
        "backbone": "net",
        "cell": "digits/net/apoz/layer/0.400/inherited/2",
        "network": "apoz, by layer, ratio 0.4",
        "verdict": "holds",
    }


def test_what_holds_goes_home_where_the_smallest_does_not(tmp_path):
    # At 0.6 validation saw no loss, the test does.
    (chosen,) = Study(tmp_path, LOSSES | {("apoz", 0.6): (1, 3)}).answer()["chosen"]
    assert (chosen["network"], chosen["verdict"]) == ("apoz, by layer, ratio 0.4", "holds")


def test_where_nothing_holds_the_choice_goes_home_with_its_verdict(tmp_path):
    (chosen,) = Study(tmp_path, dict.fromkeys(LOSSES, (1, 3))).answer()["chosen"]
    assert (chosen["network"], chosen["verdict"]) == ("mean activation, by layer, ratio 0.6", "fails")


def test_a_failed_seed_is_left_out_on_both_sides(tmp_path):
    answer = Study(tmp_path, failed=[("apoz", 2)]).answer()
    assert answer["verdicts"][0]["seeds"] == 2
    assert answer["chosen"][0]["cell"].endswith("/1")
    assert any("diverged" in note for note in answer["notes"])


def test_one_seed_is_said_to_be_one(tmp_path):
    answer = Study(tmp_path, seeds=[0]).answer()
    assert answer["verdicts"][0]["verdict"] == "holds"
    assert any("one seed" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val": False}, "for want of validation accuracies"),
        ({"criteria": ["random"]}, "no criterion but controls"),
        ({"criteria": ["reversed_apoz", "apoz@mine"]}, "no criterion but controls"),
    ],
)
def test_there_is_no_verdict_without_a_choice(tmp_path, changes, said):
    answer = Study(tmp_path, **changes).answer()
    assert said in answer["lines"][0]
    assert not answer["verdicts"]
    assert not answer["ladder"]
    assert not answer["claims"]
    assert not answer["chosen"]


def test_a_baseline_whose_seeds_all_failed_leaves_nothing_to_choose(tmp_path):
    answer = Study(tmp_path, failed=[("unpruned", seed) for seed in range(3)]).answer()
    assert not answer["verdicts"]


def test_predictions_of_other_images_are_an_error_that_names_the_file(study):
    cell = next(cell for cell in grid.cells(GRID) if cell.criterion == "apoz" and cell.ratio == 0.4)
    place = study.folder / "cells" / cell.path
    study.predictions(place, np.arange(1, IMAGES + 1), np.ones(IMAGES, dtype=bool))
    with pytest.raises(InputError, match=r"apoz/layer/0\.400.*predictions\.parquet is of other test images"):
        study.answer()


def test_latency_is_a_measure_where_it_is_known(study):
    frame = study.frame.copy()
    # By latency, the larger network is the faster one.
    frame["latency_ms"] = [1.0 if ratio == 0.2 else 2.0 for ratio in frame["ratio"]]
    judge = verdict.Judge(grid.cells(GRID), lambda cell: np.ones(50, dtype=bool))
    found = {row["measure"]: network(row) for row in verdict.recommend(frame, judge, 2.0)["verdicts"]}
    assert found == {"macs": ("apoz", 0.4), "params": ("apoz", 0.4), "latency_ms": ("apoz", 0.2)}


@given(st.data())
def test_the_choice_is_the_smallest_within_the_tolerance_or_the_least_loss(data):
    rows = [
        {
            "val_drop": data.draw(st.integers(-20, 100)) / 1000,
            "macs": data.draw(st.integers(1, 5)),
            "position": position,
        }
        for position in range(data.draw(st.integers(1, 6)))
    ]
    tolerance = data.draw(st.sampled_from([0.0, 1.0, 2.0]))
    chosen = verdict.choose(rows, "macs", tolerance)
    within = [row for row in rows if 100 * row["val_drop"] <= tolerance + 1e-9]
    if within:
        assert chosen["macs"] == min(row["macs"] for row in within)
        assert chosen in within
    else:
        assert chosen["val_drop"] == min(row["val_drop"] for row in rows)


def test_the_table_and_the_page_say_what_the_json_says(study):
    answer = study.answer()
    table = tables.read_table(study.output / "recommendation.parquet", "recommendation").to_pylist()
    assert [row["sentence"] for row in table] == [
        row["sentence"] for name in ("verdicts", "ladder", "claims") for row in answer[name]
    ]
    page = (study.output / "recommendation.md").read_text()
    assert all(line in page for line in itertools.chain(answer["lines"], answer["notes"]))
    assert "| digits | net | MACs | apoz, by layer, ratio 0.4 | 60 % of the MACs | 0.5 [0.2, 0.8] | holds |" in page


def test_a_rows_seeds_are_its_cells(study):
    cells = grid.cells(GRID)
    judge = verdict.Judge(cells, lambda cell: None)
    row = {**dataclasses.asdict(cells[-1]), "seed": None}
    assert [cell.seed for cell in judge.seeds_of(row)] == [0, 1, 2]
    assert judge(row, 2.0)["verdict"] is None


def test_libraries_that_change_numbers_are_named_in_the_notes(study):
    assert not any("torch" in note for note in study.answer()["notes"])
    path = next((study.folder / "cells").rglob("metrics.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"torch": "2.1", "torchvision": "0.1"}}))
    assert "1 with torch 2.1, torchvision 0.1" in study.answer()["notes"][-1]
