"""Which values stand for black and white where pixels have more than 8 bits: a camera's 10, 12 or 14 bits in 16, a
thermal image's counts, floating point."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winnow.data.preprocessing import Bounds, depth

# As many images, evenly from all, as it takes to know, and as many pixels of each.
IMAGES, PIXELS = 1000, 4096
# Of all pixels, the darkest and the brightest are left out: a sensor has dead ones.
TAILS = 0.001
# Scales that pixels may be meant in, smallest first: the first that holds them all is taken where they use so large a
# share of it. Others are stretched, with some room at either end.
SCALES = {"integers": [2**bits - 1 for bits in (8, 10, 12, 14, 16)], "floats": [1, 255, 65535]}
USED, ROOM = 0.25, 0.05


def find(images: Sequence[tuple[Path, str | None]], threads: int) -> dict[str, dict[str, Any]]:
    """The ranges of images that are of more than 8 bits.

    Parameters
    ----------
    images
        Each with which bounds it needs: see :func:`winnow.data.preprocessing.depth`.
    threads
        That read them.

    Returns
    -------
    dict of ``integers`` and ``floats``, those that there are
        ``bounds``, and the number of ``images`` that they were found over.
    """
    found = {}
    for kind in SCALES:
        paths = [path for path, needs in images if needs == kind]
        if paths:
            chosen = [paths[at] for at in np.linspace(0, len(paths) - 1, min(IMAGES, len(paths))).astype(int)]
            with ThreadPoolExecutor(threads) as pool:
                values = [each for each in pool.map(_sample, chosen, [kind] * len(chosen)) if each.size]
            if values:
                found[kind] = {"bounds": list(bounds(np.concatenate(values), kind)), "images": len(values)}
    return found


def _sample(path: Path, kind: str) -> np.ndarray:
    """Some of an image's pixels; none if it cannot be read, which its decoding will say."""
    try:
        with Image.open(path) as image:
            if depth(image) != kind:
                return np.zeros(0)
            values = np.asarray(image, dtype=np.float64).ravel()
    except Exception:  # Pillow's plugins raise what they like
        return np.zeros(0)
    values = values[:: max(1, values.size // PIXELS)]
    return values[np.isfinite(values)]


def bounds(values: np.ndarray, kind: str) -> Bounds:
    """The values that become black and white, of pixels from all images."""
    low, high = (float(each) for each in np.quantile(values, (TAILS, 1 - TAILS)))
    for scale in SCALES[kind]:
        if low >= 0 and high <= scale and high - low >= USED * scale:
            return 0.0, float(scale)
    room = ROOM * (high - low) or 0.5
    low, high = low - room, high + room
    return (float(np.floor(low)), float(np.ceil(high))) if kind == "integers" else (low, high)
