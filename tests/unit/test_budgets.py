"""Budgets: what a mask within a limit costs and loses, against brute force and as properties."""

import dataclasses
import functools
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from winnow.files import InputError
from winnow.importance import budgets
from winnow.importance.masks import mask
from winnow.importance.scopes import BUDGETS, RANKED, SCOPES
from winnow.networks import backbones, channels, prices, surgery, units
from winnow.tables import SCHEMAS

# Flattened maps, concatenations, sums, depthwise convolutions and gates.
SIZES = {"vgg_digits": 8, "squeezenet1_1": 64, "resnet18": 64, "mobilenet_v3_small": 64}


@functools.cache
def found(architecture):
    """The network, its channel table and prices, and the layer of each unit."""
    network = backbones.build(architecture, "classifier", 5)
    derived = channels.of(network)
    names = units.named([dataclasses.asdict(layer) for layer in derived.layers], derived.table)[0]
    costs = {
        measure: budgets.Costs.of(prices.exact(network, measure, SIZES[architecture]), derived.table)
        for measure in ("macs", "params")
    }
    return network, derived.table, names, costs


def cut(architecture, keep):
    network, table, _, _ = found(architecture)
    sliced = surgery.slice_state(dict(network.state_dict()), table, keep)
    smaller = backbones.build(architecture, "classifier", 5)
    return surgery.resize(smaller, {name: tensor.shape for name, tensor in sliced.items()})


def test_a_scope_ranks_or_is_a_budget():
    assert (*RANKED, *BUDGETS) == SCOPES


@pytest.mark.parametrize("architecture", SIZES)
def test_what_a_network_costs_by_its_widths_is_what_the_pruned_network_costs(architecture):
    _, _, names, costs = found(architecture)
    whole = np.ones(names.size, dtype=bool)
    some = mask(names, np.random.default_rng(0).random(names.size), "global", 0.4).keep
    for keep in (whole, some):
        params, macs = surgery.cost(cut(architecture, keep), SIZES[architecture])
        assert round(costs["macs"].total(keep)) == macs
        assert round(costs["params"].total(keep)) == params


@pytest.mark.parametrize("scope", ["budget_macs", "budget_params"])
@pytest.mark.parametrize("round_to", [None, 8])
@pytest.mark.parametrize("architecture", ["squeezenet1_1", "resnet18"])
def test_the_limit_is_met_from_below_and_nothing_more_fits(architecture, scope, round_to):
    _, _, names, every = found(architecture)
    costs = every[BUDGETS[scope]]
    scores = np.random.default_rng(1).random(names.size)
    result = mask(names, scores, scope, 0.5, 2, round_to, costs=costs)
    whole = costs.total(np.ones(names.size, dtype=bool))
    assert result.requested == 0.5
    assert result.achieved == 1 - costs.total(result.keep) / whole >= 0.5
    for layer in np.unique(names):
        own = np.flatnonzero(names == layer)
        kept = np.count_nonzero(result.keep[own])
        assert kept >= 2
        assert round_to is None or kept % round_to == 0 or kept == own.size
        # The best of a layer stay, and one level more of it is too much.
        ranked = own[np.argsort(scores[own])]
        assert result.keep[ranked].tolist() == [False] * (own.size - kept) + [True] * kept
        assert result.rank[ranked].tolist() == list(range(own.size))
        if kept < own.size:
            wider = result.keep.copy()
            wider[ranked[-min(own.size, kept + (round_to or 1)) :]] = True
            assert costs.total(wider) > 0.5 * whole


def chain(widths, positions, knots=None):
    """A chain of layers from one input to one output: its units' layers, channel table and prices."""
    sizes = [1, *widths, 1]
    rows, terms = [], []
    for number, width in enumerate(widths):
        for index in range(width):
            unit = sum(widths[:number]) + index
            rows.append((unit, f"c{number}", index, f"c{number}.weight", 0, index, 1, 1))
            rows.append((unit, f"c{number}", index, f"c{number + 1}.weight", 1, index, 1, 1))
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        value = positions[number] * inputs * outputs
        terms.append({"tensor": f"c{number}.weight", "outputs": [0, outputs], "inputs": [0, inputs]})
        terms[-1]["values"] = [[0, 0], [0, value]]
        if knots is not None:
            terms[-1] |= knots(number, inputs, outputs)
    columns = dict(zip(SCHEMAS["channels"].names, zip(*rows, strict=True), strict=True))
    table = pa.table({name: list(column) for name, column in columns.items()}, schema=SCHEMAS["channels"])
    return np.repeat([f"c{number}" for number in range(len(widths))], widths), table, terms


@st.composite
def problems(draw):
    widths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    positions = draw(st.lists(st.integers(1, 50), min_size=len(widths) + 1, max_size=len(widths) + 1))
    scores = draw(st.lists(st.integers(0, 20), min_size=sum(widths), max_size=sum(widths)))
    return widths, positions, np.array(scores, dtype=float)


def every_mask(layers, scores):
    """All masks that keep the best of each layer, at least one."""
    names = dict.fromkeys(layers)
    ranked = [np.flatnonzero(layers == name)[np.argsort(scores[layers == name], kind="stable")] for name in names]
    for counts in itertools.product(*(range(1, own.size + 1) for own in ranked)):
        keep = np.zeros(layers.size, dtype=bool)
        for own, count in zip(ranked, counts, strict=True):
            keep[own[own.size - count :]] = True
        yield keep


def kept_by_brute_force(layers, scores, costs, ratio):
    """The most importance that any mask within the limit keeps; None where none is."""
    importance = importance_of(layers, scores)
    limit = (1 - ratio) * costs.total(np.ones(layers.size, dtype=bool)) * (1 + 1e-9)
    return max(
        (importance[keep].sum() for keep in every_mask(layers, scores) if costs.total(keep) <= limit), default=None
    )


def importance_of(layers, scores):
    _, number = np.unique(layers, return_inverse=True)
    return budgets.importances(number, scores, np.zeros(scores.size, dtype=bool))


def drawn(generator):
    """A chain of one to four layers of one to six units, its scores, some of them alike, and a ratio."""
    widths = generator.integers(1, 7, generator.integers(1, 5)).tolist()
    layers, table, priced = chain(widths, generator.integers(1, 50, len(widths) + 1).tolist())
    scores = generator.random(layers.size) if generator.random() < 0.5 else generator.integers(0, 20, layers.size) * 1.0
    return layers, scores, budgets.Costs.of(priced, table), round(float(generator.uniform(0.05, 0.8)), 3)


def test_of_drawn_networks_nine_of_ten_lose_as_little_as_any_mask_could():
    generator, lost = np.random.default_rng(0), []
    for _ in range(120):
        layers, scores, costs, ratio = drawn(generator)
        best = kept_by_brute_force(layers, scores, costs, ratio)
        if best is not None:
            importance = importance_of(layers, scores)
            keep = mask(layers, scores, "budget_macs", ratio, costs=costs).keep
            lost.append((best - importance[keep].sum()) / importance.sum())
    assert len(lost) > 80
    assert min(lost) > -1e-9
    assert np.mean(np.array(lost) < 1e-9) > 0.9
    assert np.mean(lost) < 0.002


@given(problems(), st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_a_limit_is_met_wherever_any_mask_meets_it_and_else_the_largest_ratio_is_named(problem, thousandths):
    widths, positions, scores = problem
    layers, table, priced = chain(widths, positions)
    costs, ratio = budgets.Costs.of(priced, table), thousandths / 1000
    whole = costs.total(np.ones(layers.size, dtype=bool))
    if kept_by_brute_force(layers, scores, costs, ratio) is None:
        with pytest.raises(InputError, match="the largest reachable ratio is") as error:
            mask(layers, scores, "budget_macs", ratio, costs=costs)
        ratio = float(str(error.value).rsplit(" ", 1)[1])
    keep = mask(layers, scores, "budget_macs", ratio, costs=costs).keep
    assert costs.total(keep) <= (1 - ratio) * whole * (1 + 1e-9)
    assert all(keep[layers == name].any() for name in set(layers))


def test_a_limit_that_cannot_be_met_names_what_the_smallest_network_has():
    layers, table, priced = chain([4, 4], [1, 1, 1])
    expected = (
        r"ratio 0\.9 leaves 10 % of the MACs, but with min_filters 2 the smallest network has 33\.33 %: "
        r"the largest reachable ratio is 0\.666"
    )
    with pytest.raises(InputError, match=expected):
        mask(layers, np.arange(8.0), "budget_macs", 0.9, 2, costs=budgets.Costs.of(priced, table))
    with pytest.raises(InputError, match="budget_latency is a share of what the network costs: give its prices"):
        mask(layers, np.arange(8.0), "budget_latency", 0.5)


@given(problems(), st.integers(0, 800), st.integers(2, 3))
@settings(max_examples=50, deadline=None)
def test_in_steps_what_is_gone_stays_gone_and_the_last_mask_meets_the_limit(problem, thousandths, steps):
    widths, positions, scores = problem
    layers, table, priced = chain(widths, positions)
    costs, keep = budgets.Costs.of(priced, table), np.ones(len(layers), dtype=bool)
    generator = np.random.default_rng(thousandths)
    for step in range(1, steps + 1):
        scores = np.where(keep, generator.random(layers.size), np.nan)
        ratio = round(thousandths / 1000 * step / steps, 3)
        try:
            found = mask(layers, scores, "budget_macs", ratio, gone=~keep, last=step == steps, costs=costs)
        except InputError:
            assume(False)
        assert not (found.keep & ~keep).any()
        assert found.achieved >= ratio - 1e-9
        keep = found.keep


def test_the_layers_own_scale_does_not_matter_and_a_reversed_criterion_removes_the_best_first():
    generator = np.random.default_rng(3)
    layers, table, priced = chain([8, 8, 8], [5, 4, 3, 2])
    costs, scores = budgets.Costs.of(priced, table), generator.random(24)
    plain = mask(layers, scores, "budget_macs", 0.5, costs=costs)
    scaled = mask(layers, scores * np.repeat([4.0, 0.5, 16.0], 8), "budget_macs", 0.5, costs=costs)
    assert plain.keep.tolist() == scaled.keep.tolist()
    reverse = mask(layers, -scores, "budget_macs", 0.5, costs=costs)
    assert 0.5 <= reverse.achieved < 0.6
    for name in set(layers):
        own = scores[layers == name]
        stays = reverse.keep[layers == name]
        assert own[stays].max() < own[~stays].min(initial=np.inf)


def test_between_the_widths_that_were_timed_a_table_is_interpolated_and_a_flat_stretch_is_crossed():
    # Of 16 outputs the last 8 cost nothing: only with more of them gone is anything saved.
    def knots(number, inputs, outputs):
        if number == 1:
            return {"outputs": [0, 1], "inputs": [0, 16], "values": [[3.0, 3.0], [3.0, 3.0]]}
        return {"outputs": [1, 8, 16], "inputs": [0, 1], "values": [[1.0, 1.0], [15.0, 15.0], [15.0, 15.0]]}

    layers, table, priced = chain([16], [1, 1], knots)
    costs = budgets.Costs.of(priced, table)
    for kept, cost in ((16, 18.0), (8, 18.0), (5, 12.0), (1, 4.0)):
        assert costs.total(np.arange(16) < kept) == pytest.approx(cost)
    keep = mask(layers, np.arange(16.0), "budget_latency", 0.3, costs=costs).keep
    assert keep.tolist() == [False] * 11 + [True] * 5
