"""What happens to photographs where they are taken: five corruptions, each of one strength, the same for an image every
time.

Four are those of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), at the third of their five severities, with x of 0 … 1 and cut off there:

``noise``
    Gaussian: x + 𝒩(0, σ²) in each channel of each pixel.
``blur``
    Gaussian, of standard deviation σ pixels.
``brightness``
    Value, the largest of the channels, raised by c; hue and saturation stay.
``jpeg``
    Compression of quality q.
``crop``
    Not theirs: a window of :data:`WINDOW` of the side, anywhere in the square, enlarged to all of it, as when somebody
    stands closer and does not aim well.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import scipy.ndimage
from PIL import Image

WINDOW = 0.75
SEED = 2019


@dataclasses.dataclass(frozen=True)
class Strength:
    """σ of the noise; σ of the blur, as a share of what the network sees; c of the brightness; q of the compression."""

    noise: float
    blur: float
    brightness: float
    quality: int


# Up to so many pixels a side an image is small. Theirs of 32 pixels have strengths of their own: the large ones would
# leave nothing to be seen.
SMALL = 64
STRENGTHS = {True: Strength(0.08, 0.7 / 32, 0.15, 58), False: Strength(0.18, 3 / 224, 0.3, 15)}


def corrupt(name: str, squares: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Corrupt images.

    Parameters
    ----------
    name
        A key of :data:`CORRUPTIONS`.
    squares : (N, S, S, C) uint8
    rows : (N,) int
        What the images are called: chance is drawn for each by its own.
    size
        Pixels a side that the network sees of the square.

    Returns
    -------
    (N, S, S, C) uint8
    """
    strength, number = STRENGTHS[size <= SMALL], list(CORRUPTIONS).index(name)
    corrupted = np.empty_like(squares)
    for place, row in enumerate(rows):
        generator = np.random.default_rng((SEED, number, int(row)))
        corrupted[place] = CORRUPTIONS[name](squares[place], strength, size, generator)
    return corrupted


def _noise(square: np.ndarray, strength: Strength, size: int, generator: np.random.Generator) -> np.ndarray:
    return _bytes(square / 255 + generator.normal(0, strength.noise, square.shape))


def _blur(square: np.ndarray, strength: Strength, size: int, generator: np.random.Generator) -> np.ndarray:
    width = strength.blur * size
    return _bytes(scipy.ndimage.gaussian_filter(square / 255, (width, width, 0), mode="nearest"))


def _brightness(square: np.ndarray, strength: Strength, size: int, generator: np.random.Generator) -> np.ndarray:
    values = square / 255
    value = values.max(axis=2, keepdims=True)
    raised = np.minimum(value + strength.brightness, 1)
    # Black has no hue: it becomes gray.
    return _bytes(np.where(value > 0, values * (raised / np.where(value > 0, value, 1)), raised))


def _jpeg(square: np.ndarray, strength: Strength, size: int, generator: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    _image(square).save(buffer, format="JPEG", quality=strength.quality)
    with Image.open(buffer) as image:
        return np.asarray(image).reshape(square.shape)


def _crop(square: np.ndarray, strength: Strength, size: int, generator: np.random.Generator) -> np.ndarray:
    side = len(square)
    window = round(WINDOW * side)
    left, top = generator.integers(0, side - window + 1, 2).tolist()
    part = _image(square).crop((left, top, left + window, top + window))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR)).reshape(square.shape)


CORRUPTIONS: dict[str, Callable[[np.ndarray, Strength, int, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "jpeg": _jpeg,
    "crop": _crop,
}


def _image(square: np.ndarray) -> Image.Image:
    return Image.fromarray(square.squeeze(axis=2) if square.shape[2] == 1 else square)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
