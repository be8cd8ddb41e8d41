"""Latency: how long a network takes for a batch of images, timed in turn with the unpruned one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from winnow.networks.backbones import input_channels, last_layer
from winnow.networks.logits import float32_logits

# Images a pass: one, as an application that waits for each answer sends them, and as many as keep a device busy.
BATCHES = (1, 32)
# A batch size is done after so many seconds or pairs, whichever comes first, but not with fewer pairs than the least.
SECONDS = 3.0
LEAST_PAIRS = 5
MOST_PAIRS = 100
# The first passes choose kernels and convert weights. Large networks are warm after one pair.
WARM_UP_SECONDS = 0.3
WARM_UP_PAIRS = 10


def compare(
    network: nn.Module,
    unpruned: nn.Module,
    precision: str,
    batch: int,
    image_size: int,
    device: str,
) -> dict[str, Any]:
    """Time forward passes of a network and of the unpruned one in turn: A B A B …, so that drift falls on both.

    A pass is what evaluation does with a batch that is on the device: inference mode, channels last and, where the
    precision is bf16, autocast up to the last layer. The images are noise.

    Parameters
    ----------
    network, unpruned
        On ``device``; put into eval mode, the channels-last layout and, their convolutions and linear layers but for
        the last one, into the precision.
    precision
        Of both, ``fp32`` or ``bf16``.
    batch
        Images a pass.
    image_size
        Their side, in pixels.
    device
        ``cpu`` or ``cuda``.

    Returns
    -------
    dict
        ``ms`` and ``unpruned_ms``, milliseconds a pass, and ``speedup``, the unpruned network's time over the
        network's, pair by pair: each with its ``median`` and its quartiles ``q1`` and ``q3``. ``repeats``: the number
        of pairs.
    """
    generator = torch.Generator().manual_seed(0)
    shape = batch, input_channels(network), image_size, image_size
    images = torch.randn(shape, generator=generator)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    first = _pass(unpruned, images, precision)
    second = _pass(network, images, precision)
    with torch.inference_mode():
        pairs = in_turn(first, second)
    return {
        "ms": quartiles(1000 * pairs[:, 1]),
        "unpruned_ms": quartiles(1000 * pairs[:, 0]),
        "speedup": quartiles(pairs[:, 0] / pairs[:, 1]),
        "repeats": len(pairs),
    }


def quartiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and quartiles, with linear interpolation between order statistics."""
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q1": q1, "q3": q3}


def _pass(network: nn.Module, images: torch.Tensor, precision: str) -> Callable[[], float]:
    """A function that runs one pass and returns its wall-clock seconds, the device's work included."""
    kind = images.device.type
    network.to(memory_format=torch.channels_last).eval()
    half = precision == "bf16"
    if half:
        # In inference mode autocast would convert the weights anew in each pass (torch 2.14), for one image most of it.
        last = network.get_submodule(last_layer(network))
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module is not last:
                module.to(torch.bfloat16)

    def run() -> float:
        with torch.autocast(kind, torch.bfloat16, enabled=half), float32_logits(network) if half else nullcontext():
            return seconds(network, images)

    return run


def seconds(network: nn.Module, images: torch.Tensor) -> float:
    """Wall-clock seconds of one pass, the device's work included."""
    finish: Callable[[], None] = torch.cuda.synchronize if images.device.type == "cuda" else lambda: None
    finish()
    start = time.perf_counter()
    network(images)
    finish()
    return time.perf_counter() - start


def in_turn(first: Callable[[], float], second: Callable[[], float]) -> np.ndarray:
    """Seconds of two passes in turn, after a warm-up: (pairs, 2) float64.

    Parameters
    ----------
    first, second
        Each runs its pass and returns its wall-clock seconds.
    """
    spent = 0.0
    for _ in range(WARM_UP_PAIRS):
        spent += first() + second()
        if spent >= WARM_UP_SECONDS:
            break
    spent = 0.0
    pairs: list[tuple[float, float]] = []
    while len(pairs) < LEAST_PAIRS or (len(pairs) < MOST_PAIRS and spent < SECONDS):
        pairs.append((first(), second()))
        spent += sum(pairs[-1])
    return np.array(pairs)
