"""The channel table: which slices of which tensors go when a unit goes.

A unit is what is kept or removed as a whole. For a VGG it is one filter: its row of the convolution's weights, its
bias, its batch-norm entries, its input slice of the next convolution, or its columns of the first linear layer. In
other networks a unit's members may be filters of several convolutions: see :mod:`winnow.networks.couplings`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
from torch import nn
from torchvision.models import VGG

from winnow.networks import couplings, tracing
from winnow.tables import SCHEMAS


@dataclasses.dataclass(frozen=True)
class Layer:
    """A prunable convolution: its name, its number of filters, and the step after it that is their activation.

    ``function`` is the activation's: ``relu``, ``silu``, … or ``none``; see
    :func:`winnow.networks.tracing.activations`.
    """

    layer: str
    filters: int
    activation: str
    function: str = "relu"


@dataclasses.dataclass(frozen=True)
class Channels:
    """What of a network can be pruned.

    Attributes
    ----------
    table : pyarrow.Table
        Of the schema "channels".
    layers : list of Layer
        The convolutions whose filters are the units' members, in network order.
    left_out : list of LeftOut
        Those that stay whole, and why.
    """

    table: pa.Table
    layers: list[Layer]
    left_out: list[couplings.LeftOut]


def of(network: nn.Module) -> Channels:
    """What of a network can be pruned.

    Raises
    ------
    InputError
        If nothing can, or the network cannot be traced.
    """
    if isinstance(network, VGG):
        return Channels(derive(network), layers_of(network), [])
    activations = tracing.activations(network)
    table, names, left_out = couplings.derive(network, activations)
    layers = []
    for name in names:
        activation = activations[name][0]
        filters = network.get_submodule(name).out_channels
        layers.append(Layer(name, filters, activation.step, activation.function))
    return Channels(table, layers, left_out)


def layers_of(network: nn.Module) -> list[Layer]:
    """The prunable layers of a network whose ``features`` are a plain sequence, in network order."""
    found = []
    modules = list(network.features.named_children())
    for position, (name, module) in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            relu = next(after for after, part in modules[position:] if isinstance(part, nn.ReLU))
            found.append(Layer(f"features.{name}", module.out_channels, f"features.{relu}"))
    return found


def derive(network: nn.Module) -> pa.Table:
    """The channel table of a network whose ``features`` are a plain sequence and feed the ``classifier``'s first layer.

    Returns
    -------
    pyarrow.Table
        Of the schema "channels". Units are numbered by layer, then filter.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in SCHEMAS["channels"].names}
    first_linear = next(name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    layers = layers_of(network)
    unit = 0
    for position, layer in enumerate(layers):
        for tensor, dimension, length in _slices(network, layers, position, first_linear):
            index = np.arange(layer.filters)
            rows = {
                "unit": unit + index,
                "layer": np.full(layer.filters, layer.layer),
                "filter": index,
                "tensor": np.full(layer.filters, tensor),
                "dimension": np.full(layer.filters, dimension),
                "first": index * length,
                "length": np.full(layer.filters, length),
                "stride": np.ones(layer.filters, dtype=int),
            }
            for name, values in rows.items():
                columns[name].append(values)
        unit += layer.filters
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()}, schema=SCHEMAS["channels"])


def _slices(network: nn.Module, layers: list[Layer], position: int, first_linear: str) -> list[tuple[str, int, int]]:
    """(tensor, dimension, indices a filter) of all that hangs on one layer's filters."""
    layer = layers[position]
    convolution = network.get_submodule(layer.layer)
    slices = [(f"{layer.layer}.weight", 0, 1)]
    if convolution.bias is not None:
        slices.append((f"{layer.layer}.bias", 0, 1))
    following = network.features[int(layer.layer.split(".")[1]) + 1]
    if isinstance(following, nn.BatchNorm2d):
        norm = f"features.{int(layer.layer.split('.')[1]) + 1}"
        slices += [(f"{norm}.{tensor}", 0, 1) for tensor in ("weight", "bias", "running_mean", "running_var")]
    if position + 1 < len(layers):
        slices.append((f"{layers[position + 1].layer}.weight", 1, 1))
    else:
        columns = network.get_submodule(first_linear).in_features
        slices.append((f"{first_linear}.weight", 1, columns // layer.filters))
    return slices
