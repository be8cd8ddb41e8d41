"""The ratio contract, against brute force and as properties."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from winnow import tables
from winnow.files import InputError, canonical_json
from winnow.importance.masks import mask, removals

from .programs import SCRIPTS

# Few distinct values, so that ties are the rule.
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0])


@st.composite
def networks(draw):
    """(layers, scores): one to five layers of one to twelve filters, named so that their names sort otherwise."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    layers = np.repeat([f"features.{(7 * number) % 11}" for number in range(len(sizes))], sizes)
    scores = draw(st.lists(SCORES, min_size=len(layers), max_size=len(layers)))
    return layers, np.array(scores)


RATIOS = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)
SCOPES = st.sampled_from(["global", "global_normalized", "layer"])
ROUND_TO = st.sampled_from([8, 16])


def normalised(layers, scores):
    """Each score by √Σ score² of its layer; the squares of these scores add up exactly in any order."""
    norms = [math.sqrt(sum(s * s for s, name in zip(scores, layers, strict=True) if name == layer)) for layer in layers]
    return [score / (norm or 1.0) for score, norm in zip(scores, norms, strict=True)]


def brute_force(layers, scores, scope, ratio, min_filters):
    """Remove one filter after another, always the lowest that its layer can spare; None if that is not possible."""
    scores = normalised(layers, scores) if scope == "global_normalized" else scores
    order = {layer: position for position, layer in enumerate(dict.fromkeys(layers))}
    keep = [True] * len(layers)
    for members in (
        [range(len(layers))]
        if scope != "layer"
        else [[i for i, layer in enumerate(layers) if layer == name] for name in order]
    ):
        wanted = math.floor(Fraction(round(ratio * 1000), 1000) * len(members) + Fraction(1, 2))
        for _ in range(wanted):
            spare = [
                i
                for i in members
                if keep[i] and sum(k and layers[j] == layers[i] for j, k in enumerate(keep)) > min_filters
            ]
            if not spare:
                return None
            keep[min(spare, key=lambda i: (scores[i], order[layers[i]], i))] = False
    return keep


@given(networks(), SCOPES, RATIOS, st.integers(1, 4))
@settings(max_examples=300)
def test_equals_removing_one_filter_after_another(network, scope, ratio, min_filters):
    layers, scores = network
    expected = brute_force(layers, scores, scope, ratio, min_filters)
    if expected is None:
        with pytest.raises(InputError, match="the largest reachable ratio is"):
            mask(layers, scores, scope, ratio, min_filters)
    else:
        assert mask(layers, scores, scope, ratio, min_filters).keep.tolist() == expected


@given(networks(), SCOPES, RATIOS)
def test_the_count_is_exact_the_floor_is_kept_and_both_ratios_are_told(network, scope, ratio):
    layers, scores = network
    try:
        result = mask(layers, scores, scope, ratio)
    except InputError:
        assume(False)
    groups = [layers == layers] if scope != "layer" else [layers == name for name in np.unique(layers)]
    for group in groups:
        assert np.count_nonzero(~result.keep[group]) == removals(ratio, np.count_nonzero(group))
    assert all(result.keep[layers == name].any() for name in np.unique(layers))
    assert result.requested == ratio
    assert result.achieved == np.count_nonzero(~result.keep) / result.keep.size


@given(networks(), SCOPES, RATIOS, RATIOS)
def test_a_higher_ratio_keeps_a_subset(network, scope, first, second):
    layers, scores = network
    try:
        less, more = (mask(layers, scores, scope, ratio).keep for ratio in sorted((first, second)))
    except InputError:
        assume(False)
    assert not (more & ~less).any()


@given(networks(), SCOPES)
def test_ranks_are_the_order_of_score_layer_and_index(network, scope):
    layers, scores = network
    rank = mask(layers, scores, scope, 0.0).rank
    scores = normalised(layers, scores) if scope == "global_normalized" else scores
    order = {layer: position for position, layer in enumerate(dict.fromkeys(layers))}
    for group in [np.arange(len(layers))] if scope != "layer" else [np.flatnonzero(layers == name) for name in order]:
        expected = sorted(group, key=lambda i: (scores[i], order[layers[i]], i))
        assert [rank[i] for i in expected] == list(range(len(group)))


@given(networks(), SCOPES, RATIOS, ROUND_TO)
def test_rounding_gives_multiples_and_keeps_the_best(network, scope, ratio, round_to):
    layers, scores = network
    layers, scores = np.repeat(layers, 5), np.tile(scores, 5)
    try:
        exact = mask(layers, scores, scope, ratio)
    except InputError:
        assume(False)
    rounded = mask(layers, scores, scope, ratio, round_to=round_to)
    for name in np.unique(layers):
        members = np.flatnonzero(layers == name)
        kept, before = np.count_nonzero(rounded.keep[members]), np.count_nonzero(exact.keep[members])
        assert kept % round_to == 0 or kept == members.size
        assert abs(kept - before) <= round_to / 2 or kept in (round_to, members.size)
        best = members[np.argsort(-rounded.rank[members], kind="stable")][:kept]
        assert set(members[rounded.keep[members]]) == set(best)
    assert rounded.achieved == np.count_nonzero(~rounded.keep) / rounded.keep.size


@pytest.mark.parametrize(("min_filters", "kept"), [(1, 16), (16, 16), (17, 32), (40, 40), (99, 40)])
def test_rounding_keeps_the_floor(min_filters, kept):
    layers = np.repeat(["narrow", "wide"], [40, 400])
    scores = np.concatenate([np.zeros(40), np.ones(400)])
    keep = mask(layers, scores, "global", 0.1, min_filters, round_to=16).keep
    assert np.count_nonzero(keep[:40]) == kept


def test_constant_scores_go_by_layer_order_and_index():
    layers = np.repeat(["features.10", "features.2"], [3, 3])  # in network order, which is not that of the names
    assert mask(layers, np.zeros(6), "global", 0.5).keep.tolist() == [False, False, True, False, True, True]


@given(networks(), RATIOS, st.lists(st.integers(-6, 6), min_size=5, max_size=5))
def test_normalised_a_layers_own_scale_does_not_matter(network, ratio, exponents):
    layers, scores = network
    names = list(dict.fromkeys(layers))
    scale = np.array([2.0 ** exponents[names.index(layer)] for layer in layers])
    try:
        plain = mask(layers, scores, "global_normalized", ratio)
    except InputError:
        assume(False)
    scaled = mask(layers, scores * scale, "global_normalized", ratio)
    np.testing.assert_array_equal(plain.keep, scaled.keep)
    np.testing.assert_array_equal(plain.rank, scaled.rank)


def test_normalised_a_layer_of_small_scores_is_not_emptied_first_and_zeros_are_no_error():
    layers = np.repeat(["small", "large", "dead"], [4, 4, 2])
    scores = np.array([1.0, 2.0, 3.0, 4.0, 100.0, 200.0, 300.0, 400.0, 0.0, 0.0])
    assert mask(layers, scores, "global", 0.5).keep.tolist() == [False] * 3 + [True, False] + [True] * 3 + [False, True]
    keep = mask(layers, scores, "global_normalized", 0.5).keep
    assert keep.tolist() == [False, False, True, True, False, False, True, True, False, True]


def test_a_layer_wholly_below_the_others_keeps_its_floor():
    layers = np.repeat(["a", "b"], [4, 6])
    scores = np.concatenate([np.zeros(4), np.arange(1.0, 7.0)])
    keep = mask(layers, scores, "global", 0.5, min_filters=2).keep
    assert keep.tolist() == [False, False, True, True, False, False, False, True, True, True]


# Ratio 0.1 of VGG-16's 4,224 filters is 422.4, so 422; 423 of them are 0.1001.
HALVES = [(0.1, 4224, 422), (0.1001, 4224, 423), (0.4, 4224, 1690), (0.5, 3, 2), (0.35, 10, 4), (0.145, 100, 15)]


@pytest.mark.parametrize(("ratio", "units", "count"), HALVES)
def test_half_rounds_up_and_decimals_are_exact(ratio, units, count):
    assert removals(ratio, units) == count


@given(st.integers(0, 999), st.integers(1, 10_000))
def test_removals_equal_the_formula_in_integers(thousandths, units):
    assert removals(thousandths / 1000, units) == (2 * thousandths * units + 1000) // 2000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(bad):
    with pytest.raises(
        InputError, match=f"1 of 5 scores are not finite numbers, the first is {bad} of filter 1 of lay.* b"
    ):
        mask(np.array(["a"] * 2 + ["b"] * 3), np.array([0.0, 1.0, 2.0, bad, 1.0]), "global", 0.3)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, np.nan])
def test_a_ratio_outside_its_range_is_an_error(ratio):
    with pytest.raises(InputError, match=r"outside \[0, 1\)"):
        mask(np.array(["a"] * 3), np.arange(3.0), "layer", ratio)


def test_an_unknown_scope_is_an_error():
    with pytest.raises(
        InputError, match="unknown scope 'block'; allowed: global, global_normalized, layer, budget_macs"
    ):
        mask(np.array(["a"] * 3), np.arange(3.0), "block", 0.3)


def test_an_unreachable_ratio_names_itself_and_the_largest_that_is():
    with pytest.raises(InputError, match=r"ratio 0\.9 removes 9 of the 10 .* only 6 can go: .* ratio is 0\.649"):
        mask(np.repeat(["a", "b"], 5), np.arange(10.0), "global", 0.9, min_filters=2)
    mask(np.repeat(["a", "b"], 5), np.arange(10.0), "global", 0.649, min_filters=2)
    with pytest.raises(InputError, match="layer b"):
        mask(np.array(["a"] * 8 + ["b"] * 2), np.arange(10.0), "layer", 0.8, min_filters=1)


def test_counts_on_plain_he_initialised_vgg16_are_exact():
    from winnow.importance import criteria
    from winnow.networks import backbones, channels

    layers = channels.of(backbones.build("vgg16", "gap", 10)).layers
    generator = np.random.default_rng(0)
    names, scores, width = [], [], 3
    for layer in layers:
        std = math.sqrt(2 / (layer.filters * 9))
        weights = generator.normal(0, std, (layer.filters, width, 3, 3))
        scores.append(criteria.average_weight(weights))
        names += [layer.layer] * layer.filters
        width = layer.filters
    scores = np.concatenate(scores)
    for ratio, count in ((0.1, 422), (0.1001, 423), (0.4, 1690), (0.9, 3802)):
        result = mask(np.array(names), scores, "global", ratio)
        assert np.count_nonzero(~result.keep) == count
        assert all(result.keep[np.array(names) == layer.layer].any() for layer in layers)


@pytest.mark.parametrize("round_to", [None, 8])
def test_the_program_writes_the_mask_and_what_it_achieved_and_needs_no_torch(tmp_path, round_to):
    layers = np.repeat(["features.0", "features.2"], [12, 20])
    index = np.concatenate([np.arange(12), np.arange(20)])
    scores = np.random.default_rng(0).random(32)
    rows = {"layer": layers, "filter": index, "value": scores, "score": scores}
    tables.write_table(tmp_path / "scores.parquet", rows, "scores", {})
    spec = {"scope": "global", "ratio": 0.4, "round_to": round_to, "min_filters": 1, "code": "0"}
    command = """if True:
        import sys
        import mask
        mask.main(mask.parser().parse_args())
        heavy = {"torch", "scipy"} & set(sys.modules)
        assert not heavy, heavy
    """
    arguments = ["--scores", tmp_path / "scores.parquet", "--output", tmp_path / "mask.parquet"]
    call = [sys.executable, "-c", command, "--spec", canonical_json(spec), *arguments]
    done = subprocess.run(call, cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = mask(layers, scores, "global", 0.4, round_to=round_to)
    table = tables.read_table(tmp_path / "mask.parquet", "mask")
    assert table["layer"].to_pylist() == layers.tolist()
    assert table["filter"].to_pylist() == index.tolist()
    assert table["keep"].to_pylist() == expected.keep.tolist()
    assert table["rank"].to_pylist() == expected.rank.tolist()
    removed = int(np.count_nonzero(~expected.keep))
    provenance = {"spec": spec, "requested": 0.4, "achieved": removed / 32, "removed": removed, "units": 32}
    assert tables.read_provenance(tmp_path / "mask.parquet") == provenance


@given(networks(), SCOPES, st.integers(1, 999), st.integers(2, 4), st.integers(1, 3), st.data())
@settings(max_examples=200, deadline=None)
def test_in_steps_what_is_gone_stays_gone_and_the_last_mask_keeps_to_the_ratio(
    network, scope, thousandths, steps, min_filters, data
):
    layers, _ = network
    keep = np.ones(layers.size, dtype=bool)
    for step in range(1, steps + 1):
        # Each step has scores of its own; what they say of filters that are gone is nothing.
        scores = np.array(data.draw(st.lists(SCORES, min_size=layers.size, max_size=layers.size)))
        scores[~keep] = np.nan
        ratio = Fraction(thousandths * step, 1000 * steps)
        try:
            found = mask(layers, scores, scope, ratio, min_filters, gone=~keep, last=step == steps)
        except InputError:
            assume(False)
        # As without those that are gone: one after another of the others, each layer's norm over what is left.
        order = {layer: position for position, layer in enumerate(dict.fromkeys(layers))}
        left = np.where(keep, scores, 0.0)
        left = normalised(layers, left) if scope == "global_normalized" else left
        groups = [np.arange(layers.size)] if scope != "layer" else [np.flatnonzero(layers == name) for name in order]
        expected = keep.copy()
        for group in groups:
            wanted = math.floor(ratio * group.size + Fraction(1, 2))
            while np.count_nonzero(~expected[group]) < wanted:
                spare = [i for i in group if expected[i] and (layers == layers[i])[expected].sum() > min_filters]
                expected[min(spare, key=lambda i: (left[i], order[layers[i]], i))] = False
            assert np.count_nonzero(~expected[group]) == wanted
        assert found.keep.tolist() == expected.tolist()
        keep = found.keep
    assert found.achieved == np.count_nonzero(~keep) / keep.size


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    SCOPES,
    ROUND_TO,
    st.integers(1, 999),
    st.integers(2, 4),
    st.integers(1, 9),
    st.integers(0, 999),
)
def test_in_steps_too_kept_counts_are_multiples_and_by_layer_the_same(
    sizes, scope, round_to, thousandths, steps, min_filters, seed
):
    layers, generator = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(seed)
    keep = np.ones(layers.size, dtype=bool)
    try:
        for step in range(1, steps + 1):
            ratio, last = Fraction(thousandths * step, 1000 * steps), step == steps
            scores = generator.random(layers.size)
            found = mask(layers, scores, scope, ratio, min_filters, round_to, gone=~keep, last=last)
            assert not (found.keep & ~keep).any()
            keep = found.keep
        at_once = mask(layers, scores, scope, thousandths / 1000, min_filters, round_to)
    except InputError:
        assume(False)
    kept, whole = np.bincount(layers[keep], minlength=len(sizes)), np.array(sizes)
    assert all((kept % round_to == 0) | (kept == whole))
    assert all(kept >= np.minimum(whole, min_filters))
    if scope == "layer":
        assert kept.tolist() == np.bincount(layers[at_once.keep], minlength=len(sizes)).tolist()
