"""The statistics pass: one look at the training images serves every activation criterion and every class.

What a filter does is kept as sufficient statistics a class: images, positions, Σa, Σa², the count of a == 0 and max a
of its output a after the ReLU. Where there is none, and an output may be negative (after a SiLU, a Hardswish, or
nothing at all), a is the output's absolute value. Nothing but these sums leaves the device; activations are never
stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from winnow.files import InputError, first_line
from winnow.importance.passes import Batch, Tally, full_float32
from winnow.importance.sums import Sums
from winnow.networks.tracing import RECTIFIERS, Watch

# On a CPU maps are reduced block by block, so that all but the first look at a block find it in the processor's cache:
# memory is read once, and the pass costs a small part of the convolutions. Larger blocks fall out of the cache, smaller
# ones spend their time on calls.
BLOCK_ELEMENTS = 2**18

# Positions of a part where torch's own reductions run on a GPU: large enough to fill it, small enough for float32.
POSITIONS = 2**14

# Bytes of the largest activation map of a batch. A GPU wants to be filled. On a CPU the maps of a batch stay in its
# cache from one step to the next, and below the 32 MiB from which on the C library asks the kernel for each anew.
BATCH_BYTES = {"cpu": 2**25, "cuda": 2**28}


def reduce_maps(maps: torch.Tensor) -> torch.Tensor:
    """Σa, Σa², the count of a > 0 and max a over the positions of each image's map of each filter.

    Parts of the positions are summed up in float32, their sums in float64 and in a fixed order; counts are exact: a
    part has fewer than 2²⁴ positions.

    Parameters
    ----------
    maps : (N, C, H, W) float32, not negative
        Fastest where memory is channels last; correct in any order.

    Returns
    -------
    Tensor of (4, N, C) float64
    """
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    parts = (_on_gpu() if rows.is_cuda else _in_blocks)(rows)
    result = maps.new_empty((4, rows.shape[0], rows.shape[2]), dtype=torch.float64)
    result[:3] = torch.sum(parts[:, :, :3], 0, dtype=torch.float64).transpose(0, 1)
    result[3] = parts[:, :, 3].amax(0)
    return result


def _in_blocks(rows: torch.Tensor) -> torch.Tensor:
    """The sums (parts, N, 4, C) over parts of the positions of rows (N, P, C), in their precision."""
    images, positions, filters = rows.shape
    # A block is a part of each image, and images are the outermost axis of all that is written here: torch divides it
    # among its threads the same way each time, so that a core reads what it wrote itself and not what another did.
    height = min(positions, max(1, BLOCK_ELEMENTS // (images * filters)))
    scratch = rows.new_empty((images, 2, height, filters))
    sums = rows.new_empty((-(-positions // height), images, 4, filters))
    for number, start in enumerate(range(0, positions, height)):
        block, out = rows[:, start : start + height], sums[number]
        powers = scratch[:, :, : block.shape[1]]
        torch.mul(block, block, out=powers[:, 0])
        torch.sign(block, out=powers[:, 1])
        torch.sum(block, 1, out=out[:, 0])
        torch.sum(powers, 2, out=out[:, 1:3])
        torch.amax(block, 1, out=out[:, 3])
    return sums


@functools.cache
def _on_gpu() -> Callable[[torch.Tensor], torch.Tensor]:
    """What this process reduces maps by on its GPU: one kernel where Triton can make one, else torch's reductions."""
    try:
        from winnow.importance import kernels

        # Of the shape of most maps, for which the kernel is made here.
        kernels.reduce_rows(torch.zeros(1, kernels.SPLIT, kernels.COLUMNS, device="cuda"))
    except Exception as error:  # no compiler, no Python.h, a card that is too old: Triton has an exception for each
        reason = f"{type(error).__name__}: {first_line(error)}"
        print(f"activations are read four times, since Triton makes no kernel here ({reason})")
        return _by_torch
    return kernels.reduce_rows


def _by_torch(rows: torch.Tensor) -> torch.Tensor:
    """As :func:`_in_blocks`, for memory that is no faster where it was just read: nothing but the sums is written."""
    parts = [
        (
            part.sum(1),
            torch.linalg.vector_norm(part, 2, 1).square(),
            # Of numbers that are not negative.
            torch.linalg.vector_norm(part, 0, 1),
            part.amax(1),
        )
        for part in rows.split(POSITIONS, 1)
    ]
    return torch.stack([torch.stack(sums, 1) for sums in parts])


def measure(
    network: nn.Module,
    layers: Sequence[Mapping[str, Any]],
    batches: Iterable[Batch],
    classes: int,
    progress: Callable[[int], None] = lambda images: None,
) -> Sums:
    """Run the network over batches, up to its last prunable layer, and reduce what its filters do.

    Parameters
    ----------
    network
        In eval mode, float32, on the batches' device.
    layers
        The manifest's prunable layers in network order: ``layer``, ``filters``, ``activation``, the name of the step
        whose output is measured, and its ``function``. Layers may share a step.
    batches
        Pairs of normalised images (N, 3, H, W) and labels (N,). Sizes may differ; results do not depend on them, beyond
        the last bits of Σa and Σa².
    classes
        Number of classes. Of one that has no image all sums are 0.
    progress
        Called with the number of images after each batch.

    Returns
    -------
    Sums
        Of the kind "activations".

    Raises
    ------
    InputError
        If a layer's outputs are not finite; the message names the first.
    """
    device = next(network.parameters()).device
    tally = Tally(layers, classes, 3, device)
    largest = {
        step: torch.zeros(classes, layer["filters"], dtype=torch.float64, device=device)
        for step, layer in tally.layers.items()
    }

    def look(step: str, output: torch.Tensor) -> None:
        reduced = reduce_maps(output if tally.layers[step]["function"] in RECTIFIERS else output.abs())
        tally.add(step, reduced[:3], output.shape[2] * output.shape[3])
        rows = labels[:, None].expand(-1, reduced.shape[2])
        largest[step].scatter_reduce_(0, rows, reduced[3], "amax")

    watch = Watch(network, tally.layers, look)
    with torch.inference_mode(), full_float32():
        for images, labels in batches:
            tally.begin(labels)
            watch(images)
            progress(images.shape[0])

    def of_layer(
        layer: Mapping[str, Any], sums: np.ndarray, images: np.ndarray, positions: int
    ) -> dict[str, np.ndarray]:
        if not np.isfinite(sums).all():
            raise InputError(
                f"outputs of {layer['activation']}, after {layer['layer']}, are not finite numbers: "
                "check the backbone's weights and its mean and std"
            )
        zeros = images[:, None] * positions - sums[2].astype(np.int64)
        return {"sum": sums[0], "sum_sq": sums[1], "zeros": zeros, "max": largest[layer["activation"]].cpu().numpy()}

    return tally.result("activations", of_layer)
