"""From an image's file to what a network sees: one way for data sets and for single photographs, without torch.

A file is decoded to an RGB square of ``store_size`` pixels a side, once; a network in evaluation sees the square's
centre of ``image_size`` pixels, normalised.
"""

from __future__ import annotations

import collections
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

Item = TypeVar("Item")
Pixels = TypeVar("Pixels")  # a numpy array or a torch tensor
Decoded: TypeAlias = tuple[np.ndarray, int, int] | str  # what decode gives, or why it failed

BACKGROUND = (255, 255, 255)  # behind transparent pixels
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(content: bytes | Image.Image, size: int) -> tuple[np.ndarray, int, int]:
    """One image as an RGB square.

    The centre square is cut out and resized to ``size``, bilinearly and with antialiasing. Orientation follows the EXIF
    tag; transparent pixels are laid on white; 16-bit gray is scaled to 8 bits.

    Parameters
    ----------
    content
        A file's bytes, or an image.

    Returns
    -------
    (pixels, width, height)
        (size, size, 3) uint8, and the original's size in pixels as it is looked at.
    """
    if isinstance(content, Image.Image):
        image, turned = content, 1
    else:
        if not content:
            raise ValueError("empty file")
        image = Image.open(io.BytesIO(content))
        turned = _orientation(image)
    width, height = image.size
    # A JPEG decodes at a half, a quarter or an eighth of its size in a fraction of the time. Where twice what is needed
    # is left, photographs come out the same to within a level; with less, it shows how large the original was.
    image.draft("RGB", (2 * size, 2 * size))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = _rgb(image.crop((left, top, left + side, top + side)))
    square = square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    if turned in TURNS:
        square = square.transpose(TURNS[turned])
        if turned >= 5:
            width, height = height, width
    return np.asarray(square), width, height


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except SyntaxError:  # what Pillow raises for damaged tags; the pixels may be fine
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels of 32-bit floating point have no fixed range: save them with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels from {values.min():g} to {values.max():g}, more than 16 bits hold")
        return Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")


def attempt(read: Callable[[], bytes | Image.Image], size: int) -> Decoded:
    """What :func:`decode` makes of what is read, or why it failed."""
    try:
        return decode(read(), size)
    except Exception as error:  # Pillow's plugins raise what they like; a bad file is never more than a bad file
        return _reason(error)


def decode_all(
    items: Iterable[Item], read: Callable[[Item], bytes | Image.Image], size: int, threads: int
) -> Iterator[tuple[Item, Decoded]]:
    """Decode a stream of items on ``threads`` threads: each, in order, with what :func:`decode` gives or why it failed.

    At most a few images a thread are in memory at any time. Pillow decodes and resizes without Python's lock, so
    a few threads are enough; for many, there is :mod:`winnow.data.decoding`.
    """
    waiting: collections.deque[tuple[Item, Future[Decoded]]] = collections.deque()

    def first() -> tuple[Item, Decoded]:
        item, future = waiting.popleft()
        return item, future.result()

    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(lambda item=item: attempt(lambda: read(item), size))))
            if len(waiting) >= 4 * threads:
                yield first()
        while waiting:
            yield first()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return str(error) or type(error).__name__


def evaluation_view(images: Pixels, size: int) -> Pixels:
    """The centre ``size`` × ``size`` pixels of images (N, S, S, 3)."""
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """What normalises pixels of 0 … 255 as pixel · scale − shift, (2, 3) float32.

    ``mean`` and ``std`` are of images scaled to [0, 1].
    """
    scale = 1 / (255 * np.asarray(std, dtype=np.float32))
    return np.stack([scale, np.asarray(mean, dtype=np.float32) * 255 * scale])


def network_input(images: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Decoded squares (N, S, S, 3) uint8 as a network sees them in evaluation, (N, 3, size, size) float32.

    To the last bit what the GPU and CPU stages compute in torch, see :func:`winnow.data.augmentation.normalise`.
    """
    scale, shift = scale_and_shift(mean, std)
    return np.ascontiguousarray((evaluation_view(images, size) * scale - shift).transpose(0, 3, 1, 2))


def steps(store_size: int, image_size: int, mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """What this module does to a file, in words, in order: for those who have to do it without this module."""
    return [
        f"decode with Pillow; a JPEG at a half, a quarter or an eighth of its size where both sides stay at least "
        f'{2 * store_size} pixels: Image.draft("RGB", ({2 * store_size}, {2 * store_size}))',
        "cut out the centre square: side = min(width, height), left = (width - side) // 2, top = (height - side) // 2",
        "convert to RGB; pixels of 16 bits are scaled by 255 / 65535 and rounded, transparent pixels laid on white",
        f"resize to {store_size} × {store_size} pixels, bilinear with antialiasing: "
        f"Image.resize(({store_size}, {store_size}), Image.Resampling.BILINEAR, reducing_gap=3.0)",
        "turn as the EXIF tag Orientation says",
        f"take the centre {image_size} × {image_size} pixels",
        f"divide by 255, subtract the mean {list(mean)}, divide by the standard deviation {list(std)}, for R, G, B",
        f"put the channels first: float32 of shape (N, 3, {image_size}, {image_size})",
    ]
