"""Screening: the rule against its words, what it never looks at, and the programs that go by it."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.answers import screening
from winnow.files import InputError, read_json, write_json
from winnow.workflow import config, grid

from . import programs

AXES = {
    "datasets": ["digits"],
    "backbones": ["net"],
    "criteria": ["apoz", "taylor", "random", "average_weight"],
    "scopes": ["global", "layer"],
    "ratios": [0.2, 0.4, 0.6],
    "inits": ["inherited"],
    "seeds": [1, 0, 2],
    "screening": True,
}
CANDIDATES = screening.candidates(AXES)
UNPRUNED = CANDIDATES[0].baseline
ACCURACIES = st.one_of(st.none(), st.integers(0, 20).map(lambda count: count / 20))


class Blinkered(dict):
    """Metrics that only tell what screening may know."""

    def __getitem__(self, name):
        assert name in ("val_accuracy", "macs"), name
        return super().__getitem__(name)

    get = __getitem__


def metrics_of(accuracies, unpruned, rung, sizes=None):
    """Metrics of a rung, by candidate's accuracy; sizes grow from cell to cell unless they are given."""
    sizes = sizes or {cell: 100 + number for number, cell in enumerate(CANDIDATES)}
    found = {
        screening.shortened(cell, rung): Blinkered(
            val_accuracy=value,
            macs=sizes[cell],
            params=sizes[cell],
            accuracy=math.nan,
            spec={"cell": {"protocol": rung}, "recipe": {"epochs": 8}},
        )
        for cell, value in accuracies.items()
    }
    baseline = screening.shortened(UNPRUNED, rung)
    return found | {baseline: Blinkered(next(iter(found.values())), val_accuracy=unpruned)}


def judged(accuracies, unpruned=1.0, rung="short_4", tolerance=2.0, sizes=None):
    outcomes = screening.judge(list(accuracies), metrics_of(accuracies, unpruned, rung, sizes), rung, tolerance)
    assert [outcome.cell for outcome in outcomes] == list(accuracies)
    return {outcome.cell: outcome for outcome in outcomes}


def staying(*arguments, **options):
    return set(screening.survivors(judged(*arguments, **options).values()))


judgements = st.fixed_dictionaries(
    {
        "accuracies": st.fixed_dictionaries(dict.fromkeys(CANDIDATES, ACCURACIES)),
        "unpruned": ACCURACIES,
        "rung": st.sampled_from(screening.RUNGS),
        "tolerance": st.sampled_from([0.0, 2.0, 10.0]),
        "sizes": st.fixed_dictionaries(dict.fromkeys(CANDIDATES, st.integers(1, 5))),
    }
)


def brute_force(accuracies, unpruned, rung, tolerance, sizes):
    """The rule as the module's first lines say it, candidate by candidate."""
    stay = set()
    worth = {cell: -1 if value is None else value for cell, value in accuracies.items()}
    drop = {
        cell: math.inf if unpruned is None or value is None else 100 * (unpruned - value)
        for cell, value in accuracies.items()
    }
    for cell in accuracies:
        rivals = [other for other in accuracies if (other.ratio, other.scope) == (cell.ratio, cell.scope)]
        place = (-worth[cell], sizes[cell], cell.path)
        better = sum((-worth[other], sizes[other], other.path) < place for other in rivals)
        if 2 * better < len(rivals):
            stay.add(cell)
    if rung == "short_2":
        limit = max(5 * tolerance, 10)
        best = {ratio: min(drop[c] for c in accuracies if c.ratio == ratio) for ratio in {c.ratio for c in accuracies}}
        lost = sorted(ratio for ratio in best if limit + 1e-6 < best[ratio] < math.inf)
        stay = {cell for cell in stay if cell.ratio not in lost[1:]}
    return stay


@given(judgements)
def test_the_rule_is_what_its_words_say(given):
    assert staying(**given) == brute_force(**given)


@given(judgements, st.sampled_from(CANDIDATES), st.integers(1, 20))
def test_a_better_validation_accuracy_never_makes_a_candidate_go(given, cell, step):
    before = staying(**given)
    better = given["accuracies"] | {cell: min(1.0, (given["accuracies"][cell] or 0.0) + step / 20)}
    assert cell not in before or cell in staying(**given | {"accuracies": better})


@given(judgements, st.randoms())
def test_the_order_of_the_candidates_does_not_matter(given, random):
    cells = list(given["accuracies"])
    random.shuffle(cells)
    assert staying(**given | {"accuracies": {cell: given["accuracies"][cell] for cell in cells}}) == staying(**given)


@given(judgements)
def test_a_candidate_of_every_ratio_stays_save_of_hopeless_ones_above_a_hopeless_one(given):
    outcomes = judged(**given)
    left = {cell.ratio for cell in screening.survivors(outcomes.values())}
    for ratio in set(AXES["ratios"]) - left:
        reasons = {outcome.reason for outcome in outcomes.values() if outcome.cell.ratio == ratio}
        assert reasons == {screening.TOO_MUCH}
        assert given["rung"] == screening.RUNGS[-1]
        below = [outcome.drop for outcome in outcomes.values() if outcome.cell.ratio < ratio]
        assert any(drop is not None and drop > 0.1 for drop in below)
    assert min(AXES["ratios"]) in left


def test_candidates_are_of_the_first_seed_without_controls_and_baselines():
    assert len(CANDIDATES) == 3 * 2 * 3
    assert {cell.seed for cell in CANDIDATES} == {0}
    assert not any(grid.is_control(cell.criterion) or cell.ratio == 0 for cell in CANDIDATES)
    assert set(CANDIDATES) <= set(grid.cells(AXES))
    random_too = screening.candidates(AXES | {"inits": ["inherited", "random"], "ratios": [0.0, 0.4]})
    assert {cell.criterion for cell in random_too if (cell.init, cell.scope) == ("random", "layer")} == {"any"}
    assert all(cell.ratio for cell in random_too)


def test_a_rung_trains_its_candidates_and_baselines_for_less():
    cells = screening.rung_cells(CANDIDATES[:2], "short_4")
    assert [cell.path for cell in cells] == [
        "digits/net/unpruned/none/0.000/inherited~short_4/0",
        "digits/net/apoz/global/0.200/inherited~short_4/0",
        "digits/net/apoz/global/0.400/inherited~short_4/0",
    ]


def test_survivors_are_trained_in_full_with_all_seeds_and_so_are_the_baselines():
    cells = screening.in_full(AXES, [CANDIDATES[0]])
    assert cells == [
        *(dataclasses.replace(UNPRUNED, seed=seed) for seed in AXES["seeds"]),
        *(dataclasses.replace(CANDIDATES[0], seed=seed) for seed in AXES["seeds"]),
    ]
    assert set(cells) <= set(grid.cells(AXES))


def test_data_sets_and_backbones_are_screened_apart():
    axes = AXES | {"datasets": ["digits", "others"], "ratios": [0.4], "scopes": ["layer"]}
    cells = screening.candidates(axes)
    metrics = {
        cell: {"val_accuracy": 0.9 if cell.dataset == "digits" else 0.1 * len(cell.criterion), "macs": 1, "params": 1}
        for cell in screening.rung_cells(cells, "short_4")
    }
    stay = screening.survivors(screening.judge(cells, metrics, "short_4", 2.0))
    assert {cell.dataset for cell in stay} == {"digits", "others"}


@pytest.fixture
def results(tmp_path):
    """A folder of results in which apoz is best and ratio 0.6 is as bad as 0.4."""
    for rung, cell in itertools.product(screening.RUNGS, [UNPRUNED, *CANDIDATES]):
        short = screening.shortened(cell, rung)
        accuracy = {0.0: 0.9, 0.2: 0.89, 0.4: 0.6, 0.6: 0.5}[cell.ratio] - 0.01 * len(cell.criterion) * bool(cell.ratio)
        spec = {"cell": dataclasses.asdict(short), "recipe": {"epochs": 8}}
        numbers = dict.fromkeys(("accuracy", "class_accuracy", "achieved_ratio"), 0.5)
        numbers |= {"params": 10, "macs": 20, "bytes": 40, "seconds": {"total": 1.0}}
        write = {"status": "finished", "val_accuracy": accuracy, "spec": spec} | numbers
        (tmp_path / "cells" / short.path).mkdir(parents=True)
        write_json(tmp_path / "cells" / short.path / "metrics.json", write)
    return tmp_path


def screen(results, rung, previous=None):
    spec = {"experiment": "tiny", "grid": AXES, "rung": rung, "tolerance": 2.0, "code": "0"}
    output = results / f"{rung}.json"
    before = ["--previous", *([previous] if previous else [])]
    programs.run("screen", spec, *before, "--results", results, "--output", output)
    return output


def test_the_rungs_say_what_is_left_and_why_the_others_went(results):
    first = screen(results, "short_4")
    found = read_json(first)
    assert len(found["survivors"]) == 12
    assert found["epochs"] == {"screening": 19 * 2, "in_full": 8 * (3 + 12 * 3), "whole_grid": 8 * (3 + 24 * 3)}
    last = screen(results, "short_2", first)
    found = read_json(last)
    assert found["survivors"] == [
        f"digits/net/apoz/{scope}/{ratio:.3f}/inherited/0" for scope in ("global", "layer") for ratio in (0.2, 0.4)
    ]
    assert len(found["candidates"]) == len(CANDIDATES)
    went = {(row["criterion"], row["scope"], row["ratio"]): (row["rung"], row["reason"]) for row in found["candidates"]}
    assert went["apoz", "global", 0.2] == ("short_2", None)
    beaten = "not in the better half of its ratio and scope with"
    assert went["average_weight", "layer", 0.2] == ("short_4", f"{beaten} a fourth of the epochs")
    assert went["taylor", "layer", 0.2] == ("short_2", f"{beaten} half of the epochs")
    assert went["apoz", "global", 0.6] == ("short_2", screening.TOO_MUCH)
    row = next(row for row in found["candidates"] if (row["criterion"], row["ratio"]) == ("taylor", 0.4))
    assert (row["val_accuracy"], row["drop"]) == (pytest.approx(0.54), pytest.approx(0.36))
    assert found["epochs"] == {"screening": 19 * 2 + 13 * 4, "in_full": 8 * (3 + 4 * 3), "whole_grid": 8 * 75}
    assert screening.sentence(found) == (
        "Screened: of 18 networks, short trainings chose the 4 that were trained in full: "
        "35 % of the whole grid's epochs."
    )
    cells = screening.experiment_cells(AXES, last)
    assert {(cell.criterion, cell.ratio) for cell in cells} == {("unpruned", 0), ("apoz", 0.2), ("apoz", 0.4)}
    assert len(cells) == 15


def test_without_validation_images_there_is_nothing_to_screen_by(results):
    path = results / "cells" / screening.shortened(CANDIDATES[0], "short_4").path / "metrics.json"
    write_json(path, read_json(path) | {"val_accuracy": None})
    with pytest.raises(InputError, match="has no validation accuracy to screen by: give digits validation images"):
        screen(results, "short_4")


def test_a_screening_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match="--screening FILE has to say"):
        screening.experiment_cells(AXES, None)
    with pytest.raises(InputError, match="does not exist"):
        screening.experiment_cells(AXES, tmp_path / "short_2.json")
    for content in ({}, {"survivors": ["digits"]}, {"survivors": [], "epochs": {}, "candidates": []}, []):
        write_json(tmp_path / "short_2.json", content)
        with pytest.raises(InputError, match="is not a screening"):
            screening.experiment_cells(AXES, tmp_path / "short_2.json")
    assert screening.experiment_cells(AXES | {"screening": False}, None) == grid.cells(AXES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"criteria": ["random", "reversed_apoz"]}, "there is no network to choose"),
        ({"ratios": [0.0]}, "there is no network to choose"),
        ({"protocols": ["one_shot", "distilled"]}, "screening shortens one_shot"),
        ({"scratch_budget": "equal_flops"}, "screening shortens one_shot"),
    ],
)
def test_what_cannot_be_screened_is_refused(change, said):
    entry = {**AXES, "backbones": ["net"]} | change
    with pytest.raises(ValueError, match=said):
        config.Experiment.model_validate(entry)
    config.Experiment.model_validate(entry | {"screening": False})


def test_diverged_networks_are_last():
    accuracies = dict.fromkeys(CANDIDATES, None)
    best = [cell for cell in CANDIDATES if cell.ratio == 0.4][-1]
    stay = staying(accuracies | {best: 0.1}, sizes=dict.fromkeys(CANDIDATES, 1))
    assert best in stay
    assert {cell.ratio for cell in stay} == set(AXES["ratios"])
