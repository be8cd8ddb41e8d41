"""The pass that repairs are a query over: second moments of what layers hear, and what they give.

Of each layer whose inputs may be removed (:mod:`winnow.networks.consumers`) its inputs' second moments, with a constant
beside them: from these every regression of some inputs on others follows. Of each layer without a batch norm the sums
of its outputs and of their squares. Nothing but these sums leaves the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from winnow.files import InputError
from winnow.importance.passes import Batch, full_float32
from winnow.importance.statistics import reduce_maps
from winnow.importance.sums import Summed, Sums
from winnow.networks.backbones import last_layer
from winnow.networks.consumers import block, consumers, unnormalised
from winnow.networks.tracing import Watch

KIND = "moments"
GRAM, OUTPUTS = "gram", "outputs"
# Rows that are multiplied in one piece, in the network's precision; their sums are added up in float64.
ROWS = 2**14


class _Gram:
    """Sums of x xᵀ over images and positions, x with a 1 as its last entry.

    Parameters
    ----------
    layer
        Which hears x: maps (N, C, H, W), or (N, …, C · block) where it is linear.
    block
        Positions of a map that is flattened, else 1.
    """

    def __init__(self, layer: nn.Module, block: int) -> None:
        self.linear, self.block = isinstance(layer, nn.Linear), block
        self.total: torch.Tensor | None = None
        self.map: list[int] = []

    def add(self, inputs: torch.Tensor) -> None:
        maps = inputs.unflatten(-1, (-1, self.block)).mT if self.linear else inputs.permute(0, 2, 3, 1)
        rows, self.map = maps.flatten(0, -2), list(maps.shape[1:-1])
        width = rows.shape[1]
        if self.total is None:
            self.total = rows.new_zeros(width + 1, width + 1, dtype=torch.float64)
        for part in rows.split(ROWS):
            self.total[:-1, :-1] += part.T @ part
            self.total[-1, :-1] += part.sum(0)
        self.total[-1, -1] += rows.shape[0]

    def result(self) -> np.ndarray:
        assert self.total is not None  # there were images
        array = self.total.cpu().numpy()
        array[:-1, -1] = array[-1, :-1]
        return array


class _Outputs:
    """Σ y and Σ y² of each output y, over images and positions, and how many these are, (3, outputs)."""

    def __init__(self, layer: nn.Module) -> None:
        self.linear = isinstance(layer, nn.Linear)
        self.total = torch.zeros(())
        self.map: list[int] = []

    def add(self, outputs: torch.Tensor) -> None:
        # A linear layer's outputs are its last axis.
        maps = outputs.flatten(0, -2)[:, :, None, None] if self.linear else outputs
        sums, self.map = reduce_maps(maps)[:2].sum(1), list(maps.shape[2:])
        count = maps.shape[0] * maps.shape[2] * maps.shape[3]
        self.total = self.total + torch.cat([sums, sums.new_full((1, sums.shape[1]), count)])

    def result(self) -> np.ndarray:
        return self.total.cpu().numpy()


def measure(
    network: nn.Module,
    channels: pa.Table,
    batches: Iterable[Batch],
    classes: int,
    head: bool = False,
    progress: Callable[[int], None] = lambda images: None,
) -> Sums:
    """Run the network over batches and add up the second moments of what its layers hear.

    Parameters
    ----------
    network
        In eval mode, on the batches' device: the backbone's, or one that has lost units.
    channels
        The backbone's channel table.
    batches
        Pairs of normalised images (N, 3, H, W) and labels (N,). Results do not depend on sizes, beyond last bits.
    classes
        Number of classes.
    head
        Whether the last layer is looked at too: it is none of a backbone's business, whose cells have their own.
    progress
        Called with the number of images after each batch.

    Returns
    -------
    Sums
        Of the kind "moments". Its layers are the steps that consumers take their inputs from, ``{step}.gram``
        (channels + 1, channels + 1), the last row and column being those of the constant 1; and the layers without
        batch norm, ``{layer}.outputs`` (3, outputs): Σy, Σy², and how many. ``map`` is the height and width of each.

    Raises
    ------
    InputError
        If what a layer hears or gives is not finite; the message names the first.
    """
    last = last_layer(network)
    looks: dict[str, list[tuple[str, str, Any]]] = {}
    listening = [each for each in consumers(network, channels) if head or each.layer != last]
    for each in listening:
        # Layers that hear the same step share its moments.
        if each.step not in looks:
            inputs = network.get_parameter(f"{each.layer}.weight").shape[1]
            tally = _Gram(network.get_submodule(each.layer), block(channels, each.layer, inputs))
            looks[each.step] = [(each.step, GRAM, tally)]
    for name in unnormalised(network):
        if name != last:
            # A layer's step has its name, since it is called once.
            looks.setdefault(name, []).append((name, OUTPUTS, _Outputs(network.get_submodule(name))))

    def look(step: str, output: torch.Tensor) -> None:
        for _, _, tally in looks[step]:
            tally.add(output)

    watch = Watch(network, looks, look)
    images_of = np.zeros(classes, dtype=np.int64)
    with torch.inference_mode(), full_float32():
        for images, labels in batches:
            watch(images)
            images_of += np.bincount(labels.cpu().numpy(), minlength=classes)
            progress(images.shape[0])

    layers: list[Summed] = []
    arrays = {}
    for name, kind, tally in (look for at in looks.values() for look in at):
        array = tally.result()
        if not np.isfinite(array).all():
            what = "inputs of layers, given by" if kind == GRAM else "outputs of"
            raise InputError(
                f"{what} {name}, are not finite numbers: check the backbone's weights and its mean and std"
            )
        layers.append({"layer": name, "kind": kind, "channels": array.shape[1] - (kind == GRAM), "map": tally.map})
        arrays[f"{name}.{kind}"] = array
    return Sums(KIND, images_of, layers, arrays)
