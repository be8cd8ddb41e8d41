"""Prices: what each tensor of a network costs by its outputs and inputs, in multiply-accumulates, parameters, or
milliseconds of this machine.

Multiply-accumulates and parameters are outputs × inputs × what is fixed, exactly. Milliseconds are measured a layer at
a time (convolutions and linear layers) with a quarter, a half, three quarters and all of the outputs and inputs that
can go, and with one; in between they are interpolated. What a whole pass takes above the sum of its layers is measured
of the unpruned network and of the smallest: what the smallest has is taken for fixed (calls, norms, pools), the rest is
shared out among the layers by their numbers of outputs, and shrinks with these (activations).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import nn

from winnow.networks import latency
from winnow.networks.backbones import input_channels, last_layer

MEASURES = {"macs": "multiply-accumulates", "params": "parameters", "latency": "ms"}
# Of the outputs and inputs that can go; beside 1.
SHARES = (0.25, 0.5, 0.75, 1.0)
# A layer is done after so many seconds or rounds over its widths, but not with fewer rounds than the least.
SECONDS = 0.5
LEAST_ROUNDS, MOST_ROUNDS = 5, 50


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer: the shape of its input, an image, and how many positions its output has."""

    shape: tuple[int, ...]
    positions: int


class Term(TypedDict):
    """What a tensor costs by its outputs and inputs, ascending numbers of each: see :func:`exact`."""

    tensor: str
    outputs: list[int]
    inputs: list[int]
    values: list[list[float]]


class TimedTerm(TypedDict):
    """The same in milliseconds, (outputs, inputs), and how many outputs there are, over all positions."""

    tensor: str
    outputs: list[int]
    inputs: list[int]
    values: np.ndarray
    numbers: int


def exact(network: nn.Module, measure: str, image_size: int) -> list[Term]:
    """Terms of multiply-accumulates or parameters.

    Parameters
    ----------
    network
        On the meta device.
    measure
        ``macs`` or ``params``.
    image_size
        Side of an image, in pixels.

    Returns
    -------
    list of dict
        ``tensor``; ``outputs`` and ``inputs``, numbers of them, ascending; ``values``, what it costs there.
    """
    if measure == "params":
        return [_product(name, tensor, tensor.numel()) for name, tensor in network.named_parameters()]
    positions = {
        f"{name}.weight": sum(call.positions for call in uses) for name, uses in used(network, image_size).items()
    }
    weights = {name: network.get_parameter(name) for name in positions}
    return [_product(name, weight, weight.numel() * positions[name]) for name, weight in weights.items()]


def _product(name: str, tensor: torch.Tensor, whole: int) -> Term:
    outputs, inputs = (*tensor.shape, 1, 1)[:2]
    return {"tensor": name, "outputs": [0, outputs], "inputs": [0, inputs], "values": [[0, 0], [0, whole]]}


def used(network: nn.Module, image_size: int) -> dict[str, list[Call]]:
    """The convolutions and linear layers that an image goes through, each time that it does, in their order."""
    found: dict[str, list[Call]] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            outputs = layer.get_parameter("weight").shape[0]
            found.setdefault(name, []).append(Call(tuple(inputs[0].shape[1:]), output.numel() // outputs))

        return hook

    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    hooks = [layer.register_forward_hook(look(name)) for name, layer in layers.items()]
    device = next(network.parameters()).device
    shape = 1, input_channels(network), image_size, image_size
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def timed(
    network: nn.Module, prunable: Collection[tuple[str, int]], precision: str, image_size: int, device: str
) -> list[TimedTerm]:
    """Terms of milliseconds for one image: of the layers alone. See :func:`with_rest`.

    Parameters
    ----------
    network
        With values, on ``device``.
    prunable
        The tensors and dimensions that lose something when a unit goes.
    precision
        ``fp32`` or ``bf16``; the last layer is float32.

    Returns
    -------
    list of dict
        As of :func:`exact`, with ``numbers``: how many outputs there are, over all positions.
    """
    terms: list[TimedTerm] = []
    last = last_layer(network)
    for name, uses in used(network, image_size).items():
        layer = network.get_submodule(name)
        half = precision == "bf16" and name != last
        sizes = layer.get_parameter("weight").shape[:2]
        outputs, inputs = (_knots(size, (f"{name}.weight", side) in prunable) for side, size in enumerate(sizes))
        with torch.inference_mode():
            values = functools.reduce(np.add, (_times(layer, outputs, inputs, call, half, device) for call in uses))
        numbers = sizes[0] * sum(call.positions for call in uses)
        terms.append(
            {"tensor": f"{name}.weight", "outputs": outputs, "inputs": inputs, "values": values, "numbers": numbers}
        )
    return terms


def with_rest(terms: Sequence[TimedTerm], fixed: float, shrinking: float) -> list[Term]:
    """Terms of layers, and what a pass takes beside them.

    Parameters
    ----------
    fixed
        Milliseconds that it takes whatever the widths.
    shrinking
        Milliseconds that are shared out among the layers that can lose outputs, and are gone where these have one.
    """
    widths = [len(term["outputs"]) - 1 if term["outputs"][0] else 0 for term in terms]
    total = sum(term["numbers"] for term, width in zip(terms, widths, strict=True) if width) or 1
    whole: list[Term] = [
        {"tensor": "", "outputs": [0, 1], "inputs": [0, 1], "values": [[fixed, fixed], [fixed, fixed]]}
    ]
    for term, width in zip(terms, widths, strict=True):
        outputs = np.array(term["outputs"], dtype=float)
        share = (outputs - 1) / (outputs[-1] - 1) if width else np.zeros(outputs.size)
        values = term["values"] + shrinking * term["numbers"] / total * share[:, None]
        whole.append(
            {
                "tensor": term["tensor"],
                "outputs": term["outputs"],
                "inputs": term["inputs"],
                "values": values.tolist(),
            }
        )
    return whole


def _knots(size: int, prunable: bool) -> list[int]:
    """The widths at which a layer is timed; of a side that loses nothing all of it, whatever is asked for."""
    return sorted({1, *(max(1, round(share * size)) for share in SHARES)}) if prunable and size > 1 else [0, size]


def _times(layer: nn.Module, outputs: list[int], inputs: list[int], call: Call, half: bool, device: str) -> np.ndarray:
    """Milliseconds of one use of a layer by outputs and inputs, (outputs, inputs): medians, made to rise with both."""
    points = itertools.product(filter(None, outputs), filter(None, inputs))
    runs = [_pass(layer, *point, call=call, half=half, device=device) for point in points]
    taken: list[list[float]] = []
    for run in runs:
        run()
    begun = time.perf_counter()
    while len(taken) < LEAST_ROUNDS or (len(taken) < MOST_ROUNDS and time.perf_counter() - begun < SECONDS):
        taken.append([run() for run in runs])
    found = np.median(1000 * np.array(taken), axis=0).reshape(*(sum(map(bool, side)) for side in (outputs, inputs)))
    for axis, side in enumerate((outputs, inputs)):
        found = np.maximum.accumulate(found, axis=axis)
        if not side[0]:
            found = np.repeat(found, 2, axis=axis)
    return found


def _pass(layer: nn.Module, outputs: int, inputs: int, call: Call, half: bool, device: str) -> Callable[[], float]:
    """A function that runs a layer of other widths once and returns its wall-clock seconds."""
    groups = 1
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        # Whole groups go with their inputs: as many stay as have about so many outputs.
        each = layer.out_channels // layer.groups
        groups = max(1, round(outputs / each))
        outputs = groups * each
    weight = layer.get_parameter("weight")[:outputs, :inputs].contiguous()
    kind = torch.bfloat16 if half else torch.float32
    sized: nn.Conv2d | nn.Linear
    shape: tuple[int, ...]
    if isinstance(layer, nn.Conv2d):
        window = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        sized = nn.Conv2d(
            inputs * groups,
            outputs,
            *window,  # type: ignore[arg-type]  # torch has another type for what it holds than for what it takes
            groups,
            layer.bias is not None,
            device=device,
        )
        shape = inputs * groups, *call.shape[1:]
    else:
        sized = nn.Linear(inputs, outputs, layer.bias is not None, device=device)
        shape = *call.shape[:-1], inputs
    with torch.no_grad():
        sized.weight.copy_(weight)
    images = torch.randn(1, *shape, device=device, dtype=kind)
    sized.to(kind)
    if images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)
        sized.to(memory_format=torch.channels_last)
    return functools.partial(latency.seconds, sized, images)
