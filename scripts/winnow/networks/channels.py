"""The channel table: which slices of which tensors go when a unit goes.

A unit is what is kept or removed as a whole. For a VGG it is one filter: its row of the convolution's weights, its
bias, its batch-norm entries, its input slice of the next convolution, or its columns of the first linear layer. In
other networks a unit's members may be filters of several convolutions. All tables are derived in one way:
:mod:`winnow.networks.couplings`.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa
from torch import nn

from winnow.networks import couplings, tracing


@dataclasses.dataclass(frozen=True)
class Layer:
    """A prunable convolution: its name, its number of filters, and the step after it that is their activation.

    ``function`` is the activation's: ``relu``, ``silu``, … or ``none``; see
    :func:`winnow.networks.tracing.activations`.
    """

    layer: str
    filters: int
    activation: str
    function: str


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
    activations = tracing.activations(network)
    table, names, left_out = couplings.derive(network, activations)
    layers = []
    for name in names:
        activation = activations[name][0]
        filters = network.get_parameter(f"{name}.weight").shape[0]
        layers.append(Layer(name, filters, activation.step, activation.function))
    return Channels(table, layers, left_out)
