"""Scores of a network that has lost units: those of the units that are left, whatever they are called in it."""

import numpy as np
import pytest
import torch

from winnow.importance import gradients, scores, statistics
from winnow.importance.criteria import CRITERIA
from winnow.networks import surgery, units

from .test_couplings import Silenced, backbone, images_of, keep_of, removed, units_of

FAMILIES = ("resnet18", "mobilenet_v2", "squeezenet1_1", "googlenet")


def left(net, keep, network, name, found=None):
    state = network.state_dict()
    value, score = scores.score(
        name, net.manifest["layers"], net.channels, lambda names: [state[n].numpy() for n in names], found, 0, keep
    )
    assert np.isnan(value).tolist() == np.isnan(score).tolist() == (~keep).tolist()
    return value[keep]


@pytest.mark.parametrize("architecture", [*FAMILIES, "densenet121"])
def test_two_cuts_are_one(architecture):
    net = backbone(architecture)
    kept = keep_of(net, "layer", 0.3)
    keep = kept & keep_of(net, "layer", 0.3, seed=1)
    before = surgery.slice_state(net.state, net.channels, kept)
    found = surgery.slice_state(before, net.channels, keep, kept)
    expected = surgery.slice_state(net.state, net.channels, keep)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    network = surgery.cut(net, before, keep, kept)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.eval()(images_of(64)).shape == (2, 5)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_activations_are_those_of_the_network_in_which_the_others_are_silent(architecture):
    net = backbone(architecture)
    keep = keep_of(net, "layer", 0.4)
    images, means = images_of(64, 4), {}

    class Watched(Silenced):
        def run_node(self, node):
            result = super().run_node(node)
            if self.names.get(node) in self.gates:
                means[self.names[node]] = result.abs().double().mean((0, 2, 3)).numpy()
            return result

    with torch.inference_mode():
        Watched(net.network(), net, keep).run(images)
    place = {layer["layer"]: layer["activation"] for layer in net.manifest["layers"]}
    rows = net.channels.to_pandas().drop_duplicates(["unit", "layer", "filter"])
    rows["mean"] = [means[place[layer]][index] for layer, index in zip(rows["layer"], rows["filter"], strict=True)]
    expected = rows.groupby("unit")["mean"].mean().to_numpy()[keep]

    layers = scores.remaining(net.manifest["layers"], net.channels, keep)
    batches = [(images, torch.tensor([0, 1, 1, 0]))]
    found = statistics.measure(removed(net, keep), layers, batches, 2)
    assert left(net, keep, removed(net, keep), "mean_activation", found) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_gradients_are_those_of_the_network_in_which_the_others_are_silent():
    net = backbone("squeezenet1_1")
    keep = keep_of(net, "layer", 0.4)
    images, labels = images_of(64, 4), torch.tensor([0, 1, 2, 4])
    gates = {}

    class Watched(Silenced):
        def run_node(self, node):
            result = super().run_node(node)
            if self.names.get(node) in self.gates:
                gates[self.names[node]] = result
                result.retain_grad()
            return result

    logits = Watched(net.network().requires_grad_(), net, keep).run(images)
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    effect = {
        step: ((out * out.grad).sum((2, 3)).abs().mean(0) / out[0, 0].numel()).detach().numpy()
        for step, out in gates.items()
    }
    place = {layer["layer"]: layer["activation"] for layer in net.manifest["layers"]}
    rows = net.channels.to_pandas().drop_duplicates(["unit", "layer", "filter"])
    rows["effect"] = [effect[place[layer]][index] for layer, index in zip(rows["layer"], rows["filter"], strict=True)]
    expected = rows.groupby("unit")["effect"].mean().to_numpy()[keep]

    layers = scores.remaining(net.manifest["layers"], net.channels, keep)
    found = gradients.measure(removed(net, keep), layers, lambda: [(images, labels)], 5)
    assert left(net, keep, removed(net, keep), "taylor", found) == pytest.approx(expected, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("architecture", FAMILIES[:2])
def test_weights_are_those_that_are_left(architecture):
    net = backbone(architecture)
    keep = keep_of(net, "layer", 0.4)
    network = removed(net, keep)
    place = {layer["layer"]: [] for layer in net.manifest["layers"]}
    rows = net.channels.to_pandas().drop_duplicates(["unit", "layer", "filter"])
    rows = rows[keep[rows["unit"]]].sort_values(["layer", "filter"])
    for layer, part in rows.groupby("layer"):
        weight = network.get_submodule(layer).weight.detach().double()
        assert len(part) == len(weight)
        place[layer] = weight.abs().mean((1, 2, 3)).numpy()
        rows.loc[part.index, "mean"] = place[layer]
    expected = rows.groupby("unit")["mean"].mean().to_numpy()
    assert left(net, keep, network, "average_weight") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2", "densenet121"])
def test_norms_and_draws_do_not_change_by_what_is_gone(architecture):
    net = backbone(architecture)
    everything, keep = np.ones(net.units, dtype=bool), keep_of(net, "layer", 0.4)
    for name in ("bn_scale", "random"):
        whole = left(net, everything, net.network(), name)
        assert left(net, keep, removed(net, keep), name) == pytest.approx(whole[keep], rel=1e-6)


def test_every_criterion_that_looks_at_weights_has_a_value_for_what_is_left():
    net = backbone("resnet18")
    keep = keep_of(net, "global", 0.3)
    for name, criterion in CRITERIA.items():
        if criterion.needs in ("weights", "norms", "nothing"):
            assert np.isfinite(left(net, keep, removed(net, keep), name)).all()


def test_units_are_named_after_their_first_member():
    net = backbone("resnet18")
    layer, index = units.named(net.manifest["layers"], net.channels)
    assert layer.tolist() == units_of(net).tolist()
    assert index.min() == 0
