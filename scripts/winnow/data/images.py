"""A store's images where a network can see them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from winnow.data.augmentation import upload
from winnow.data.store import Store

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
    if device == "cuda" and pixels.numel() < RESIDENT_SHARE * torch.cuda.mem_get_info()[0]:
        pixels = pixels.to(device)
    return Images(pixels, torch.from_numpy(store.labels).to(device), store.image_size, list(mean), list(std))
