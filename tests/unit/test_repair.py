"""Repairs of a cut: nothing is lost where nothing is missing, and the regression is the one that brute force finds."""

import functools

import numpy as np
import pytest
import torch

from winnow.importance import compensation, moments
from winnow.networks import backbones, channels, couplings, surgery
from winnow.networks.backbones import Backbone

from .test_couplings import keep_of, units_of

# Plain with three linear layers, with a flattened map; concatenations; residuals with batch norms; Inception; depthwise
# convolutions with gates; batch norms before the convolutions that hear all blocks before.
FAMILIES = ("vgg_digits", "squeezenet1_1", "resnet18", "googlenet", "mobilenet_v2", "mobilenet_v3_small")
CLASSES = 5


def shaped(network):
    """A backbone of a network with drawn weights, in double precision, that knows no architecture."""
    drawn = couplings.drawn(network)
    found = channels.of(network)
    manifest = {"layers": [vars(layer) for layer in found.layers]}
    return drawn, Backbone(manifest, {name: part.detach() for name, part in drawn.state_dict().items()}, found.table)


@functools.cache
def backbone_of(architecture):
    head = "gap" if architecture == "vgg_digits" else "classifier"
    return shaped(couplings.narrowed(backbones.build(architecture, head, CLASSES)))


def images_of(size, count=6, seed=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches_of(images, batch=4):
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(batch)]


def measured(network, backbone, images):
    return moments.measure(network, backbone.channels, batches_of(images), 1, head=True)


def cut(network, backbone, keep, found=None, ridge=1e-11):
    """The network less units, compensated where there are moments."""
    state = backbone.state
    if found is not None:
        state = compensation.compensated(network, state, backbone.channels, found, keep, ridge=ridge)
    sliced = surgery.slice_state(state, backbone.channels, keep)
    smaller = surgery.resize(couplings._skeleton(network), {name: part.shape for name, part in sliced.items()})
    smaller.load_state_dict(sliced, assign=True)
    return smaller.eval()


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def twins(network, backbone, keep):
    """Make every removed unit the double, or half, of one that stays in its layer: their outputs are multiples."""
    layers, rng = units_of(backbone), np.random.default_rng(0)
    rows = backbone.channels.to_pandas()
    owned = rows[rows["dimension"] == 0]
    state = {name: part.clone() for name, part in backbone.state.items()}
    for unit in np.flatnonzero(~keep):
        model = rng.choice(np.flatnonzero(keep & (layers == layers[unit])))
        for one, other in zip(
            owned[owned["unit"] == unit].itertuples(), owned[owned["unit"] == model].itertuples(), strict=True
        ):
            assert (one.tensor, one.length) == (other.tensor, other.length)
            state[one.tensor][one.first : one.first + one.length] = state[other.tensor][
                other.first : other.first + other.length
            ]
    network.load_state_dict(state)
    return Backbone(backbone.manifest, state, backbone.channels)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_nothing_is_lost_where_the_removed_are_like_those_that_stay(architecture):
    network, backbone = backbone_of(architecture)
    keep = keep_of(backbone, "layer", 0.3)
    backbone = twins(network, backbone, keep)
    images = images_of(64)
    with torch.inference_mode():
        expected = network(images)
        found = measured(network, backbone, images)
        assert difference(cut(network, backbone, keep)(images), expected) > 1e-3
        assert difference(cut(network, backbone, keep, found)(images), expected) < 1e-6
