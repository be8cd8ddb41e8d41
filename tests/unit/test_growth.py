"""How a grid grows: the rules against their words, what they never look at, and the programs that go by them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow import tables
from winnow.answers import growth, preference
from winnow.answers.growth import Candidate
from winnow.files import InputError, write_json
from winnow.workflow import config, grid

from . import programs

AXES = {
    "datasets": ["digits"],
    "backbones": ["net"],
    "criteria": ["apoz", "taylor", "random", "average_weight"],
    "scopes": ["global", "layer"],
    "ratios": [0.2, 0.4, 0.6],
    "inits": ["inherited"],
    "seeds": "auto",
    "first_seed": 3,
    "screening": True,
}
NETWORKS = growth.networks(AXES)
UNPRUNED = NETWORKS[0].baseline
ACCURACIES = st.one_of(st.none(), st.integers(0, 20).map(lambda count: count / 20))


def candidate(cell, accuracy, size=1.0, unpruned=1.0, diverged=False):
    drop = None if accuracy is None else unpruned - accuracy
    return Candidate(cell, "short_4", accuracy, drop, (size, size), diverged or accuracy is None)


CANDIDATES = st.lists(
    st.tuples(ACCURACIES, st.integers(1, 30), st.booleans()), min_size=len(NETWORKS), max_size=len(NETWORKS)
).map(
    lambda drawn: [
        candidate(cell, accuracy, float(size), diverged=diverged and size % 5 == 0)
        for cell, (accuracy, size, diverged) in zip(NETWORKS, drawn, strict=True)
    ]
)


def test_networks_are_of_the_first_seed_without_controls_and_unpruned_ones():
    assert len(NETWORKS) == 3 * 2 * 3
    assert {cell.seed for cell in NETWORKS} == {3}
    assert not any(grid.is_control(cell.criterion) or cell.ratio == 0 for cell in NETWORKS)
    assert set(NETWORKS) <= set(grid.cells(AXES))
    random_too = growth.networks(AXES | {"inits": ["inherited", "random"], "ratios": [0.0, 0.4]})
    assert {cell.criterion for cell in random_too if (cell.init, cell.scope) == ("random", "layer")} == {"any"}
    assert all(cell.ratio for cell in random_too)


@pytest.mark.parametrize(
    ("seeds", "choosing", "judging"),
    [
        ([4], (4,), (4,)),
        ([1, 0], (1,), (0,)),
        ([0, 1, 2], (0,), (1, 2)),
        ([0, 1, 2, 3], (0, 1), (2, 3)),
        ([5, 4, 3, 2, 1, 0, 9], (5, 4, 3), (2, 1, 0, 9)),
    ],
)
def test_a_list_of_seeds_is_parted_into_those_that_choose_and_those_that_judge(seeds, choosing, judging):
    axes = AXES | {"seeds": seeds, "screening": False}
    assert (growth.choosing_seeds(axes), growth.judging_seeds(axes)) == (choosing, judging)
    cells = grid.cells(axes)
    assert {cell.seed for cell in growth.judging(axes, cells)} == set(judging)
    assert growth.choosers(axes, cells) == set()
    assert growth.experiment_cells(axes, None) == cells


def test_the_first_step_trains_all_once_or_for_less():
    whole = growth.asked(AXES | {"screening": False}, None)
    assert whole == grid.cells(AXES)
    assert {cell.criterion for cell in whole} == {"unpruned", *AXES["criteria"]}
    short = growth.asked(AXES, None)
    assert len(short) == len(NETWORKS) + 1
    assert [cell.path for cell in short[:3]] == [
        "digits/net/unpruned/none/0.000/inherited~short_4/3",
        "digits/net/apoz/global/0.200/inherited~short_4/3",
        "digits/net/apoz/global/0.400/inherited~short_4/3",
    ]


@settings(deadline=None)
@given(CANDIDATES)
def test_the_better_half_is_what_its_words_say(candidates):
    def place(each):
        accuracy = -1 if each.val_accuracy is None else each.val_accuracy
        return (-accuracy, each.sizes[0], each.cell.path)

    def rivals(each):
        same = (each.cell.ratio, each.cell.scope)
        return [other for other in candidates if (other.cell.ratio, other.cell.scope) == same]

    expected = [
        each for each in candidates if 2 * sum(place(other) < place(each) for other in rivals(each)) < len(rivals(each))
    ]
    assert growth.better_half(candidates) == expected


@settings(deadline=None)
@given(CANDIDATES, st.sampled_from([0.0, 30.0]), st.sampled_from([0.0, 10.0, 60.0]), st.randoms())
def test_of_each_size_the_best_is_a_finalist_and_the_second_smallest_within_is_proposed(
    candidates, more, tolerance, random
):
    # With more, many are of one size.
    candidates = [dataclasses.replace(each, sizes=(each.sizes[0] + more, each.sizes[1] + more)) for each in candidates]
    choice = growth.choose(candidates, tolerance)
    known = [each for each in candidates if each.drop is not None]
    if not known:
        assert choice is None
        return
    sizes = [each.sizes[0] for each in choice.finalists]
    assert sizes == sorted(sizes, reverse=True)
    starts, steps = [], []
    for size in sorted({each.sizes[0] for each in known}):
        if not starts or size > growth.SIZE_STEP * starts[-1]:
            starts.append(size)
    for start in starts:
        step = [each for each in known if start <= each.sizes[0] <= growth.SIZE_STEP * start]
        steps.append([each for each in step if not any(start < other <= each.sizes[0] for other in starts)])
    best = [min(step, key=lambda each: each.rank) for step in steps]
    assert set(best) <= set(choice.finalists)
    proposed = choice.finalists[choice.proposal]
    within = [each for each in best if not each.diverged and preference.within(each.drop, tolerance)]
    if within:
        assert proposed in within
        assert proposed.sizes[0] == sorted(each.sizes[0] for each in within)[:2][-1]
    else:
        assert proposed == min(best, key=lambda each: each.rank)

    # Below the proposal, those that are within and differ from their size's best by their ratio alone.
    expected = set(best)
    for first, step in zip(best, steps, strict=True):
        alike = [e for e in step if (e.cell.criterion, e.cell.scope) == (first.cell.criterion, first.cell.scope)]
        for size in {each.sizes[0] for each in alike} - {first.sizes[0]}:
            other = min((each for each in alike if each.sizes[0] == size), key=lambda each: each.rank)
            if size < proposed.sizes[0] and growth.allowed(other, tolerance):
                expected.add(other)
    assert set(choice.finalists) == expected
    shuffled = random.sample(candidates, len(candidates))
    assert growth.choose(shuffled, tolerance) == choice


def test_below_the_proposal_chance_does_not_choose_between_networks_that_differ_by_their_ratio_alone():
    axes = AXES | {
        "criteria": ["taylor", "apoz"],
        "scopes": ["global"],
        "ratios": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75],
    }
    sizes = {0.1: 94.0, 0.2: 87.0, 0.3: 79.0, 0.4: 70.0, 0.5: 60.0, 0.6: 55.0, 0.7: 50.0, 0.75: 50.0}
    # In images of 100, the unpruned network 95: those of one size are 0.1 and 0.2, 0.3 and 0.4, the others.
    right = {0.1: 95, 0.2: 94, 0.3: 95, 0.4: 94, 0.5: 95, 0.6: 92, 0.7: 93, 0.75: 94}
    candidates = [
        candidate(
            cell, right[cell.ratio] / 100 if cell.criterion == "taylor" else 0.94, sizes[cell.ratio], unpruned=0.95
        )
        for cell in growth.networks(axes)
    ]
    choice = growth.choose(candidates, 2.0)
    # 0.2 is larger than the proposal, 0.6 loses too much, 0.7 is as large as 0.75; between criteria validation chooses.
    assert [each.cell.ratio for each in choice.finalists] == [0.1, 0.3, 0.4, 0.5, 0.75]
    assert {each.cell.criterion for each in choice.finalists} == {"taylor"}
    assert choice.finalists[choice.proposal].cell.ratio == 0.3
    _, rows = growth.places(candidates, 2.0, None)
    assert {row["reason"] for row in rows if row["ratio"] in (0.2, 0.6, 0.7)} == {
        "another one of its size is preferred"
    }


@settings(deadline=None)
@given(CANDIDATES, st.integers(0, 31))
def test_within_a_budget_the_two_best_are_held_against_each_other(candidates, limit):
    choice = growth.choose(candidates, 2.0, limit)
    within = sorted(
        (each for each in candidates if each.drop is not None and each.sizes[0] <= limit), key=lambda each: each.rank
    )
    if not within:
        assert choice is None
        return
    assert choice.finalists[choice.proposal] == within[0]
    assert (choice.rival is None) == (len(within) == 1)
    assert choice.rival is None or choice.finalists[choice.rival] == within[1]


def test_the_network_of_the_claim_is_a_finalist_where_it_is_asked_for():
    named = [cell for cell in NETWORKS if cell.scope == "layer" and cell.criterion == "apoz"]
    sizes = {0.2: 10.0, 0.4: 5.0, 0.6: 4.9}
    candidates = [candidate(cell, {0.2: 0.9, 0.4: 0.8, 0.6: 0.85}[cell.ratio], sizes[cell.ratio]) for cell in named]
    assert [each.cell.ratio for each in growth.choose(candidates, 2.0).finalists] == [0.2, 0.6]
    claimed = growth.choose(candidates, 2.0, claim=True)
    assert [each.cell.ratio for each in claimed.finalists] == [0.2, 0.4, 0.6]
    assert claimed.finalists[claimed.proposal] == growth.choose(candidates, 2.0).finalists[0]


def test_data_sets_and_backbones_are_chosen_for_apart():
    axes = AXES | {"datasets": ["digits", "others"], "ratios": [0.4], "scopes": ["layer"]}
    candidates = [
        candidate(cell, 0.9 if cell.dataset == "digits" else 0.1 * len(cell.criterion))
        for cell in growth.networks(axes)
    ]
    assert {each.cell.dataset for each in growth.better_half(candidates)} == {"digits", "others"}
    places, rows = growth.places(candidates, 2.0, None)
    assert [(place["dataset"], len(place["finalists"])) for place in places] == [("digits", 1), ("others", 1)]
    assert len(rows) == len(candidates)
    assert [row["reason"] for row in rows].count(None) == 2


# What the program reads: a folder of results in which apoz is best and what is removed costs nothing up to 0.4.
LOSSES = {0.0: 0.0, 0.2: 0.0, 0.4: 0.0, 0.6: 0.2}
CLASSES = ["5", "6"]


def train(results, cell, val=True, images=400):
    """Make a cell's files, if they are not there."""
    place = results / "cells" / cell.path
    if (place / "metrics.json").exists():
        return
    loss = LOSSES[cell.ratio] + 0.01 * (len(cell.criterion) - 4) * bool(cell.ratio)
    # Of the networks that were never pruned one is small and as good, and one as large.
    small = cell.backbone == "tiny"
    numbers = dict.fromkeys(("accuracy", "class_accuracy", "achieved_ratio"), 0.5)
    macs = 300 if small else round(1000 * (1 - cell.ratio)) + (cell.scope == "global")
    numbers |= {"params": macs, "macs": macs, "bytes": 4 * macs, "seconds": {"total": 1.0}}
    write_json(place / "metrics.json", {"status": "finished", "val_accuracy": 0.9 - loss if val else None} | numbers)
    right = np.arange(images) >= round(images * (0.1 + loss))
    columns = {"image": np.arange(images), "label": np.arange(images) % 2, "predicted": np.zeros(images)}
    columns |= {"probability": np.ones(images), "correct": right}
    tables.write_table(place / "predictions.parquet", columns, "predictions", {})


def grow(results, axes, **question):
    """Run the program's steps to the last one, training what each asks for: the files' contents."""
    spec = {"experiment": "tiny", "grid": axes, "folds": {}, "tolerance": 2.0, "class_margin": 10.0}
    spec |= {"measure": "macs", "limit": None} | question
    write_json(results / "datasets/digits/manifest.json", {"classes": CLASSES})
    steps, previous = [], []
    while not steps or not steps[-1]["done"]:
        for cell in growth.asked(axes, steps[-1] if steps else None):
            train(results, cell)
        output = results / f"{len(steps)}.json"
        programs.run("grow", spec, "--previous", *previous, "--results", results, "--output", output)
        steps.append(growth.read(output))
        assert steps[-1].keys() == growth.Step.__annotations__.keys() | {"spec"}
        previous = [output]
        assert len(steps) < 20
    return steps


def test_short_trainings_choose_and_fresh_ones_judge(tmp_path):
    first, second, *judged = grow(tmp_path, AXES)
    assert (first["rung"], len(first["asked"]), first["cells"], first["compared"]) == ("short_2", 12 + 1, [], 19)
    assert second["compared"] == 19 + 13
    went = {(row["criterion"], row["scope"], row["ratio"]): row["reason"] for row in second["candidates"]}
    assert len(went) == len(second["candidates"]) == len(NETWORKS)
    assert went["average_weight", "layer", 0.2] == (
        "not in the better half of its ratio and scope with a fourth of the epochs"
    )
    assert went["taylor", "layer", 0.2] == "another one of its size is preferred"
    # A ratio is one size here, whatever the scope: of equals the smaller one is taken.
    (place,) = second["places"]
    paths = [f"digits/net/apoz/layer/{ratio}/inherited/3" for ratio in ("0.200", "0.400", "0.600")]
    assert [each["cell"] for each in place["finalists"]] == paths
    # Two are within the tolerance: the larger of them is tested first.
    assert place["proposal"] == 0
    # The proposal and the next smaller one are trained first, with seeds that did not choose.
    assert second["asked"] == second["cells"]
    assert {grid.parse_path(path).seed for path in second["asked"]} == {4, 5, 6}
    assert {grid.parse_path(path).ratio for path in second["asked"]} == {0.0, 0.2, 0.4}
    assert {path.split("/")[5] for path in second["asked"]} == {"inherited"}
    last = judged[-1]
    verdicts = [each["verdict"] for each in last["places"][0]["finalists"]]
    assert verdicts == ["holds", "holds", "fails"]
    assert growth.experiment_cells(AXES, tmp_path / f"{len(judged) + 1}.json") == growth.in_full(last)
    assert growth.choosers(AXES, growth.in_full(last)) == set()
    assert growth.sentence(last) == (
        f"18 networks were compared on validation images, by 32 short trainings; {len(last['cells'])} more judged the "
        "best of them and the unpruned network."
    )


def test_full_trainings_choose_where_there_is_no_screening(tmp_path):
    axes = AXES | {"screening": False}
    steps = grow(tmp_path, axes)
    chosen, last = steps[0], steps[-1]
    whole = grid.cells(axes)
    assert chosen["compared"] == len(whole) == 25
    assert {cell.seed for cell in growth.in_full(chosen)} == {3, 4, 5, 6}
    # The summary has the candidates, and of finalists the trainings that judged.
    cells = growth.in_full(last)
    assert set(whole) < set(cells)
    assert growth.choosers(axes, cells) == set(whole)
    assert set(growth.judging(axes, cells)) == set(cells) - set(whole)
    assert f"by 25 trainings; {len(cells) - 25} more judged" in growth.sentence(last)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"screening": False},
        {"scopes": ["layer"]},
        {"seeds": "auto", "ratios": [0.4]},
        {"controls": ["tiny", "net2"]},
    ],
)
def test_what_a_grid_takes_at_most_is_known_before_it_grows(tmp_path, changes):
    axes = AXES | changes
    compared, judged = growth.most(axes, lambda dataset: 10)
    last = grow(tmp_path, axes, tolerance=0.1)[-1]
    assert last["compared"] == compared
    assert 0 < len(growth.judging(axes, growth.in_full(last))) <= judged
    # By layer three sizes and the unpruned one.
    networks = len(axes["ratios"]) * (4 if "global" in axes["scopes"] else 1) + len(axes.get("controls", ()))
    assert judged == 10 * (1 + networks)


def test_a_question_asked_again_finds_the_trainings_that_are_there(tmp_path):
    before = grow(tmp_path, AXES)
    trained = set(tmp_path.rglob("metrics.json"))
    assert grow(tmp_path, AXES) == before
    # With another tolerance smaller ones are within, and tested with what was trained for them.
    again = grow(tmp_path, AXES, tolerance=25.0, class_margin=50.0)
    assert again[1]["places"][0]["proposal"] == 1
    assert again[-1]["places"][0]["finalists"][2]["verdict"] == "holds"
    fresh = set(tmp_path.rglob("metrics.json")) - trained
    assert {path.relative_to(tmp_path / "cells").parts[4] for path in fresh} <= {"0.000", "0.600"}


def test_a_budgets_two_are_trained_alike(tmp_path):
    last = grow(tmp_path, AXES, limit=601.0)[-1]
    (place,) = last["places"]
    assert [each["cell"].split("/")[2:5] for each in place["finalists"]] == [
        ["apoz", "global", "0.400"],
        ["apoz", "layer", "0.400"],
    ]
    assert (place["proposal"], place["rival"]) == (1, 0)
    assert len({each["seeds"] for each in place["finalists"]}) == 1
    reasons = {row["reason"] for row in last["candidates"] if row["trained"] == "short_2"}
    assert reasons == {None, "others within the budget are preferred", "more than the budget"}
    with pytest.raises(InputError, match=r"no training within the budget of 10 \(macs\) has finished"):
        grow(tmp_path, AXES, limit=10.0)


def test_without_validation_images_there_is_nothing_to_choose_by(tmp_path):
    train(tmp_path, growth.shortened(NETWORKS[0], "short_4"), val=False)
    with pytest.raises(InputError, match="has no validation accuracy to choose by: give digits validation images"):
        grow(tmp_path, AXES)


def test_a_step_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match="--growth FILE has to say"):
        growth.experiment_cells(AXES, None)
    path = tmp_path / "0.json"
    with pytest.raises(InputError, match="does not exist"):
        growth.experiment_cells(AXES, path)
    good = {"done": True, "asked": [], "cells": [NETWORKS[0].path], "rung": None, "places": []}
    write_json(path, good)
    assert growth.experiment_cells(AXES, path) == [NETWORKS[0]]
    for change in ({"asked": [UNPRUNED.path]}, {"cells": ["digits"]}, {"rung": "short_3"}, {"places": [{}]}):
        write_json(path, good | change)
        with pytest.raises(InputError, match="is no step of a grid"):
            growth.experiment_cells(AXES, path)
    write_json(path, [])
    with pytest.raises(InputError, match="is no step of a grid"):
        growth.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"criteria": ["random", "reversed_apoz"]}, "there is no network to choose"),
        ({"ratios": [0.0]}, "there is no network to choose"),
        ({"protocols": ["one_shot", "distilled"]}, "screening shortens one_shot"),
        ({"scratch_budget": "equal_flops"}, "screening shortens one_shot"),
        ({"seeds": [0, 1], "first_seed": 0}, "screening goes with seeds: auto"),
    ],
)
def test_what_cannot_grow_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        config.Experiment.model_validate(AXES | change)
    config.Experiment.model_validate(AXES)


def test_a_candidate_of_which_nothing_is_known_is_no_finalist():
    candidates = [candidate(cell, None, math.inf) for cell in NETWORKS]
    assert growth.choose(candidates, 2.0) is None
    (place,), rows = growth.places(candidates, 2.0, None)
    assert (place["finalists"], place["proposal"]) == ([], None)
    assert {row["reason"] for row in rows} == {"a training diverged"}
    one = dataclasses.replace(candidates[0], val_accuracy=0.1, drop=0.9, sizes=(1.0, 1.0))
    assert growth.choose([one, *candidates[1:]], 2.0).finalists == (one,)


@pytest.mark.parametrize("screening", [True, False])
def test_a_smaller_network_that_was_never_pruned_is_a_candidate_and_one_as_large_is_none(tmp_path, screening):
    axes = AXES | {"controls": ["tiny", "net2"], "screening": screening}
    steps = grow(tmp_path, axes)
    last = steps[-1]
    reasons = {row["control"]: row["reason"] for row in last["candidates"] if row["control"]}
    assert reasons == {"tiny": None, "net2": "not smaller than the unpruned network"}
    assert {row["backbone"] for row in last["candidates"]} == {"net"}
    (place,) = last["places"]
    assert (place["dataset"], place["backbone"]) == ("digits", "net")
    tiny = place["finalists"][-1]
    assert (tiny["cell"], tiny["size"]) == ("digits/tiny/unpruned/none/0.000/inherited/3", 300)
    assert place["finalists"][place["proposal"]]["allowed"]
    # It is judged against the larger network's own trainings, by the same seeds.
    assert (tiny["verdict"], tiny["seeds"] >= 3) == ("holds", True)
    judged = growth.judging(axes, growth.in_full(last))
    assert {cell.baseline_of("net") for cell in judged if cell.backbone == "tiny"} <= set(judged)
    if screening:
        assert "digits/tiny/unpruned/none/0.000/inherited~short_2/3" in steps[0]["asked"]


def test_the_claim_is_of_a_share_of_filters():
    axes = AXES | {"scopes": ["layer", "budget_macs"], "ratios": [0.4], "criteria": ["apoz"]}
    layer, budget = growth.networks(axes)
    candidates = [candidate(layer, 0.8, 1.0), candidate(budget, 0.9, 1.0)]
    assert [each.cell for each in growth.choose(candidates, 2.0).finalists] == [budget]
    assert {each.cell for each in growth.choose(candidates, 2.0, claim=True).finalists} == {budget, layer}
