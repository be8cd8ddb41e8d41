"""Repair: what is done to a network after a cut and before any training, by the names that its cell's path has.

Cells without repairs have no use for this module, and the digest of their code leaves it out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from winnow.files import InputError
from winnow.importance import compensation, heads, moments, passes, recalibration, regression, statistics, sums
from winnow.networks import backbones, surgery
from winnow.runtime.memory import in_smaller_parts
from winnow.training import cells
from winnow.training.protocols import COMPENSATED, FITTED, RECALIBRATED

# Of a last layer's weights over standardised features: see winnow.importance.regression.fit.
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


def begun(
    bench: cells.Bench, keep: np.ndarray | None, seed: int, repairs: Collection[str], path: Path | None
) -> nn.Module:
    """The backbone less its removed units, repaired, with a new last layer, on the device as it is trained.

    Parameters
    ----------
    keep : (units,) bool or None
        Which units stay; None for all.
    seed
        Of a last layer that is not fitted.
    repairs
        Names in :data:`winnow.training.protocols.REPAIRS`.
    path
        The manifest of the backbone's moments; None where no repair needs them.

    Raises
    ------
    InputError
        If the moments are missing, damaged or of another network.
    """
    backbone = bench.backbone
    goals: recalibration.Targets = {}
    if keep is not None and needs_moments(repairs):
        if path is None:
            raise InputError(f"{' and '.join(repairs)}: give the backbone's moments with --moments")
        found = sums.read(path, moments.KIND)
        if COMPENSATED in repairs:
            state = compensation.compensated(backbone.network(), backbone.state, backbone.channels, found, keep)
            backbone = dataclasses.replace(backbone, state=state)
        goals = recalibration.targets(found, backbone.channels, keep)
    network = surgery.pruned(backbone, keep, len(bench.store.classes), "inherited", seed).to(bench.lease.device)
    if keep is not None and RECALIBRATED in repairs:
        recalibrated(network, goals, bench)
    if FITTED in repairs:
        fitted(network, bench)
    return network.to(memory_format=torch.channels_last)


def cut(
    network: nn.Module, state: dict[str, torch.Tensor], keep: np.ndarray, kept: np.ndarray | None, bench: cells.Bench
) -> nn.Module:
    """What :func:`winnow.networks.surgery.cut` does, repaired as the cell wants it: measured on the network itself.

    Parameters
    ----------
    network
        As it was trained, with ``state``, on the device.
    """
    backbone, store, device = bench.backbone, bench.store, bench.lease.device
    repairs = bench.repairs

    def measured(batch: int) -> sums.Sums:
        batches = passes.batches_of(store, bench.split.rows("train"), backbone.manifest, device, batch)
        return moments.measure(network, backbone.channels, batches, len(store.classes), head=True)

    goals: recalibration.Targets = {}
    if needs_moments(repairs):
        batch = passes.batch_size(store.image_size, statistics.BATCH_BYTES[device])
        found, _ = in_smaller_parts(batch, measured)
        if COMPENSATED in repairs:
            state = compensation.compensated(network, state, backbone.channels, found, keep, kept)
        goals = recalibration.targets(found, backbone.channels, keep, kept)
    smaller = surgery.cut(backbone, state, keep, kept)
    if RECALIBRATED in repairs:
        recalibrated(smaller.eval(), goals, bench)
    return smaller


def needs_moments(repairs: Collection[str]) -> bool:
    return COMPENSATED in repairs or RECALIBRATED in repairs


def recalibrated(network: nn.Module, goals: recalibration.Targets, bench: cells.Bench) -> None:
    """Recalibrate a network that lies on the device, in place, by batches as training has them."""
    store, size = bench.store, bench.arguments.spec["recipe"]["batch_size"]
    rows = bench.split.rows("train")
    # Of all classes in each batch, as in training, and the same whatever the seed.
    rows = np.random.default_rng(0).permutation(rows)
    begin = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def repair(batch: int) -> None:
        network.load_state_dict(begin)
        # A last batch of a single image would have no spread.
        batch = -(-rows.size // max(1, rows.size // batch))
        batches = passes.batches_of(store, rows, bench.backbone.manifest, bench.lease.device, batch)
        recalibration.recalibrate(network.eval(), goals, batches)

    in_smaller_parts(max(2, size), repair, least=2)


def fitted(network: nn.Module, bench: cells.Bench) -> None:
    """Put a logistic regression on the network's features in place of its last layer.

    It is that of :func:`winnow.importance.regression.fit`, with the penalty under which images that were held out are
    told best, scaled down until its weights are as large, in the mean square, as those that it takes the place of. What
    it takes an image for stays as it was, and the layers below get gradients no larger than from a drawn layer, which
    the recipe's step is made for. Where the last layer is a convolution, as in SqueezeNet, features are of the size
    that they have at single positions, and the bias is raised alike for all classes until no output on a training image
    is negative, which a ReLU behind it would cut off.
    """
    store, device = bench.store, bench.lease.device
    rows, classes, name = bench.split.rows("train"), len(store.classes), backbones.last_layer(network)

    def batches(batch: int) -> Iterator[passes.Batch]:
        return passes.batches_of(store, rows, bench.backbone.manifest, device, batch)

    def fit(batch: int) -> None:
        found = heads.features(network.eval(), lambda: batches(batch))
        count = found.known.numel()
        penalty, begin = penalty_for(found.x, found.y, count, found.spread)
        weight, bias = regression.fit(found.x, found.y, count, penalty, found.spread, begin)
        drawn = network.get_parameter(f"{name}.weight")
        size = min(1.0, (drawn.double().square().mean() / weight.square().mean()).sqrt().item())
        # Of a class without images no logit is minus infinity while there is something to be learnt.
        heads.put(network, found.known, size * weight, size * bias, classes, size * bias.min().item())
        last = network.get_submodule(name)
        if isinstance(last, nn.Conv2d):
            network.get_parameter(f"{name}.bias").add_(max(0.0, -lowest(network, last, batches(batch))))

    in_smaller_parts(passes.batch_size(store.image_size, statistics.BATCH_BYTES[device]), fit)
    network.requires_grad_()


def penalty_for(
    features: torch.Tensor, labels: torch.Tensor, classes: int, spread: torch.Tensor
) -> tuple[float, regression.Layer | None]:
    """Which of :data:`PENALTIES` gives images that were held out, a third of each class, the least cross-entropy.

    Each fit begins where that of the next larger penalty ended, which is nearer than zero.

    Returns
    -------
    (penalty, layer)
        And the layer of the images that were not held out; the largest and None where each class has but one image.
    """
    place = torch.zeros_like(labels)
    for number in range(classes):
        own = labels == number
        place[own] = torch.arange(int(own.sum()), device=labels.device)
    out = place % 3 == 1
    if not out.any():
        return PENALTIES[-1], None
    layers: dict[float, regression.Layer] = {}
    losses, layer = {}, None
    for penalty in reversed(PENALTIES):
        layer = regression.fit(features[~out], labels[~out], classes, penalty, spread, layer)
        weight, bias = layers[penalty] = layer
        logits = features[out].double() @ weight.T + bias
        losses[penalty] = nn.functional.cross_entropy(logits, labels[out]).item()
    best = min(PENALTIES, key=losses.__getitem__)
    return best, layers[best]


def lowest(network: nn.Module, layer: nn.Module, batches: Iterable[passes.Batch]) -> float:
    """The lowest output that a layer has on some images."""
    found = []
    hook = layer.register_forward_hook(lambda module, inputs, output: found.append(output.amin()))
    try:
        with torch.inference_mode(), passes.full_float32():
            for images, _ in batches:
                network(images)
    finally:
        hook.remove()
    return torch.stack(found).amin().item()
