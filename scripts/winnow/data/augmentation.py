"""From stored images to what a network sees, on whole batches, on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from winnow.data.preprocessing import scale_and_shift

# As a flip: left to right, and top to bottom.
BOTH = "both"


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device, itself if it lies there, without waiting for the device.

    Only from pinned memory does a copy queue behind the kernels that a GPU has yet to run; from other memory the host
    waits until they have run.
    """
    return tensor if tensor.device == device else tensor.pin_memory().to(device, non_blocking=True)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Images (N, H, W, 3) uint8 or float in 0 … 255 as (N, 3, H, W) float32, scaled to [0, 1] and normalised.

    Memory stays in the order N, H, W, C, which is torch's channels-last format.
    """
    scale, shift = upload(torch.from_numpy(scale_and_shift(mean, std)), images.device)
    return torch.mul(images, scale).sub_(shift).permute(0, 3, 1, 2)


def boxes(count: int, augmentation: dict[str, Any], generator: np.random.Generator) -> np.ndarray:
    """Random crops, as a random resized crop draws them, and flips.

    Parameters
    ----------
    count
        Number of images.
    augmentation
        ``scale`` (bounds of the crop's share of the area, drawn uniformly), ``ratio`` (bounds of width / height, drawn
        log-uniformly) and ``flip``: whether every other image is mirrored, left to right; ``both`` for top to bottom
        too, drawn apart.

    Returns
    -------
    (count, 5) float32
        Centre x and y, width and height, as shares of the image's side, and −1 for a flip or else 1. A crop that would
        be wider or higher than the image is cut to it. The height of one that is mirrored top to bottom is negative.
    """
    (least, most), (narrow, wide) = augmentation["scale"], np.log(augmentation["ratio"])
    area = generator.uniform(least, most, count)
    ratio = np.exp(generator.uniform(narrow, wide, count))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    x, y = (generator.uniform(side / 2, 1 - side / 2) for side in (width, height))
    flip = _flips(count, generator) if augmentation["flip"] else np.ones(count)
    if augmentation["flip"] == BOTH:
        height *= _flips(count, generator)
    return np.stack([x, y, width, height, flip], axis=1).astype(np.float32)


def _flips(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count,) float64, of −1 and 1, each half of the time."""
    return 1 - 2.0 * (generator.random(count) < 0.5)


def crop(images: torch.Tensor, box: torch.Tensor, size: int) -> torch.Tensor:
    """Crops of images, resized to ``size`` × ``size`` by bilinear interpolation.

    Parameters
    ----------
    images : (N, S, S, 3) uint8
    box : (N, 5) float32
        From :func:`boxes`, on the images' device.

    Returns
    -------
    Tensor of (N, size, size, 3) float32, in 0 … 255
    """
    x, y, width, height, flip = box.unbind(1)
    zero = torch.zeros_like(x)
    # In the grid's coordinates the image runs from −1 to 1.
    theta = torch.stack([torch.stack([width * flip, zero, 2 * x - 1], 1), torch.stack([zero, height, 2 * y - 1], 1)], 1)
    grid = functional.affine_grid(theta, [images.shape[0], 3, size, size], align_corners=False)
    channels_last = images.permute(0, 3, 1, 2).float()
    sampled = functional.grid_sample(channels_last, grid, "bilinear", "border", align_corners=False)
    return sampled.permute(0, 2, 3, 1).contiguous()
