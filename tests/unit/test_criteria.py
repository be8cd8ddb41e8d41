"""The criteria against brute force, and the facts that follow from their formulas."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from winnow import tables
from winnow.files import InputError, write_json
from winnow.importance import criteria, sums
from winnow.importance.criteria import CRITERIA
from winnow.networks import backbones, channels

from . import programs


def test_average_weight_is_the_mean_of_absolute_weights():
    weights = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    expected = [sum(abs(float(w)) for w in weights[k].ravel()) / 12 for k in range(4)]
    np.testing.assert_allclose(criteria.average_weight(weights), expected, rtol=1e-12)


def sums_of(kind, images, positions, **arrays):
    """Statistics of a layer "conv"; arrays are (classes, filters)."""
    layer = {"layer": "conv", "filters": arrays["sum"].shape[1], "activation": "relu", "positions": positions}
    found = {f"conv.{name}": array for name, array in arrays.items()}
    return sums.Sums(kind, np.array(images), [layer], found)


@pytest.fixture
def activations():
    """Activations a(n, k, i, j) of 6 images of 2 classes, 3 filters, 2×2 positions, and their statistics."""
    generator = np.random.default_rng(1)
    a = np.maximum(generator.normal(size=(6, 3, 2, 2)), 0)
    parts = [a[np.array([0, 0, 1, 1, 1, 0]) == c] for c in range(2)]
    arrays = {
        "sum": [x.sum((0, 2, 3)) for x in parts],
        "sum_sq": [(x * x).sum((0, 2, 3)) for x in parts],
        "zeros": [(x == 0).sum((0, 2, 3)) for x in parts],
        "max": [x.max((0, 2, 3)) for x in parts],
    }
    return a, sums_of("activations", [3, 3], 4, **{name: np.array(values) for name, values in arrays.items()})


def test_mean_activation_and_apoz_over_images_and_positions(activations):
    a, found = activations
    merged = found.over_classes("conv", 3)
    np.testing.assert_allclose(criteria.mean_activation(merged), a.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(criteria.apoz(merged), (a == 0).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(merged["max"], a.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(merged["sum_sq"], (a * a).sum(axis=(0, 2, 3)))


def test_a_score_is_always_higher_means_keep(activations):
    merged = activations[1].over_classes("conv", 3)
    for name, value in (("apoz", 1 - criteria.apoz(merged)), ("mean_activation", criteria.mean_activation(merged))):
        np.testing.assert_array_equal(CRITERIA[name].score(CRITERIA[name].function(merged)), value)


def test_taylor_is_the_mean_over_images_of_the_mean_over_positions():
    a, gradient = (np.random.default_rng(seed).normal(size=(5, 3, 2, 2)) for seed in (0, 1))
    labels = np.array([0, 1, 0, 1, 1])
    effect = np.abs((a * gradient).sum(axis=(2, 3)))
    found = sums_of("gradients", [2, 3], 4, sum=np.array([effect[labels == c].sum(axis=0) for c in range(2)]))
    expected = np.abs((a * gradient).mean(axis=(2, 3))).mean(axis=0)
    np.testing.assert_allclose(criteria.taylor(found.over_classes("conv", 3)), expected, rtol=1e-12)


def test_norms_and_the_distances_to_the_other_filters_by_brute_force():
    weights = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    flat = [[float(w) for w in weights[k].ravel()] for k in range(4)]
    np.testing.assert_allclose(criteria.l1_norm(weights), [sum(map(abs, w)) for w in flat], rtol=1e-12)
    np.testing.assert_allclose(criteria.l2_norm(weights), [math.hypot(*w) for w in flat], rtol=1e-12)
    distances = [sum(math.dist(one, other) for other in flat) for one in flat]
    np.testing.assert_allclose(criteria.geometric_median(weights), distances, rtol=1e-12)
    assert criteria.geometric_median(weights[:1]).tolist() == [0.0]


def test_a_filter_amid_the_others_goes_first_by_geometric_median():
    weights = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.1, 0.1]]).reshape(5, 2, 1, 1)
    assert criteria.geometric_median(weights).argmin() == 4


def test_bn_scale_is_the_absolute_scale():
    assert criteria.bn_scale(np.array([0.5, -2.0, 0.0], dtype=np.float32)).tolist() == [0.5, 2.0, 0.0]


def test_every_criterion_that_looks_at_something_has_its_reversal(activations):
    plain = {name for name, each in CRITERIA.items() if not each.reverse}
    assert set(CRITERIA) - plain == {f"reversed_{name}" for name in plain if CRITERIA[name].needs != "nothing"}
    merged = activations[1].over_classes("conv", 3)
    for name in ("apoz", "mean_activation"):
        values, score = CRITERIA[name].function(merged), CRITERIA[name].score
        reversal = CRITERIA[f"reversed_{name}"]
        np.testing.assert_array_equal(reversal.function(merged), values)
        np.testing.assert_array_equal(reversal.score(values), -score(values))


def test_within_a_layer_mean_and_sum_of_absolute_weights_rank_alike():
    weights = np.random.default_rng(2).normal(size=(16, 8, 3, 3))
    total = np.abs(weights).sum(axis=(1, 2, 3))
    assert (np.argsort(criteria.average_weight(weights)) == np.argsort(total)).all()


def test_random_is_seeded_and_uniform():
    draw = CRITERIA["random"].function
    first, again, other = (draw(2000, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).any()
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1


def test_any_tells_no_filter_from_another():
    assert len(set(CRITERIA["any"].function(5, np.random.default_rng(0)))) == 1


def test_activations_of_another_network_or_of_no_image_are_an_error(activations):
    for layer, filters in (("conv", 4), ("conv", 2), ("other", 3)):
        with pytest.raises(InputError, match=f"filters of layer {layer}, the backbone has {filters}"):
            activations[1].over_classes(layer, filters)
    empty = dataclasses.replace(activations[1], images=np.zeros(2, dtype=np.int64))
    with pytest.raises(InputError, match="layer conv were measured on no image"):
        empty.over_classes("conv", 3)


@pytest.fixture
def backbone(tmp_path, activations):
    """A folder with a backbone of one layer, whose activations lie beside it."""
    weights = np.random.default_rng(3).normal(size=(3, 2, 3, 3)).astype(np.float32)
    layers = [{"layer": "conv", "filters": 3, "activation": "relu", "function": "relu"}]
    write_json(tmp_path / "net" / "manifest.json", {"layers": layers})
    scale = np.array([0.5, -2.0, 0.1], dtype=np.float32)
    state = {"conv.weight": weights, "norm.weight": scale, "classifier.weight": weights}
    save_file(state, tmp_path / "net" / "weights.safetensors")
    write_channels(tmp_path / "net", ["conv.weight", "norm.weight", "norm.bias", "norm.running_var"])
    sums.write(tmp_path / "activations.json", activations[1], {})
    return tmp_path


def write_channels(folder, tensors):
    """The channel table of a layer ``conv`` of three filters, to which these tensors belong."""
    rows = [(k, "conv", k, tensor, 0, k, 1, 1) for tensor in tensors for k in range(3)]
    names = tables.SCHEMAS["channels"].names
    rows = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    tables.write_table(folder / "channels.parquet", rows, "channels", {})


def scored(folder, name, seed=None, activations=True):
    given = [folder / "activations.json"] if activations else []
    arguments = ["--backbone", folder / "net", "--statistics", *given, "--output", folder / "scores.parquet"]
    programs.run("score", {"criterion": name, "seed": seed, "code": "0"}, *arguments)
    table = tables.read_table(folder / "scores.parquet", "scores")
    assert table["layer"].to_pylist() == ["conv"] * 3
    assert table["filter"].to_pylist() == [0, 1, 2]
    return table["value"].to_numpy(), table["score"].to_numpy()


def test_the_program_scores_by_every_criterion(backbone, activations):
    a = activations[0]
    # test_gradients.py has the one that looks at gradients.
    names = [name for name, each in CRITERIA.items() if each.needs != "gradients"]
    values = {name: scored(backbone, name, seed=4 if name == "random" else None) for name in names}
    weights = np.random.default_rng(3).normal(size=(3, 2, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(values["average_weight"][0], np.abs(weights).mean(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(values["mean_activation"][0], a.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(values["apoz"][0], (a == 0).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(values["bn_scale"][0], [0.5, 2.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(values["l2_norm"][0], np.sqrt((weights**2).sum(axis=(1, 2, 3))), rtol=1e-6)
    np.testing.assert_array_equal(values["random"][0], np.random.Generator(np.random.PCG64(4)).random(3))
    for name, (value, score) in values.items():
        expected = 1 - value if "apoz" in name else value
        np.testing.assert_array_equal(score, -expected if name.startswith("reversed_") else expected)


def test_bn_scale_without_batch_norm_says_so(backbone):
    write_channels(backbone / "net", ["conv.weight", "conv.bias"])
    with pytest.raises(InputError, match=r"bn_scale reads the batch norm .* after conv there is none"):
        scored(backbone, "bn_scale")


@pytest.mark.parametrize("architecture", ["vgg11_bn", "vgg11"])
def test_bn_scale_finds_the_batch_norms_of_a_real_architecture(tmp_path, architecture):
    network = backbones.initialised(architecture, "gap", 2, 0)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items() if name.startswith("features")}
    generator = np.random.default_rng(0)
    scales = {name: generator.normal(size=64).astype(np.float32) for name in ("features.1.weight",)}
    save_file(state | scales, tmp_path / "weights.safetensors")
    found = channels.of(network)
    tables.write_table(tmp_path / "channels.parquet", found.table, "channels", {})
    layers = [vars(layer) for layer in found.layers]
    write_json(tmp_path / "manifest.json", {"layers": layers})
    spec, output = {"criterion": "bn_scale", "seed": None}, tmp_path / "scores.parquet"
    if architecture == "vgg11":
        with pytest.raises(InputError, match=r"after features\.0 there is none"):
            programs.run("score", spec, "--backbone", tmp_path, "--output", output)
        return
    programs.run("score", spec, "--backbone", tmp_path, "--output", output)
    values = tables.read_table(output, "scores")["value"].to_numpy()
    np.testing.assert_allclose(values[:64], np.abs(scales["features.1.weight"]))
    assert (values[64:] == 1).all()


def test_bn_scale_of_coupled_filters_is_the_mean_over_their_batch_norms(tmp_path):
    network = backbones.initialised("resnet18", "classifier", 2, 0)
    generator = np.random.default_rng(0)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items() if tensor.dim()}
    for name in [name for name in state if name.endswith("running_var")]:
        scale = name.removesuffix("running_var") + "weight"
        state[scale] = generator.normal(size=state[scale].shape).astype(np.float32)
    save_file(state, tmp_path / "weights.safetensors")
    found = channels.of(network)
    tables.write_table(tmp_path / "channels.parquet", found.table, "channels", {})
    write_json(tmp_path / "manifest.json", {"layers": [vars(layer) for layer in found.layers]})
    programs.run("score", {"criterion": "bn_scale", "seed": None}, "--backbone", tmp_path, "--output", tmp_path / "s")
    values = tables.read_table(tmp_path / "s", "scores")["value"].to_numpy()
    coupled = [np.abs(state[f"{name}.weight"]) for name in ("bn1", "layer1.0.bn2", "layer1.1.bn2")]
    np.testing.assert_allclose(values[:64], np.mean(coupled, axis=0), rtol=1e-6)


def test_the_weights_do_not_ask_what_the_data_set_is_and_random_asks_for_its_seed(backbone):
    with_activations = scored(backbone, "average_weight")
    np.testing.assert_array_equal(scored(backbone, "average_weight", activations=False), with_activations)
    assert not (scored(backbone, "random", 0)[0] == scored(backbone, "random", 1)[0]).any()


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("apozz", None, "unknown criterion 'apozz'; allowed: .*average_weight"),
        ("apoz", "activations.json", "give their manifest with --statistics"),
        ("average_weight", "net/weights.safetensors", r"weights\.safetensors does not exist"),
    ],
)
def test_the_program_names_what_is_missing(backbone, name, spoil, message):
    if spoil:
        (backbone / spoil).unlink()
    with pytest.raises(InputError, match=message):
        scored(backbone, name, activations=spoil != "activations.json")


def test_truncated_weights_are_named(backbone):
    path = backbone / "net" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"weights\.safetensors cannot be read"):
        scored(backbone, "average_weight")


def test_the_criteria_and_their_program_need_no_heavy_library():
    for command, heavy in (
        ("from winnow.importance import criteria", {"torch", "pandas", "pyarrow", "scipy", "safetensors"}),
        ("import score", {"torch", "pandas", "scipy"}),
    ):
        check = f"import sys; {command}; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
        done = subprocess.run([sys.executable, "-c", check], cwd=programs.SCRIPTS, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
