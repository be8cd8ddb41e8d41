"""The statistics pass: one look at the training images serves every activation criterion and every class.

What a filter does is kept as sufficient statistics a class: images, positions, Σa, Σa², the count of a == 0 and max a
of its output a after the ReLU. Where there is none, and an output may be negative (after a SiLU, a Hardswish, or
nothing at all), a is the output's absolute value. Nothing but these sums leaves the device; activations are never
stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from winnow.augmentation import normalise
from winnow.files import InputError
from winnow.preprocessing import evaluation_view
from winnow.store import Store
from winnow.tables import SCHEMAS
from winnow.tracing import RECTIFIERS, Watch

# Maps are reduced block by block, so that all but the first look at a block find it in the processor's cache: memory is
# read once, and the pass costs a few per cent of the convolutions. Larger blocks fall out of the cache, smaller ones
# spend their time on calls; a GPU wants them as large as its memory easily bears. Fusing the four reductions with a
# compiler gains some 2 % of a pass and costs seconds to compile and a compiler to have.
BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}


def reduce_maps(maps: torch.Tensor) -> torch.Tensor:
    """Σa, Σa², the count of a > 0 and max a over the positions of each image's map of each filter.

    Blocks are summed up in float32, their sums in float64; counts are exact: a block has fewer than 2²⁴ positions.

    Parameters
    ----------
    maps : (N, C, H, W) float32, not negative
        Fastest where memory is channels last; correct in any order.

    Returns
    -------
    Tensor of (4, N, C) float64
    """
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    images, positions, filters = rows.shape
    limit = BLOCK_ELEMENTS[maps.device.type]
    height = min(positions, max(1, limit // filters))
    depth = min(images, max(1, limit // (positions * filters)))

    result = maps.new_empty((4, images, filters), dtype=torch.float64)
    scratch = maps.new_empty((2, depth, height, filters))
    sums = maps.new_empty((-(-positions // height), 4, depth, filters))
    for first in range(0, images, depth):
        group = rows[first : first + depth]
        count = group.shape[0]
        for number, start in enumerate(range(0, positions, height)):
            block = group[:, start : start + height]
            powers = scratch[:, :count, : block.shape[1]]
            torch.mul(block, block, out=powers[0])
            torch.sign(block, out=powers[1])
            out = sums[number, :, :count]
            torch.sum(block, 1, out=out[0])
            torch.sum(powers, 2, out=out[1:3])
            torch.amax(block, 1, out=out[3])
        torch.sum(sums[:, :3, :count], 0, dtype=torch.float64, out=result[:3, first : first + count])
        result[3, first : first + count] = sums[:, 3, :count].amax(0)
    return result


def batches_of(
    store: Store, rows: np.ndarray, manifest: Mapping[str, Any], device: str, limit: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images of a store under the evaluation transform, normalised as a backbone wants them, and their labels.

    Parameters
    ----------
    store, rows
        The images, in their order.
    manifest
        The backbone's: its ``mean`` and ``std``.
    device
        Where they go.
    limit
        Bytes of a batch's largest activation map, of 64 filters.
    """
    size = store.image_size
    batch = max(1, min(256, limit // (4 * 64 * size * size)))

    def on_device(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        # From pinned memory the copy waits for nothing, so the next batch is read while the device works on this one.
        return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    for start in range(0, rows.size, batch):
        part = rows[start : start + batch]
        images, labels = (on_device(array) for array in (store.read(part), store.labels[part]))
        yield normalise(evaluation_view(images, size), manifest["mean"], manifest["std"]), labels


def measure(
    network: nn.Module,
    layers: Sequence[Mapping[str, Any]],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    classes: int,
    progress: Callable[[int], None] = lambda images: None,
) -> pa.Table:
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
        Number of classes. One that has no image gets rows with zero images.
    progress
        Called with the number of images after each batch.

    Returns
    -------
    pyarrow.Table
        Of the schema "activations": layer by layer, filter by filter, class by class.

    Raises
    ------
    InputError
        If a layer's outputs are not finite; the message names the first.
    """
    device = next(network.parameters()).device
    sums = [torch.zeros(3, classes, layer["filters"], dtype=torch.float64, device=device) for layer in layers]
    largest = [torch.zeros(classes, layer["filters"], dtype=torch.float64, device=device) for layer in layers]
    counts = torch.zeros(classes, dtype=torch.float64, device=device)
    positions = [0] * len(layers)
    numbers = torch.arange(classes, device=device)[:, None]
    # (classes, N): 1 where the image is of the class. A product with it adds up in a fixed order on every device, which
    # an indexed addition on a GPU does not.
    members = torch.empty(0)

    # One look at a step serves all layers that share it: they have the same outputs.
    of_step = {layer["activation"]: number for number, layer in reversed(list(enumerate(layers)))}

    def look(step: str, output: torch.Tensor) -> None:
        number = of_step[step]
        reduced = reduce_maps(output if layers[number]["function"] in RECTIFIERS else output.abs())
        positions[number] = output.shape[2] * output.shape[3]
        sums[number] += members @ reduced[:3]
        rows = labels[:, None].expand(-1, reduced.shape[2])
        largest[number].scatter_reduce_(0, rows, reduced[3], "amax")

    watch = Watch(network, of_step, look)
    with torch.inference_mode(), full_float32():
        for images, labels in batches:
            members = (labels == numbers).double()
            counts += members.sum(1)
            watch(images)
            progress(images.shape[0])

    images = counts.cpu().numpy().astype(np.int64)
    tables = []
    for layer in layers:
        number = of_step[layer["activation"]]
        layer_sums = sums[number].cpu().numpy()
        if not np.isfinite(layer_sums).all():
            raise InputError(
                f"outputs of {layer['activation']}, after {layer['layer']}, are not finite numbers: "
                "check the backbone's weights and its mean and std"
            )
        tables.append(_rows(layer, images, positions[number], layer_sums, largest[number].cpu().numpy()))
    return pa.concat_tables(tables)


def full_float32() -> contextlib.AbstractContextManager:
    """No TF32 in convolutions: masks must not depend on the precision that happens to be fast on a device."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _rows(
    layer: Mapping[str, Any], images: np.ndarray, positions: int, sums: np.ndarray, largest: np.ndarray
) -> pa.Table:
    """One layer's rows, filter by filter; ``sums`` is (3, classes, filters): Σa, Σa², count of a > 0."""
    classes, filters = images.size, layer["filters"]
    columns = {
        "layer": np.repeat(layer["layer"], filters * classes),
        "filter": np.repeat(np.arange(filters), classes),
        "class": np.tile(np.arange(classes), filters),
        "images": np.tile(images, filters),
        "positions": np.repeat(positions, filters * classes),
        "sum": sums[0].T.ravel(),
        "sum_sq": sums[1].T.ravel(),
        "zeros": (images[:, None] * positions - sums[2].astype(np.int64)).T.ravel(),
        "max": largest.T.ravel(),
    }
    return pa.table({name: columns[name] for name in SCHEMAS["activations"].names}, schema=SCHEMAS["activations"])
