"""A store's images where a network can see them."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from winnow.data.augmentation import upload
from winnow.data.store import Store
from winnow.runtime import device_memory, devices, memory, sharing, workers

# Share of a device's free memory that resident images may take; the rest is for the network and its activations.
RESIDENT_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Images:
    """Images and what has to be known to show them to a network.

    Attributes
    ----------
    pixels : (N, S, S, 3) uint8 Tensor
        On the device where the network runs, or in the host's memory where they do not fit on it.
    labels : (N,) int64 Tensor
        On the device.
    size : int
        Side of what the network sees, in pixels.
    mean, std : three floats each
        Normalisation of images scaled to [0, 1].
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    size: int
    mean: list[float]
    std: list[float]

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Images by row, (len(rows), S, S, 3), on the labels' device. ``rows`` lie where the pixels do."""
        return upload(self.pixels[rows], self.labels.device)


def load_images(store: Store, mean: Sequence[float], std: Sequence[float], device: str) -> Images:
    """All images of a store, verified, with their labels.

    On a GPU they become resident if they fit; on the CPU, and where they do not, they stay memory-mapped, so that jobs
    side by side share one copy.
    """
    store.verify()
    with warnings.catch_warnings():
        # The map is read-only, and so is every use of it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        pixels = torch.from_numpy(np.asarray(store.images))
    if device == "cuda":
        pixels = resident(store, pixels)
    return Images(pixels, torch.from_numpy(store.labels).to(device), store.image_size, list(mean), list(std))


def resident(store: Store, pixels: torch.Tensor) -> torch.Tensor:
    """A store's images on the GPU or, where it has no room for them, ``pixels``, which are the same.

    The workers of a run share one copy; a process of its own, and one that cannot share, has its own. It is kept for
    the next job.
    """
    try:
        place = None if _unshared else workers.run_folder()
        if place is not None:
            try:
                return _shared(store, pixels, place)
            except Exception as error:  # Whatever the driver has against it, the job has its images.
                if memory.ran_out(error):
                    raise
                print(f"no images shared with other workers ({error}): each has its own copy", file=sys.stderr)
                _unshared.append(True)
        return _own(store, pixels)
    except (MemoryError, RuntimeError) as error:
        if not memory.ran_out(error):
            raise
    print("out of memory for the images on the device: they stay in the host's")
    memory.release()
    return pixels


# Whether this process has found that it cannot share: a driver that refuses once refuses always.
_unshared: list[bool] = []


def _shared(store: Store, pixels: torch.Tensor, place: Path) -> torch.Tensor:
    # Not kept: what nobody uses between two jobs can make room, and to be shown it again takes milliseconds.
    found = sharing.shared(
        place,
        os.environ[devices.VISIBLE],
        memory.version(store.directory) or store.manifest["images_sha256"],
        pixels.numel(),
        RESIDENT_SHARE,
        device_memory,
        lambda array: array.copy_(pixels.flatten()),
    )
    return pixels if found is None else found.view(pixels.shape)


def _own(store: Store, pixels: torch.Tensor) -> torch.Tensor:
    room = int(RESIDENT_SHARE * (device_memory.free() + memory.taken("pixels")))
    found = memory.kept("pixels", store.directory, lambda: pixels.to("cuda"), size=pixels.numel(), room=room)
    return pixels if found is None else found
