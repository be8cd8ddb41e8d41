"""What the passes over a data set's training images share: their batches, and sums a class and filter."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from winnow import cli
from winnow.data.augmentation import normalise
from winnow.data.preprocessing import evaluation_view
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.importance.sums import Summed, Sums
from winnow.networks import backbones
from winnow.runtime import devices

Batch = tuple[torch.Tensor, torch.Tensor]


class Tally:
    """What a pass adds up at the steps that it looks at: some sums for each class and filter.

    One look at a step serves all layers that share it: they have the same outputs.

    Parameters
    ----------
    layers
        The manifest's prunable layers in network order: ``layer``, ``filters`` and ``activation``, the step's name.
    classes
        Number of classes. Of one that has no image all sums are 0.
    sums
        How many sums there are of each class and filter.
    device
        Where they are kept, in float64.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]], classes: int, sums: int, device: torch.device):
        self.layers = {layer["activation"]: layer for layer in reversed(layers)}
        self._every = layers
        self._classes = torch.arange(classes, device=device)
        self._images = torch.zeros(classes, dtype=torch.float64, device=device)
        self._sums = {
            step: torch.zeros(sums, classes, layer["filters"], dtype=torch.float64, device=device)
            for step, layer in self.layers.items()
        }
        self._positions = dict.fromkeys(self.layers, 0)
        self._members = torch.empty(0)

    def begin(self, labels: torch.Tensor) -> None:
        """Of the batch that is next: the class of each image, (N,)."""
        # (classes, N): 1 where the image is of the class. A product with it adds up in a fixed order on every device,
        # which an indexed addition on a GPU does not.
        self._members = (labels == self._classes[:, None]).double()
        self._images += self._members.sum(1)

    def add(self, step: str, values: torch.Tensor, positions: int) -> None:
        """Add the batch's values at a step, (sums, N, filters) float64, of maps that have so many positions."""
        self._positions[step] = positions
        self._sums[step] += self._members @ values

    def result(
        self, kind: str, of_layer: Callable[[Mapping[str, Any], np.ndarray, np.ndarray, int], dict[str, np.ndarray]]
    ) -> Sums:
        """What was added up, layer by layer.

        Parameters
        ----------
        kind
            A key of :data:`winnow.importance.sums.SUMS`.
        of_layer
            From a layer, its sums (sums, classes, filters), the images of each class, (classes,) int64, and the number
            of positions of a map to the arrays that are kept, (classes, filters) each, by name.
        """
        images = self._images.cpu().numpy().astype(np.int64)
        layers: list[Summed] = []
        arrays: dict[str, np.ndarray] = {}
        for layer in self._every:
            step = layer["activation"]
            positions = self._positions[step]
            layers.append(
                {"layer": layer["layer"], "filters": layer["filters"], "activation": step, "positions": positions}
            )
            found = of_layer(layer, self._sums[step].cpu().numpy(), images, positions)
            arrays |= {f"{layer['layer']}.{name}": array for name, array in found.items()}
        return Sums(kind, images, layers, arrays)


def batch_size(image_size: int, limit: int) -> int:
    """How many images of a side in pixels have a largest activation map, of 64 filters, of at most ``limit`` bytes."""
    return max(1, min(256, limit // (4 * 64 * image_size**2)))


def batches_of(store: Store, rows: np.ndarray, manifest: Mapping[str, Any], device: str, batch: int) -> Iterator[Batch]:
    """Images of a store under the evaluation transform, normalised as a backbone wants them, and their labels.

    Parameters
    ----------
    store, rows
        The images, in their order.
    manifest
        The backbone's: its ``mean`` and ``std``.
    device
        Where they go.
    batch
        How many images at a time.
    """
    size = store.image_size

    def on_device(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        # From pinned memory the copy waits for nothing, so the next batch is read while the device works on this one.
        return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    for start in range(0, rows.size, batch):
        part = rows[start : start + batch]
        images, labels = (on_device(array) for array in (store.read(part), store.labels[part]))
        yield normalise(evaluation_view(images, size), manifest["mean"], manifest["std"]), labels


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a program works with that passes over training images, of the arguments of :func:`parser`.

    Attributes
    ----------
    network : Module
        The backbone's, on the leased device.
    rows : (n,) int64
        The training images.
    """

    lease: devices.Lease
    store: Store
    backbone: backbones.Backbone
    network: nn.Module
    rows: np.ndarray

    def batches(self, batch: int) -> Iterator[Batch]:
        """The training images, so many at a time: see :func:`batches_of`."""
        return batches_of(self.store, self.rows, self.backbone.manifest, self.lease.device, batch)


def opened(arguments: argparse.Namespace) -> Ground:
    """Lease a device and open the store, its split and the backbone."""
    lease = devices.lease(arguments.gpu)
    devices.threads()
    store, backbone = Store.open(arguments.dataset), backbones.load(arguments.backbone)
    rows = Split.open(arguments.split, store).rows("train")
    return Ground(lease, store, backbone, backbone.network().to(lease.device), rows)


def parser(description: str) -> argparse.ArgumentParser:
    """The options of a program that makes sums over training images."""
    result = cli.parser(description, leases=True)
    cli.add_dataset(result)
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="manifest; arrays go beside it")
    return result


def full_float32() -> contextlib.AbstractContextManager[None]:
    """No TF32 in convolutions: masks must not depend on the precision that happens to be fast on a device."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
