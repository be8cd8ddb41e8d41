"""What hears the units: the layers whose inputs go when units go, where these inputs come from, and what can take a
constant in their place."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from winnow.networks import tracing


@dataclasses.dataclass(frozen=True)
class Consumer:
    """A convolution or linear layer that hears units.

    Attributes
    ----------
    layer : str
        Its name.
    step : str
        The step that gives its input: see :func:`winnow.networks.tracing.trace`.
    shift : str or None
        The tensor, an entry an output, to which a constant can be added: its bias; or that of the batch norm behind it
        from which it is subtracted, the running mean. None where there is neither.
    """

    layer: str
    step: str
    shift: str | None


def consumers(network: nn.Module, channels: pa.Table) -> list[Consumer]:
    """The layers of a network that hear units, in its order; those that are called more than once are left out.

    Parameters
    ----------
    network
        The backbone's, or one that has lost units; it may lie on the meta device.
    channels
        The backbone's channel table.
    """
    heard = channels.filter(pc.equal(channels["dimension"], 1))["tensor"].unique().to_pylist()
    names = {tensor.removesuffix(".weight") for tensor in heard}
    module, steps = tracing.trace(network)
    modules = dict(network.named_modules())
    nodes = [node for node in module.graph.nodes if node.op == "call_module"]
    calls = [node.target for node in nodes]
    found = []
    for node in nodes:
        layer = modules[node.target]
        if node.target in names and isinstance(layer, nn.Conv2d | nn.Linear) and calls.count(node.target) == 1:
            found.append(Consumer(node.target, steps[node.args[0]], _shift(node, modules)))
    return found


def _shift(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    if modules[str(node.target)].bias is not None:
        return f"{node.target}.bias"
    for norm in node.users if len(node.users) == 1 else ():
        behind = modules.get(str(norm.target)) if norm.op == "call_module" else None
        if isinstance(behind, _BatchNorm) and behind.running_mean is not None:
            return f"{norm.target}.running_mean"
    return None


def unnormalised(network: nn.Module) -> list[str]:
    """The convolutions and linear layers with a bias whose outputs no batch norm takes, each called once, in order."""
    module, _ = tracing.trace(network)
    modules = dict(network.named_modules())
    nodes = [node for node in module.graph.nodes if node.op == "call_module"]
    calls = [node.target for node in nodes]

    def normalised(node: fx.Node) -> bool:
        return any(user.op == "call_module" and isinstance(modules[user.target], _BatchNorm) for user in node.users)

    return [
        node.target
        for node in nodes
        if isinstance(modules[node.target], nn.Conv2d | nn.Linear)
        and modules[node.target].bias is not None
        and calls.count(node.target) == 1
        and not normalised(node)
    ]


def block(channels: pa.Table, layer: str, inputs: int) -> int:
    """How many neighbouring inputs of a layer are one channel's: 1, or the positions of a map that is flattened.

    Parameters
    ----------
    channels
        The backbone's channel table.
    layer
        A consumer's name.
    inputs
        How many it has.
    """
    rows = _rows(channels, layer)
    return int(np.gcd.reduce([inputs, *rows["first"].to_numpy(), *rows["length"].to_numpy()]))


def gone(channels: pa.Table, layer: str, inputs: int, keep: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Which inputs of a layer go with units, (inputs,) bool.

    Parameters
    ----------
    channels, layer
        As in :func:`block`.
    inputs
        How many the layer has.
    keep, kept : (units,) bool
        Which units stay, and which there still are; None for all.
    """
    rows = _rows(channels, layer)
    unit, first, length = (rows[name].to_numpy() for name in ("unit", "first", "length"))
    absent = np.zeros(unit.size, dtype=bool) if kept is None else ~kept[unit]

    def marked(which: np.ndarray, size: int) -> np.ndarray:
        found = np.zeros(size, dtype=bool)
        for start, count in zip(first[which].tolist(), length[which].tolist(), strict=True):
            found[start : start + count] = True
        return found

    whole = inputs + int(length[absent].sum())
    return marked(~keep[unit], whole)[~marked(absent, whole)]


def _rows(channels: pa.Table, layer: str) -> pa.Table:
    return channels.filter(pc.and_(pc.equal(channels["tensor"], f"{layer}.weight"), pc.equal(channels["dimension"], 1)))
