"""The last layer's regression in float32 against scikit-learn's in float64, and against its own gradient."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from winnow.importance import gradients, regression
from winnow.networks import backbones, channels

from .test_statistics import batched


def drawn(images, width, classes, apart, seed=0):
    """Features after a ReLU, correlated as those of networks are, and labels; the first feature is the same for all."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (images,), generator=generator)
    y[:classes] = torch.arange(classes)
    hidden = torch.randn(images, width // 4, generator=generator)
    hidden += apart * torch.randn(classes, width // 4, generator=generator)[y]
    hidden *= torch.logspace(0, -1, width // 4)
    x = torch.relu(hidden @ torch.randn(width // 4, width, generator=generator))
    x += torch.relu(torch.randn(images, width, generator=generator) / 10)
    x[:, 0] = 0.7
    return x, y


def probabilities(x, weight, bias):
    return (x.double() @ weight.T + bias).softmax(1).numpy()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("apart", [0.0, 0.3, 3.0])
def test_float32_gives_scikit_learns_layer(classes, apart):
    x, y = drawn(300, 64, classes, apart)
    scaler = StandardScaler()
    scaled = scaler.fit_transform(x.double().numpy())
    model = LogisticRegression(tol=1e-9, max_iter=10_000).fit(scaled, y.numpy())
    weight, bias = regression.fit(x.clone(), y, classes)
    np.testing.assert_allclose(probabilities(x, weight, bias), model.predict_proba(scaled), atol=2e-5)
    found = weight * torch.from_numpy(scaler.scale_)
    found = (found[1:] - found[:1] if classes == 2 else found).numpy()
    np.testing.assert_allclose(found, model.coef_, atol=1e-3 * np.abs(model.coef_).max())
    assert weight.isfinite().all()


def test_the_gradient_ends_below_the_tolerance():
    x, y = drawn(400, 48, 4, 0.5)
    standardised = x.clone()
    weight, bias = regression.fit(standardised, y, 4)
    layer = (weight * x.std(0, unbiased=False).double()).requires_grad_()
    bias = (bias + weight @ x.mean(0).double()).requires_grad_()
    logits = standardised.double() @ layer.T + bias
    (nn.functional.cross_entropy(logits, y, reduction="sum") + (layer**2).sum() / 2).backward()
    # The features have float32's digits, and so has what the gradient is taken from.
    assert max(layer.grad.abs().max(), bias.grad.abs().max()) / 400 < 5 * regression.TOLERANCE


def in_float64(x, y, penalty):
    """Scikit-learn's (weight, bias) for features as they are, classes in rows; two classes share out the difference."""
    scaler = StandardScaler()
    model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=10_000).fit(scaler.fit_transform(x.numpy()), y.numpy())
    weight, bias = model.coef_ / scaler.scale_, model.intercept_
    if len(weight) == 1:
        weight, bias = (np.concatenate([-each, each]) / 2 for each in (weight, bias))
    return weight, bias - weight @ scaler.mean_


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_float64_comes_nearer_and_wherever_it_begins_it_ends_there(classes, penalty, monkeypatch):
    monkeypatch.setattr(regression, "TOLERANCE", 1e-10)
    x, y = drawn(300, 64, classes, 0.3)
    x = x.double()
    third = torch.arange(300) % 3 == 1
    # Another penalty's, of other images, which have other means.
    near = regression.fit(x[~third], y[~third], classes, 10 * penalty, x.std(0))
    generator = torch.Generator().manual_seed(0)
    far = torch.randn(classes, 64, generator=generator), torch.randn(classes, generator=generator)
    expected = in_float64(x, y, penalty)
    # What is added to all classes alike the loss doesn't see, and a fit leaves it as it was.
    for begin in (None, near, (far[0], far[1] - far[1].mean())):
        weight, bias = regression.fit(x.clone(), y, classes, penalty, begin=begin)
        np.testing.assert_allclose(weight, expected[0], atol=1e-5 * np.abs(expected[0]).max())
        np.testing.assert_allclose(bias - bias.mean(), expected[1] - expected[1].mean(), atol=1e-5)


def test_a_fit_that_begins_at_its_end_stays_there(looks):
    x, y = drawn(300, 64, 5, 0.3)
    first = regression.fit(x.clone(), y, 5)
    looks.clear()
    again = regression.fit(x.clone(), y, 5, begin=first)
    assert looks.count("gradient") <= 3
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture
def looks(monkeypatch):
    """Gradients, and what waits for a device, as they come."""
    found = []

    def counted(name):
        way = getattr(torch.Tensor, name)

        def call(*arguments):
            found.append("gradient" if name == "softmax" else "wait")
            return way(*arguments)

        return call

    for name in ("softmax", "cpu", "item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    return found


@pytest.mark.parametrize("classes", [2, 5])
def test_the_device_is_waited_for_once_a_gradient(classes, looks):
    regression.fit(*drawn(300, 64, classes, 0.3), classes)
    assert looks.count("wait") == looks.count("gradient")
    # Many more if the past were mixed up.
    assert regression.MEMORY < looks.count("gradient") < 200


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_direction_is_that_of_the_two_loops(steps):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 12))
    ways = rng.normal(size=(steps + 1, 12))
    slopes = rng.normal(size=12) + np.cumsum(ways @ root @ root.T, axis=0)
    changes = np.diff(slopes, axis=0)
    expected, shares = -slopes[-1], []
    for way, change in zip(ways[:0:-1], changes[::-1], strict=True):
        shares.append(way @ expected / (way @ change))
        expected = expected - shares[-1] * change
    expected *= ways[-1] @ changes[-1] / (changes[-1] @ changes[-1])
    for way, change, share in zip(ways[1:], changes, shares[::-1], strict=True):
        expected = expected + (share - change @ expected / (way @ change)) * way
    found, slope = regression._direction(ways @ slopes.T, slopes @ slopes.T, 1.0)
    np.testing.assert_allclose(found[0] @ ways + found[1] @ slopes, expected, rtol=1e-8)
    assert slope == pytest.approx(expected @ slopes[-1])


def test_the_same_features_give_the_same_bits():
    x, y = drawn(200, 64, 5, 0.3)
    first, again = (regression.fit(x.clone(), y, 5) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_a_fit_that_does_not_end_says_so(monkeypatch):
    monkeypatch.setattr(regression, "STEPS", 3)
    with pytest.warns(UserWarning, match=r"fit ended at a gradient of .* an image, not 1e-07"):
        regression.fit(*drawn(200, 64, 5, 0.3), 5)


def test_a_fit_stays_where_digits_are_used_up(monkeypatch):
    x, y = drawn(200, 64, 5, 0.3)
    expected = regression.fit(x.clone(), y, 5)
    monkeypatch.setattr(regression, "TOLERANCE", 0.0)
    with pytest.warns(UserWarning, match="not 0e"):
        found = regression.fit(x.clone(), y, 5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def network():
    return backbones.initialised("vgg_digits", "gap", 5, 0).eval()


def shown():
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 5, (60,), generator=generator)
    return torch.randn(60, 3, 8, 8, generator=generator) + torch.randn(5, 3, 8, 8, generator=generator)[labels], labels


def effects(network, images, labels):
    """What each filter adds to the loss, by layer."""
    layers = [vars(layer) for layer in channels.of(network).layers]
    found = gradients.measure(network, layers, lambda: batched(images.clone(), labels, 20), 5)
    return [found.over_classes(layer["layer"], layer["filters"])["sum"] for layer in layers]


def test_the_taylor_scores_rank_filters_as_under_scikit_learns_layer(network):
    images, labels = shown()
    gradients.fit_head(network, lambda: batched(images, labels, 16), 5)
    found = effects(network, images, labels)
    with torch.inference_mode():
        features = network.avgpool(network.features(images)).flatten(1).double().numpy()
    scaler = StandardScaler()
    model = LogisticRegression(tol=1e-9, max_iter=10_000).fit(scaler.fit_transform(features), labels.numpy())
    weight = model.coef_ / scaler.scale_
    layer = network.get_submodule(backbones.last_layer(network))
    layer.weight.data = torch.from_numpy(weight).float()
    layer.bias.data = torch.from_numpy(model.intercept_ - weight @ scaler.mean_).float()
    for ours, theirs in zip(found, effects(network, images, labels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)
        assert spearmanr(ours, theirs).statistic > 0.9999


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_change_no_more_than_last_digits(network, size):
    images, labels = shown()
    layers = []
    for each in (16, size):
        gradients.fit_head(network, lambda each=each: batched(images, labels, each), 5)
        layers.append(network.get_submodule(backbones.last_layer(network)))
    one, other = layers
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-3, atol=1e-4 * one.weight.abs().max().item())


@pytest.mark.parametrize("penalty", [1.0, 100.0])
def test_classes_that_lie_far_apart_take_no_more_passes_than_others(monkeypatch, penalty):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    x = torch.randn(400, 256, generator=generator) * torch.logspace(0, -1.5, 256) + 3 * labels[:, None]
    passes, real = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *given, **options: passes.append(1) or real(*given, **options))
    weight, bias = regression.fit(x.clone(), labels, 2, penalty)
    assert len(passes) < 2 * 150
    monkeypatch.undo()
    scaled = StandardScaler().fit(x.double())
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(scaled.transform(x.double()), labels)
    np.testing.assert_allclose(
        probabilities(x, weight, bias), theirs.predict_proba(scaled.transform(x.double())), atol=1e-4
    )
