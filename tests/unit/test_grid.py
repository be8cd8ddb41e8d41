"""The grid: which cells are one, that paths and cells are two names of one thing, that baselines are always there."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow import grid
from winnow.grid import Cell

CELLS = st.builds(
    Cell,
    dataset=st.sampled_from(["digits", "flowers102"]),
    backbone=st.sampled_from(["vgg16", "vgg16_bn"]),
    criterion=st.sampled_from(["apoz", "average_weight", "random", "reversed_apoz", "apoz@digits", "apoz@mine"]),
    scope=st.sampled_from(["global", "global_normalized", "layer"]),
    ratio=st.integers(0, 999).map(lambda thousandths: thousandths / 1000),
    round_to=st.sampled_from([None, 8, 16]),
    init=st.sampled_from(["inherited", "random"]),
    seed=st.integers(0, 20),
)


@given(CELLS)
def test_canonical_is_idempotent_and_keeps_what_the_result_depends_on(cell):
    once = grid.canonical(cell)
    assert grid.canonical(once) == once
    assert (once.dataset, once.backbone, once.ratio, once.init, once.seed) == (
        cell.dataset,
        cell.backbone,
        cell.ratio,
        cell.init,
        cell.seed,
    )


@given(CELLS, st.sampled_from(["apoz", "random"]), st.sampled_from(["global", "layer"]))
def test_ratio_0_is_one_baseline_whatever_the_criterion_and_scope(cell, criterion, scope):
    cell = dataclasses.replace(cell, ratio=0.0)
    other = dataclasses.replace(cell, criterion=criterion, scope=scope, round_to=None)
    assert grid.canonical(cell) == grid.canonical(other)
    assert grid.canonical(cell).mask is None


@given(CELLS, st.sampled_from(["apoz", "random", "average_weight"]))
def test_by_layer_random_weights_are_one_cell_whatever_the_criterion(cell, criterion):
    cell = dataclasses.replace(cell, scope="layer", init="random")
    assert grid.canonical(cell) == grid.canonical(dataclasses.replace(cell, criterion=criterion))


@given(CELLS, CELLS)
def test_two_cells_have_one_path_only_if_they_are_one_cell(first, second):
    assert (first.path == second.path) == (first == second)


@given(CELLS)
def test_the_path_says_the_cell(cell):
    dataset, backbone, criterion, scope, ratio, init, seed = cell.path.split("/")
    name, drawn = grid.parse_criterion(criterion)
    assert drawn == (cell.seed if cell.criterion == "random" else None)
    assert Cell(dataset, backbone, name, scope, *grid.parse_ratio(ratio), init, int(seed)) == cell


@given(CELLS)
def test_statistics_of_its_own_data_set_make_no_other_cell(cell):
    own = dataclasses.replace(cell, criterion=f"apoz@{cell.dataset}")
    assert grid.canonical(own) == grid.canonical(dataclasses.replace(cell, criterion="apoz"))
    other = dataclasses.replace(cell, criterion="apoz@mine", ratio=0.4, init="inherited")
    assert grid.canonical(other) == other


def test_controls_are_told_from_what_may_be_chosen():
    from winnow.criteria import CRITERIA

    controls = {name for name in CRITERIA if grid.is_control(name)}
    assert controls == {"random"} | {name for name, criterion in CRITERIA.items() if criterion.reverse}
    assert grid.is_control("apoz@mine")
    assert not grid.is_control("unpruned")


def test_an_experiment_has_its_baselines_asked_for_or_not():
    axes = {
        "datasets": ["a"],
        "backbones": ["b"],
        "criteria": ["apoz", "random"],
        "scopes": ["global", "layer"],
        "ratios": [0.5],
        "inits": ["random"],
        "seeds": [0, 1],
    }
    cells = grid.cells(axes)
    baselines = [cell for cell in cells if cell.criterion == "unpruned"]
    assert [cell.init for cell in baselines] == ["inherited", "inherited"]
    # global: 2 criteria x 2 seeds; by layer: one whatever the criterion, x 2 seeds; and the baselines.
    assert len(cells) == len(set(cells)) == 4 + 2 + 2


@pytest.mark.parametrize("kept", [("keep", "drop"), ("drop", "keep")])
def test_a_shared_cell_keeps_its_model_if_one_experiment_asks_for_it(kept):
    axes = {
        "datasets": ["a"],
        "backbones": ["b"],
        "criteria": ["apoz"],
        "scopes": ["global"],
        "inits": ["inherited"],
        "seeds": [0],
    }
    experiments = [axes | {"ratios": [0.1, 0.2], "models": kept[0]}, axes | {"ratios": [0.2, 0.3], "models": kept[1]}]
    kept_at = {cell.ratio: keep for cell, keep in grid.union(experiments).items()}
    assert kept_at[0.2]
    assert kept_at[0.1] == (kept[0] == "keep")
    assert kept_at[0.3] == (kept[1] == "keep")


@given(CELLS, st.sampled_from(["apoz", "random"]), st.sampled_from(["inherited", "random"]), st.integers(0, 20))
def test_by_layer_all_networks_of_a_ratio_share_a_latency(cell, criterion, init, seed):
    cell = dataclasses.replace(cell, scope="layer")
    other = dataclasses.replace(cell, criterion=criterion, init=init, seed=seed)
    assert grid.canonical(cell).latency == grid.canonical(other).latency
    assert cell.ratio == 0 or f"/any/layer/{cell.ratio_text}.json" in grid.canonical(cell).latency


def test_latencies_are_one_a_network_of_other_widths_and_only_where_asked_for():
    axes = {"datasets": ["d"], "backbones": ["b"], "criteria": ["apoz", "random"], "scopes": ["global", "layer"]}
    axes |= {"ratios": [0, 0.4], "inits": ["inherited", "random"], "seeds": [2, 1], "round_to": 16}
    assert grid.latencies(axes) == grid.latencies(axes | {"latency": False}) == []
    assert sorted(grid.latencies(axes | {"latency": True})) == [
        "d/b/any/layer/0.400~16.json",
        "d/b/apoz/global/0.400~16.json",
        "d/b/random~1/global/0.400~16.json",
        "d/b/unpruned/none/0.000.json",
    ]
