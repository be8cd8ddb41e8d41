"""The grid: which cells are one, that paths and cells are two names of one thing, that baselines are always there."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.answers import procedure
from winnow.training import protocols
from winnow.workflow import grid
from winnow.workflow.grid import Cell

PROTOCOLS = ["one_shot", "fine_tune_first", "iterative_3", "distilled", "equal_flops", "short_4"]
CELLS = st.builds(
    Cell,
    dataset=st.sampled_from(["digits", "flowers102"]),
    backbone=st.sampled_from(["vgg16", "vgg16_bn"]),
    criterion=st.sampled_from(["apoz", "average_weight", "random", "reversed_apoz", "apoz@digits", "apoz@mine"]),
    scope=st.sampled_from(["global", "global_normalized", "layer", "budget_macs", "budget_latency"]),
    ratio=st.integers(0, 999).map(lambda thousandths: thousandths / 1000),
    round_to=st.sampled_from([None, 8, 16]),
    init=st.sampled_from(["inherited", "random"]),
    seed=st.integers(0, 20),
    protocol=st.builds(protocols.repaired, st.sampled_from(protocols.REPAIR_CHOICES), st.sampled_from(PROTOCOLS)),
)


@given(CELLS)
def test_canonical_is_idempotent_and_keeps_what_the_result_depends_on(cell):
    once = grid.canonical(cell)
    assert grid.canonical(once) == once
    repairs, protocol = protocols.parted(cell.protocol)
    kept = repairs if cell.init == "inherited" else ()
    if not cell.ratio:
        kept = [name for name in kept if name == "fitted"]
    assert once.protocol in (protocols.repaired(kept, protocol), protocols.repaired(kept, "one_shot"))
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
    assert grid.canonical(cell).mask_path({}) is None


@given(CELLS)
def test_a_network_is_held_against_an_unpruned_one_that_begins_as_well(cell):
    cell = grid.canonical(cell)
    assert ("fitted" in protocols.repairs(cell.protocol)) == ("fitted" in protocols.repairs(cell.baseline.protocol))
    assert protocols.is_short(cell.protocol) == protocols.is_short(cell.baseline.protocol)


@given(CELLS, st.sampled_from(["apoz", "random", "average_weight"]))
def test_by_layer_random_weights_are_one_cell_whatever_the_criterion(cell, criterion):
    cell = dataclasses.replace(cell, scope="layer", init="random")
    assert grid.canonical(cell) == grid.canonical(dataclasses.replace(cell, criterion=criterion))


@given(CELLS, CELLS)
def test_two_cells_have_one_path_only_if_they_are_one_cell(first, second):
    assert (first.path == second.path) == (first == second)


@given(CELLS)
def test_the_path_says_the_cell(cell):
    dataset, backbone, criterion, scope, ratio, start, seed = cell.path.split("/")
    name, drawn = grid.parse_criterion(criterion)
    assert drawn == (cell.seed if cell.criterion == "random" else None)
    init, protocol = grid.parse_init(start)
    assert Cell(dataset, backbone, name, scope, *grid.parse_ratio(ratio), init, int(seed), protocol) == cell
    assert grid.parse_path(cell.path) == cell
    # Paths of cells that are trained as they always were carry nothing new.
    assert (start == cell.init) == (cell.protocol == "one_shot")


@given(CELLS, st.integers(9, 60), st.sampled_from([{}, {"digits": 3}]))
def test_a_trunk_is_named_by_all_that_it_is_made_of(cell, epochs, folds):
    cell = dataclasses.replace(cell, ratio=0.5) if cell.ratio == 0 else cell
    trunk = grid.trunk(cell, epochs, folds)
    assert (trunk is None) == (protocols.phase_count(cell.protocol) == 1)
    if trunk is not None:
        ratio, length = protocols.phases(cell.protocol, cell.ratio, epochs)[0]
        assert (trunk.share, trunk.epochs, trunk.seed) == (ratio, length, cell.seed)
        assert grid.parse_trunk(trunk.path) == trunk
        # The unpruned half is the same whatever comes after.
        other = grid.trunk(dataclasses.replace(cell, criterion="apoz", scope="layer", ratio=0.123), epochs, folds)
        repairs, protocol = protocols.parted(cell.protocol)
        if protocol == protocols.FINE_TUNE_FIRST:
            assert other == trunk
            # So is it whatever the repairs of the cut that comes later, but for its own beginning.
            assert trunk.repairs == tuple(name for name in repairs if name == "fitted")
        else:
            assert trunk.repairs == repairs


@given(CELLS, st.sampled_from(["apoz", "random", "average_weight"]), st.integers(0, 20))
def test_a_learning_rate_is_searched_once_for_each_shape_of_training(cell, criterion, seed):
    cell = grid.canonical(cell)
    found = cell.searched
    assert grid.canonical(found) == found == found.searched
    assert found.seed == 0
    assert found.criterion in ("unpruned", "any", "mean_activation")
    assert (found.ratio, found.init) == (cell.ratio, cell.init)
    # One for all criteria and seeds, and for all that is trained from the same beginning.
    other = dataclasses.replace(cell, criterion=criterion, seed=seed) if cell.ratio else cell
    assert grid.canonical(other).rate_path == cell.rate_path
    assert protocols.parted(found.protocol) == (protocols.repairs(cell.protocol), "one_shot")
    for protocol in ("distilled", "short_4", "iterative_3"):
        same = protocols.repaired(protocols.repairs(cell.protocol), protocol)
        assert dataclasses.replace(cell, protocol=same).rate_path == cell.rate_path
    assert cell.rate_path == f"{found.path.removesuffix('/0')}/rate.json"


def test_a_trunk_has_the_learning_rate_of_a_network_of_its_share():
    place = Cell("d", "b", "apoz", "layer", 0.4, None, "inherited", 5, "iterative_3")
    assert grid.trunk(place, 9, {}).rate_path == "d/b/mean_activation/layer/0.133/inherited/rate.json"
    repaired = dataclasses.replace(place, criterion="random", protocol="compensated_iterative_2", round_to=8)
    found = grid.trunk(repaired, 9, {"d": 3}).rate_path
    assert found == "d/b/mean_activation/layer/0.200~8/inherited~compensated/rate.json"
    first = dataclasses.replace(place, protocol="fitted_fine_tune_first")
    assert (
        grid.trunk(first, 9, {}).rate_path
        == first.baseline.rate_path
        == "d/b/unpruned/none/0.000/inherited~fitted/rate.json"
    )
    assert place.baseline.rate_path == "d/b/unpruned/none/0.000/inherited/rate.json"


@given(CELLS, st.integers(2, 20))
def test_what_looks_at_training_images_is_of_a_fold_and_cells_are_not(cell, folds):
    cell = grid.canonical(cell)
    count = {cell.dataset: folds}
    assert (cell.fold({}), cell.images({})) == (None, cell.dataset)
    assert cell.fold(count) == cell.baseline.fold(count) == cell.seed % folds
    assert grid.parse_images(cell.images(count)) == (cell.dataset, cell.seed % folds)
    assert grid.parse_images(cell.dataset) == (cell.dataset, None)
    assert grid.first_images(cell.dataset, count) == f"{cell.dataset}~0"
    assert grid.first_images("another", count) == "another"
    for path in (cell.mask_path, cell.scores_path):
        assert (path({}) is None) == (path(count) is None) == (not cell.masked)
        assert not cell.masked or path(count) == path({}).replace(cell.dataset, cell.images(count), 1)


@given(CELLS)
def test_the_workflow_knows_the_component_of_every_canonical_cell_and_no_other(cell):
    assert bool(re.fullmatch(protocols.COMPONENT, cell.init_text)) == any(
        grid.canonical(dataclasses.replace(cell, ratio=ratio)).init_text == cell.init_text for ratio in (0.0, 0.5)
    )


@given(CELLS)
def test_the_baseline_is_a_canonical_cell_of_its_own_budget(cell):
    baseline = cell.baseline
    assert grid.canonical(baseline) == baseline == baseline.baseline
    assert (baseline.criterion, baseline.init, baseline.masked, baseline.seed) == (
        "unpruned",
        "inherited",
        False,
        cell.seed,
    )
    repairs, protocol = protocols.parted(cell.protocol)
    fitted = [name for name in repairs if name == "fitted"]
    assert baseline.protocol == protocols.repaired(fitted, protocol if protocol == "short_4" else "one_shot")


@given(CELLS, st.sampled_from(["fine_tune_first", "iterative_2"]))
def test_random_weights_have_nothing_to_tell_before_they_are_pruned(cell, protocol):
    cell = dataclasses.replace(cell, init="random", protocol=protocol)
    assert grid.canonical(cell) == grid.canonical(dataclasses.replace(cell, protocol="one_shot"))


@given(CELLS)
def test_a_cell_that_makes_its_own_mask_has_none_in_the_workflow_and_widths_by_layer_only(cell):
    cell = grid.canonical(cell)
    own = protocols.plain(cell.protocol) in ("fine_tune_first", "iterative_3")
    assert (cell.mask_path({}) is None) == (not cell.masked) == (own or cell.ratio == 0)
    assert (cell.latency is None) == (own and cell.scope != "layer")
    if not own:
        assert cell.latency == dataclasses.replace(cell, protocol="one_shot").latency


def test_scratch_is_trained_for_equal_operations_where_that_is_its_budget():
    axes = {"datasets": ["a"], "backbones": ["b"], "criteria": ["apoz"], "scopes": ["global"], "ratios": [0, 0.5]}
    axes |= {"inits": ["inherited", "random"], "protocols": ["one_shot", "distilled", "iterative_3"], "seeds": [0]}
    starts = {
        budget: [cell.init_text for cell in grid.cells(axes | {"scratch_budget": budget})]
        for budget in ("equal_epochs", "equal_flops")
    }
    # The unpruned network with random weights takes as many operations as it takes.
    common = ["inherited", "random", "inherited", "inherited~distilled", "inherited~iterative_3", "random~distilled"]
    assert sorted(starts["equal_epochs"]) == sorted([*common, "random"])
    assert sorted(starts["equal_flops"]) == sorted([*common, "random~equal_flops"])


@given(CELLS)
def test_statistics_of_its_own_data_set_make_no_other_cell(cell):
    own = dataclasses.replace(cell, criterion=f"apoz@{cell.dataset}")
    assert grid.canonical(own) == grid.canonical(dataclasses.replace(cell, criterion="apoz"))
    other = dataclasses.replace(cell, criterion="apoz@mine", ratio=0.4, init="inherited", protocol="distilled")
    assert grid.canonical(other) == other


def test_controls_are_told_from_what_may_be_chosen():
    from winnow.importance.criteria import CRITERIA

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
    keeps = grid.keeps(experiments)
    kept_at = {cell.ratio: keeps(cell) for each in experiments for cell in grid.cells(each)}
    assert kept_at[0.2]
    assert kept_at[0.1] == (kept[0] == "keep")
    assert kept_at[0.3] == (kept[1] == "keep")


def test_a_grid_that_grows_has_one_seed_and_keeps_the_models_of_all():
    axes = {"datasets": ["a"], "backbones": ["b"], "criteria": ["apoz", "random"], "scopes": ["global"]}
    axes |= {"inits": ["inherited"], "seeds": "auto", "first_seed": 7, "ratios": [0.1], "models": "keep"}
    cells = grid.cells(axes)
    assert {cell.seed for cell in cells} == {7}
    assert len(cells) == 3
    keeps = grid.keeps([axes, axes | {"seeds": [3], "ratios": [0.3], "models": "drop"}])
    assert all(keeps(dataclasses.replace(cell, seed=seed)) for cell in cells for seed in (7, 8, 17))
    assert not any(keeps(dataclasses.replace(cell, protocol="short_4")) for cell in cells)
    assert not any(keeps(dataclasses.replace(cell, ratio=0.3, seed=3)) for cell in cells if cell.ratio)


def test_a_grid_that_grows_keeps_what_may_be_taken_home_and_no_more():
    axes = {"datasets": ["a"], "backbones": ["b"], "criteria": ["apoz"], "scopes": ["global"], "inits": ["inherited"]}
    axes |= {"seeds": "auto", "first_seed": 7, "ratios": [0.1, 0.2], "models": "drop"}
    listed = axes | {"seeds": [8, 9], "ratios": [0.2]}
    keeps = grid.keeps([axes])

    def kept(keeps, cell):
        return [seed for seed in range(20) if keeps(dataclasses.replace(cell, seed=seed))]

    for cell in grid.cells(axes):
        # Seed 7 chooses, the next ones judge, and of the first three that do one is taken home.
        assert kept(keeps, cell) == list(grid.taken_seeds(axes)) == [8, 9, 10]
        assert kept(keeps, dataclasses.replace(cell, protocol="short_4")) == []
    assert kept(keeps, dataclasses.replace(cell, ratio=0.3)) == []
    # All of these networks are trained with such a seed, whether or not they are any good.
    keeps = grid.keeps([axes, listed])
    assert [kept(keeps, cell) for cell in grid.cells(axes)] == [[10], [8, 9, 10], [10]]
    assert kept(grid.keeps([axes, listed | {"models": "keep"}]), cell) == [8, 9, 10]


def test_every_network_is_judged_by_as_many_trainings_as_may_be_taken_home():
    assert min(procedure.looks(folds)[0] for folds in (None, *range(2, 11))) >= grid.TAKEN


@given(CELLS, st.sampled_from(["apoz", "random"]), st.sampled_from(["inherited", "random"]), st.integers(0, 20))
def test_by_layer_all_networks_of_a_ratio_share_a_latency(cell, criterion, init, seed):
    cell = dataclasses.replace(cell, scope="layer")
    other = dataclasses.replace(cell, criterion=criterion, init=init, seed=seed, protocol="one_shot")
    assert grid.canonical(cell).latency == grid.canonical(other).latency
    assert cell.ratio == 0 or f"/any/layer/{cell.ratio_text}.json" in grid.canonical(cell).latency


def test_latencies_are_one_a_network_of_other_widths_and_only_where_asked_for():
    axes = {"datasets": ["d"], "backbones": ["b"], "criteria": ["apoz", "random"], "scopes": ["global", "layer"]}
    axes |= {"ratios": [0, 0.4], "inits": ["inherited", "random"], "seeds": [2, 1], "round_to": 16}
    cells = grid.cells(axes)
    assert grid.latencies(axes, cells) == grid.latencies(axes | {"latency": False}, cells) == []
    assert sorted(grid.latencies(axes | {"latency": True}, cells)) == [
        "d/b/any/layer/0.400~16.json",
        "d/b/apoz/global/0.400~16.json",
        "d/b/random~1/global/0.400~16.json",
        "d/b/unpruned/none/0.000.json",
    ]
    # Of a grid that has grown each network's first seed counts, whichever that is.
    some = [cell for cell in cells if cell.seed == 1 or cell.criterion == "apoz"]
    assert set(grid.latencies(axes | {"latency": True}, some)) == set(grid.latencies(axes | {"latency": True}, cells))


def test_a_control_is_an_unpruned_cell_of_its_own_backbone_beside_those_that_are_pruned():
    axes = {"datasets": ["digits"], "backbones": ["net", "wide"], "criteria": ["apoz"], "scopes": ["budget_macs"]}
    axes |= {"ratios": [0.5], "inits": ["inherited", "random"], "seeds": [0, 1]}
    plain, cells = grid.cells(axes), grid.cells(axes | {"controls": ["wide", "tiny"]})
    added = [cell for cell in cells if cell not in plain]
    assert [cell.path for cell in added] == [f"digits/tiny/unpruned/none/0.000/inherited/{seed}" for seed in (0, 1)]
    assert cells[: 4 + 2] == [*plain[:4], *added]
    beside = grid.beside(axes | {"controls": ["wide", "tiny"]})
    whole = {cell.backbone: cell for cell in cells if (cell.ratio, cell.init, cell.seed) == (0, "inherited", 0)}
    assert {name: beside(cell) for name, cell in whole.items()} == {
        **{"net": ("net",), "wide": ("net", "wide"), "tiny": ("net", "wide")}
    }
    assert all(beside(cell) == grid.own(cell) for cell in cells if cell.ratio)
    assert whole["tiny"].baseline_of("net") == whole["net"]
    assert whole["tiny"].latency == "digits/tiny/unpruned/none/0.000.json"
    repaired = grid.cells(axes | {"controls": ["tiny"], "repairs": ["none", "compensated_fitted"]})
    whole = {cell.path for cell in repaired if (cell.ratio, cell.init, cell.seed) == (0, "inherited", 0)}
    names = ("net/{}/inherited", "net/{}/inherited~fitted", "wide/{}/inherited", "wide/{}/inherited~fitted")
    names += ("tiny/{}/inherited~fitted",)
    assert whole == {f"digits/{name.format('unpruned/none/0.000')}/0" for name in names}
