"""Removing filters for good equals zeroing them, at the sizes that follow from the widths."""

import functools

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from winnow.importance import masks
from winnow.networks import backbones, channels, surgery
from winnow.networks.backbones import Backbone
from winnow.tables import SCHEMAS


def backbone_of(architecture, head, classes=7, dtype=torch.float32, seed=0):
    """A backbone with drawn weights, biases and batch-norm statistics, so that no slice can hide in a constant."""
    network = backbones.initialised(architecture, head, classes, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, tensor in network.state_dict().items():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=generator) if "var" in name or "weight" in name else tensor.normal_(
                0, 0.1, generator=generator
            )
        elif "classifier" in name:
            tensor.normal_(0, tensor.shape[1] ** -0.5, generator=generator)
    found = channels.of(network)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": architecture, "head": head, "classes": classes, "layers": layers}
    return Backbone(manifest, {n: t.to(dtype) for n, t in network.state_dict().items()}, found.table)


def keep_of(backbone, scope, ratio, seed=0):
    names = np.repeat(*zip(*((layer["layer"], layer["filters"]) for layer in backbone.manifest["layers"]), strict=True))
    return masks.mask(names, np.random.default_rng(seed).random(names.size), scope, ratio).keep


def masked(backbone, keep):
    """The unpruned network with the removed filters' outputs zeroed by a hook after their ReLU."""
    network, start = backbone.network(), 0
    for layer in backbone.manifest["layers"]:
        gate = torch.from_numpy(keep[start : start + layer["filters"]])[None, :, None, None]
        network.get_submodule(layer["activation"]).register_forward_hook(lambda m, i, out, gate=gate: out * gate)
        start += layer["filters"]
    return network


def removed(backbone, keep):
    """The network of the sliced tensors, last layer included."""
    manifest = backbone.manifest
    state = surgery.slice_state(backbone.state, backbone.channels, keep)
    network = backbones.build(manifest["architecture"], manifest["head"], manifest["classes"])
    surgery.resize(network, {name: tensor.shape for name, tensor in state.items()})
    network.load_state_dict(state, assign=True)
    return network.eval()


def difference(backbone, keep, size):
    dtype = next(iter(backbone.state.values())).dtype
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)
    with torch.inference_mode():
        expected, got = masked(backbone, keep)(images), removed(backbone, keep)(images)
    return ((got - expected).abs().max() / expected.abs().max()).item()


TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10}


@pytest.fixture(scope="module", params=["vgg16", "vgg16_bn"])
def vgg16s(request):
    """VGG-16 in single and in double precision: the latter sees what rounding and deep layers hide."""
    return {dtype: backbone_of(request.param, "gap", dtype=dtype) for dtype in TOLERANCES}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_removed_equals_masked_at_every_ratio(vgg16s, scope, dtype):
    backbone = vgg16s[dtype]
    # Double precision sees every slice; what single precision adds is its rounding, at few filters and at many.
    for tenth in range(1, 10) if dtype is torch.float64 else (1, 9):
        assert difference(backbone, keep_of(backbone, scope, tenth / 10, tenth), 32) <= TOLERANCES[dtype], tenth


def test_removed_equals_masked_for_every_layer_by_itself(vgg16s):
    backbone, start = vgg16s[torch.float64], 0
    for layer in backbone.manifest["layers"]:
        keep = np.ones(backbone.units, dtype=bool)
        keep[start : start + layer["filters"] : 2] = False
        start += layer["filters"]
        assert difference(backbone, keep, 32) <= TOLERANCES[torch.float64], layer["layer"]


# Maps that are smaller than the 7 × 7 of the classifier's pooling, as large, and larger.
@pytest.mark.parametrize("size", [8, 28, 32])
def test_the_classifier_loses_the_columns_of_each_removed_channel(size):
    backbone = small("classifier", torch.float32)
    assert difference(backbone, keep_of(backbone, "global", 0.5), size) <= 1e-4


@functools.cache
def small(head, dtype):
    return backbone_of("vgg_digits", head, dtype=dtype)


def at_least_one(backbone, keep):
    """The mask with the first filter of every layer kept."""
    start = 0
    for layer in backbone.manifest["layers"]:
        keep[start] = True
        start += layer["filters"]
    return keep


@given(st.lists(st.booleans(), min_size=224, max_size=224))
@settings(max_examples=25, deadline=None)
def test_any_mask_of_a_small_network(bits):
    backbone = small("gap", torch.float64)
    assert difference(backbone, at_least_one(backbone, np.array(bits)), 8) <= 1e-10


@given(st.lists(st.booleans(), min_size=224, max_size=224), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_filters_that_are_zero_go_without_changing_a_logit(bits, seed):
    backbone = small("gap", torch.float64)
    keep, start, state = at_least_one(backbone, np.array(bits)), 0, dict(backbone.state)
    for layer in backbone.manifest["layers"]:
        stays = torch.from_numpy(keep[start : start + layer["filters"]]).double()
        start += layer["filters"]
        state[f"{layer['layer']}.weight"] = state[f"{layer['layer']}.weight"] * stays[:, None, None, None]
        state[f"{layer['layer']}.bias"] = state[f"{layer['layer']}.bias"] * stays
    zeroed = Backbone(backbone.manifest, state, backbone.channels)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.inference_mode():
        expected, got = zeroed.network()(images), removed(zeroed, keep)(images)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_vgg16_by_layer_at_0_4_has_the_size_that_follows_from_its_widths():
    widths = [size - masks.removals(0.4, size) for size in (64, 64, 128, 128, 256, 256, 256, *[512] * 6)]
    sides = [224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14]
    params = macs = 0
    for before, width, side in zip([3, *widths], widths, sides, strict=False):
        params += width * (9 * before + 1)
        macs += width * 9 * before * side * side
    for inputs, outputs in ((widths[-1] * 49, 4096), (4096, 4096), (4096, 102)):
        params += outputs * (inputs + 1)
        macs += inputs * outputs

    with torch.device("meta"):
        network = backbones.build("vgg16", "classifier", 1000)
    found = channels.of(network)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": "vgg16", "head": "classifier", "classes": 1000, "layers": layers}
    state = {name: torch.empty(tensor.shape) for name, tensor in network.state_dict().items()}
    backbone = Backbone(manifest, state, found.table)
    pruned = surgery.pruned(backbone, keep_of(backbone, "layer", 0.4), 102, "inherited", 0)
    assert surgery.cost(pruned, 224) == (params, macs)
    assert round(params / 1e6, 1) == 84.1
    assert round(macs / 1e9, 2) == 5.62


def test_cost_equals_a_count_of_every_product():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 12, (1, 3), groups=4),
        nn.Flatten(),
        nn.Linear(12 * 6 * 4, 5),
    ).train()
    expected = 0

    def count(module, inputs, output):
        nonlocal expected
        inputs_of_one = module.weight[0].numel()  # products that make one number of the output
        expected += output[0].numel() * inputs_of_one

    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(2, 3, 16, 16))
    real, expected = expected, 0
    assert surgery.cost(network, 16) == (sum(parameter.numel() for parameter in network.parameters()), real)
    assert network.training


def test_tensors_that_lose_nothing_are_not_copied_and_the_backbone_is_not_changed():
    backbone = backbone_of("vgg_digits", "gap")
    before = {name: tensor.clone() for name, tensor in backbone.state.items()}
    keep = np.ones(backbone.units, dtype=bool)
    sliced = surgery.slice_state(backbone.state, backbone.channels, keep)
    assert all(sliced[name] is tensor for name, tensor in backbone.state.items())
    surgery.slice_state(backbone.state, backbone.channels, keep_of(backbone, "layer", 0.5))
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state.items())


def test_a_slice_may_have_a_stride_and_several_indices():
    rows = {"unit": [0, 1], "layer": ["a", "a"], "filter": [0, 1], "tensor": ["w", "w"], "dimension": [1, 1]}
    rows |= {"first": [0, 1], "length": [3, 3], "stride": [2, 2]}
    table = pa.table(rows, schema=SCHEMAS["channels"])
    weights = torch.arange(12.0).view(2, 6)
    kept = surgery.slice_state({"w": weights}, table, np.array([True, False]))["w"]
    assert kept.tolist() == weights[:, ::2].tolist()


def test_depthwise_convolutions_and_norms_take_their_new_sizes():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    shapes = {"0.weight": (5, 3, 1, 1), "0.bias": (5,), "2.weight": (5, 1, 3, 3), "2.bias": (5,)}
    shapes |= {f"1.{name}": (5,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"1.num_batches_tracked": (), "3.weight": (4, 5, 1, 1), "3.bias": (4,)}
    surgery.resize(network, shapes)
    assert (network[2].groups, network[2].in_channels, network[1].num_features) == (5, 5, 5)
    assert network(torch.randn(2, 3, 6, 6)).shape == (2, 4, 4, 4)


@pytest.mark.parametrize(
    ("layer", "shapes", "image"),
    [
        (nn.Conv2d(1, 8, 3), {"weight": (5, 1, 3, 3), "bias": (5,)}, (1, 6, 6)),
        (nn.Conv2d(8, 16, 3, groups=8), {"weight": (10, 1, 3, 3), "bias": (10,)}, (5, 6, 6)),
        (nn.Conv2d(8, 12, 3, groups=4), {"weight": (6, 2, 3, 3), "bias": (6,)}, (4, 6, 6)),
        (nn.LayerNorm(8), {"weight": (5,), "bias": (5,)}, (4, 5)),
        (nn.Linear(8, 4), {"weight": (4, 5), "bias": (4,)}, (5,)),
    ],
)
def test_a_layer_works_at_its_new_sizes(layer, shapes, image):
    surgery.resize(layer, shapes)
    assert layer(torch.zeros(2, *image)).shape[0] == 2
    assert {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()} == shapes


@given(st.integers(0, 999), st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=30, deadline=None)
def test_cutting_in_two_steps_is_cutting_at_once(seed, first, second):
    backbone = small("classifier", torch.float32)
    draws = np.random.default_rng(seed).random((2, backbone.units))
    kept = at_least_one(backbone, draws[0] >= first)
    keep = at_least_one(backbone, kept & (draws[1] >= second))
    before = surgery.slice_state(backbone.state, backbone.channels, kept)
    found = surgery.slice_state(before, backbone.channels, keep, kept)
    expected = surgery.slice_state(backbone.state, backbone.channels, keep)
    assert list(found) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
