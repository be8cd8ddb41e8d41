"""The gradient pass against numerical derivatives and brute force, and the last layer that it fits first."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from winnow import tables
from winnow.files import InputError
from winnow.importance import gradients, passes, sums
from winnow.networks import backbones, channels

from . import programs
from .fabricated import table_of
from .test_backbones import imported
from .test_statistics import batched, outputs


@pytest.fixture(params=["vgg_digits", "vgg11_bn"])
def small(request):
    """A network in float64, its layers, images and labels; of class 2 of 4 there is no image."""
    side = 8 if request.param == "vgg_digits" else 32
    network = backbones.initialised(request.param, "gap", 5, 0).eval().double()
    layers = [vars(layer) for layer in channels.of(network).layers]
    images = torch.randn(7, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return network, layers, images, torch.tensor([0, 3, 3, 0, 1, 1, 3], dtype=torch.int16)


def fitted(network, images, labels, size=3):
    gradients.fit_head(network, lambda: batched(images, labels, size), 4)
    return network


def loss_with(network, name, a, label):
    """The loss of one image as a function of the output of the module ``name``."""
    modules = list(network.features.named_children())
    start = 1 + [child for child, _ in modules].index(name.split(".")[1])
    x = a
    for _, module in modules[start:]:
        x = module(x)
    return nn.functional.cross_entropy(network.classifier(torch.flatten(network.avgpool(x), 1)), label[None].long())


def test_equals_numerical_derivatives_summed_image_by_image(small):
    network, layers, images, labels = small
    fitted(network, images, labels)
    table = table_of(gradients.measure(network, layers, lambda: batched(images, labels, 3), 4))
    # With one filter's map scaled, (L((1 + h)·a) − L((1 − h)·a)) / 2h is Σ a · ∂L/∂a. A larger h would cross the kinks
    # of ReLUs and maxima.
    for layer in (layers[0], layers[-1]):
        maps = outputs(network, layers, images)[layers.index(layer)]
        for k in (0, layer["filters"] - 1):
            effects = []
            for n in range(len(labels)):
                scaled = {}
                for h in (1e-7, -1e-7):
                    a = maps[n : n + 1].clone()
                    a[:, k] *= 1 + h
                    with torch.no_grad():
                        scaled[h] = loss_with(network, layer["activation"], a, labels[n]).item()
                effects.append(abs(scaled[1e-7] - scaled[-1e-7]) / 2e-7)
            rows = table[(table["layer"] == layer["layer"]) & (table["filter"] == k)].set_index("class")
            for c in range(4):
                expected = sum(e for e, label in zip(effects, labels, strict=True) if label == c)
                assert rows.loc[c, "sum"] == pytest.approx(expected, rel=1e-4, abs=1e-7)
                assert rows.loc[c, "images"] == int((labels == c).sum())
            assert (rows["positions"] == maps.shape[2] * maps.shape[3]).all()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_do_not_change_the_sums(small, size):
    network, layers, images, labels = small
    fitted(network, images, labels)
    expected = gradients.measure(network, layers, lambda: batched(images, labels, 4), 4)
    found = gradients.measure(network, layers, lambda: batched(images, labels, size), 4)
    assert found.images.tolist() == expected.images.tolist()
    assert found.layers == expected.layers
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-9, atol=1e-15)


def test_the_fitted_layer_is_at_the_minimum_and_knows_classes_without_images(small):
    network, _, images, labels = small
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "classifier" not in name}
    features = []
    hook = network.get_submodule(backbones.last_layer(network)).register_forward_pre_hook(
        lambda module, inputs: features.append(inputs[0].detach())
    )
    network(images)
    hook.remove()
    fitted(network, images, labels)
    layer = network.get_submodule(backbones.last_layer(network))
    assert layer.out_features == 4
    assert network(images).softmax(1)[:, 2].max() == 0
    assert all((network.state_dict()[name] == tensor).all() for name, tensor in before.items())
    # In terms of standardised features, the gradient of Σ loss + ½‖W‖² is 0 at the minimum.
    (x,) = features
    mean, std = x.mean(0), x.std(0, unbiased=False)
    std = torch.where(std > 0, std, 1.0)
    known = [0, 1, 3]
    weight = (layer.weight[known].detach() * std).requires_grad_()
    bias = (layer.bias[known] + layer.weight[known] @ mean).detach().requires_grad_()
    y = torch.tensor([known.index(int(label)) for label in labels])
    logits = (x - mean) / std @ weight.T + bias
    (nn.functional.cross_entropy(logits, y, reduction="sum") + (weight**2).sum() / 2).backward()
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_two_classes_have_the_same_layer_as_many():
    generator = torch.Generator().manual_seed(0)
    network = backbones.initialised("vgg_digits", "gap", 5, 0).eval().double()
    images = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.arange(8) % 2
    gradients.fit_head(network, lambda: batched(images, labels, 8), 2)
    layer = network.get_submodule(backbones.last_layer(network))
    torch.testing.assert_close(layer.weight[0], -layer.weight[1])
    assert (network(images).argmax(1) == labels).double().mean() > 0.7


def test_where_the_last_layer_is_a_convolution_it_gives_the_probabilities_of_a_fit_to_mean_features():
    network = backbones.initialised("squeezenet1_1", "classifier", 5, 0).eval().double()
    images = torch.randn(9, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 3, 3, 0, 1, 1, 3, 0, 1])
    features = network.features(images).mean((2, 3)).detach().numpy()
    fitted(network, images, labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-6, max_iter=1000)).fit(features, labels)
    found = network(images).softmax(1).detach().numpy()
    np.testing.assert_allclose(found[:, [0, 1, 3]], model.predict_proba(features), rtol=1e-4, atol=1e-6)
    assert found[:, 2].max() < 1e-9


def test_where_convolutions_share_an_activation_each_has_its_gradient():
    network = backbones.initialised("resnet18", "classifier", 5, 0).eval().double()
    layers = channels.of(network).layers
    layers = [vars(layer) for layer in layers]
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 3, 3, 1])
    fitted(network, images, labels)
    table = table_of(gradients.measure(network, layers, lambda: batched(images, labels, 3), 4))
    summed = table.groupby(["layer", "filter"], sort=False)["sum"].sum()

    seen = []
    block = network.layer1[0]
    hook = block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = network(images.clone().requires_grad_())
    hook.remove()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels, reduction="sum"), seen)
    expected = (seen[0] * gradient).sum((2, 3)).abs().sum(0).detach().numpy()
    np.testing.assert_allclose(summed["layer1.0.conv2"], expected, rtol=1e-9)
    assert {layer["activation"] for layer in layers if layer["layer"] == "layer1.0.conv2"} == {"layer1.0.relu_1"}
    # The first convolution of all has its own activation, of its own shape.
    assert table.groupby("layer")["positions"].first()["conv1"] == 32 * 32


def test_images_of_one_class_and_weights_that_are_not_finite_are_errors(small):
    network, _, images, labels = small
    with pytest.raises(InputError, match="at least two classes, there are 1"):
        fitted(network, images, torch.zeros_like(labels))
    next(network.parameters()).data[0] = torch.nan
    with pytest.raises(InputError, match=r"inputs of the last layer, classifier\.0, are not finite"):
        fitted(network, images, labels)


def test_the_program_makes_the_same_table_twice_and_taylor_is_a_query_over_it(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    programs.stored(tmp_path / "dataset", pixels, [n % 3 for n in range(12)], ["train"] * 9 + ["test"] * 3)
    imported(tmp_path / "net", architecture="vgg_digits")
    arguments = [*programs.dataset(tmp_path / "dataset"), "--backbone", tmp_path / "net", "--output"]
    for name in "ab":
        programs.run("differentiate", {"dataset": "d"}, *arguments, tmp_path / f"{name}.json")
    for suffix in ("json", "npz"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    given = ["--backbone", tmp_path / "net", "--statistics", tmp_path / "a.json"]
    output = tmp_path / "scores.parquet"
    programs.run("score", {"criterion": "taylor", "seed": None}, *given, "--output", output)
    values = tables.read_table(output, "scores")["value"].to_numpy()
    frame = table_of(sums.read(tmp_path / "a.json", "gradients"))
    groups = frame.groupby(["layer", "filter"], sort=False)
    expected = groups["sum"].sum() / (groups["images"].sum() * groups["positions"].first())
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert values.max() > 0

    # Where memory runs out it begins anew with smaller batches, and nothing is counted twice.
    asked = []
    monkeypatch.setattr(passes, "batches_of", programs.short_of_memory(passes.batches_of, 4, asked))
    programs.run("differentiate", {"dataset": "d"}, *arguments, tmp_path / "c.json")
    assert asked == [256, 128, 64, 32, 16, 8, 4, 4]
    np.testing.assert_allclose(table_of(sums.read(tmp_path / "c.json", "gradients"))["sum"], frame["sum"], rtol=1e-3)
