"""From an image's file to what a network sees: one way for data sets and for single photographs, without torch.

A file is decoded to a square of a fixed size, once; a network in evaluation sees the square's centre of ``image_size``
pixels, normalised. Needs NumPy, Pillow and, for HEIC, pillow-heif, and nothing else of Winnow: the file goes along with
every exported network.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from PIL import Image, Jpeg2KImagePlugin, UnidentifiedImageError

if TYPE_CHECKING:
    import torch

try:
    import pillow_heif
except ImportError:
    UNKNOWN = "not an image in a known format (HEIC needs pillow-heif, which is not installed)"
else:
    UNKNOWN = "not an image in a known format"
    pillow_heif.register_heif_opener()

# What is too large is for decode to say, which can read some formats at a fraction of their size.
Image.MAX_IMAGE_PIXELS = None

Item = TypeVar("Item")
Pixels = TypeVar("Pixels", np.ndarray, "torch.Tensor")
Bounds: TypeAlias = tuple[float, float]

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
SIXTEEN_BITS = (0, 65535)
# In millions of pixels; what Pillow itself takes for an attack on memory.
MEGAPIXELS = 178
# Side of the small gray picture by which images are compared.
LIKENESS = 16


@dataclasses.dataclass(frozen=True)
class Form:
    """What a file is made into.

    Attributes
    ----------
    size : int
        Side of the square, in pixels.
    channels : int
        3 for RGB, 1 for gray.
    integers, floats : (low, high) or None
        The values that become 0 and 255, of pixels of more than 8 bits and of floating point; what lies outside is cut
        off. Integers without any are of 16 bits; floating point without any cannot be read.
    megapixels : float
        How large an image may be, in millions of pixels, as it is in memory.
    """

    size: int
    channels: int = 3
    integers: Bounds | None = None
    floats: Bounds | None = None
    megapixels: float = MEGAPIXELS

    @classmethod
    def of(cls, size: int, reading: dict[str, Any]) -> Form:
        """A form from what :attr:`reading` gave, perhaps by way of JSON."""
        bounds = {key: reading[key] and tuple(reading[key]) for key in ("integers", "floats")}
        return cls(size, reading["channels"], **bounds, megapixels=reading["megapixels"])

    @property
    def reading(self) -> dict[str, Any]:
        """All but the size: what goes along with the squares, and with a network that has learned from them."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "size"}


class Decoded(NamedTuple):
    """An image that was read.

    Attributes
    ----------
    pixels : (size, size, channels) uint8
    width, height : int
        Of the original as it is looked at, in pixels.
    likeness : bytes
        A gray picture of it, :data:`LIKENESS` pixels a side, row by row: what copies are found by.
    """

    pixels: np.ndarray
    width: int
    height: int
    likeness: bytes


def decode(content: bytes | Image.Image, form: Form) -> Decoded:
    """One image as a square.

    The centre square is cut out and resized to ``form.size``, bilinearly and with antialiasing. Orientation is applied
    once, as the EXIF tag says; transparent pixels are laid on white; more than 8 bits are scaled to 8.

    Parameters
    ----------
    content
        A file's bytes, or an image.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, or is too large; the message is a reason. Pillow raises others, too.
    """
    image = content if isinstance(content, Image.Image) else opened(content)
    size = form.size
    # A JPEG decodes at a half, a quarter or an eighth of its size in a fraction of the time. Where twice what is needed
    # is left, photographs come out the same to within a level; with less, it shows how large the original was.
    width, height = image.size
    if image.format != "HEIF":  # which has a picture of its own that is smaller, and may show something else
        image.draft("RGB", (2 * size, 2 * size))
    _reduce(image, form)
    # Pillow turns a TIFF as it is read, and takes the tag away.
    image.load()
    turned = _orientation(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = _eight_bits(image.crop((left, top, left + side, top + side)), form)
    square = square.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    if turned in TURNS:
        square = square.transpose(TURNS[turned])
        if turned >= 5:
            width, height = height, width
    small = square.convert("L").resize((LIKENESS, LIKENESS), Image.Resampling.BOX)
    return Decoded(np.asarray(square).reshape(size, size, form.channels), width, height, small.tobytes())


def opened(content: bytes) -> Image.Image:
    """A file's header, read; its pixels are not, yet."""
    if not content:
        raise ValueError("empty file")
    return Image.open(io.BytesIO(content))


def _reduce(image: Image.Image, form: Form) -> None:
    """Have a JPEG 2000 decoded at a power of two of its size where all of it is too large; refuse what still is."""
    most = form.megapixels * 1e6
    width, height, power = *image.size, 0
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        while (width >> power) * (height >> power) > most and min(width, height) >> power >= 4 * form.size:
            power += 1
        if power:
            image.reduce = power
    if (width >> power) * (height >> power) > most:
        raise ValueError(
            f"{width} × {height} pixels, more than the limit of {form.megapixels:g} million: "
            "raise it by megapixels of the data set, if there is the memory"
        )


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except SyntaxError:  # what Pillow raises for damaged tags; the pixels may be fine
        return 1


def depth(image: Image.Image) -> str | None:
    """Which of a form's bounds an image needs: ``integers``, ``floats``, or None for 8 bits."""
    return "floats" if image.mode == "F" else "integers" if image.mode.startswith("I") else None


def _eight_bits(image: Image.Image, form: Form) -> Image.Image:
    """An image as RGB or gray of 8 bits."""
    mode = "RGB" if form.channels == 3 else "L"
    kind = depth(image)
    if kind:
        values = np.asarray(image, dtype=np.float64)
        bounds = getattr(form, kind)
        if bounds is None and kind == "floats":
            raise ValueError("pixels of 32-bit floating point have no fixed range: range of the data set states it")
        if bounds is None and (values.min() < 0 or values.max() > SIXTEEN_BITS[1]):
            raise ValueError(f"pixels from {values.min():g} to {values.max():g}, more than 16 bits hold")
        low, high = bounds or SIXTEEN_BITS
        scaled = np.rint((np.clip(np.nan_to_num(values, nan=low), low, high) - low) * (255 / (high - low)))
        return Image.fromarray(scaled.astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert(mode)
    # Color by way of RGB: what a format calls gray, JPEG's CMYK for one, is not always what is looked at.
    return image.convert("RGB").convert(mode) if image.mode != mode else image


def attempt(read: Callable[[], bytes | Image.Image], form: Form) -> Decoded | str:
    """What :func:`decode` makes of what is read, or why it failed."""
    try:
        return decode(read(), form)
    except Exception as error:  # Pillow's plugins raise what they like; a bad file is never more than a bad file
        return reason(error)


def decode_all(
    items: Iterable[Item], read: Callable[[Item], bytes | Image.Image], form: Form, threads: int
) -> Iterator[tuple[Item, Decoded | str]]:
    """Decode a stream of items on ``threads`` threads: each, in order, with what :func:`decode` gives or why it failed.

    At most a few images a thread are in memory at any time. Pillow decodes and resizes without Python's lock, so
    a few threads are enough; for many, there is :mod:`winnow.data.decoding`.
    """
    waiting: collections.deque[tuple[Item, Future[Decoded | str]]] = collections.deque()

    def first() -> tuple[Item, Decoded | str]:
        item, future = waiting.popleft()
        return item, future.result()

    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(attempt, functools.partial(read, item), form)))
            if len(waiting) >= 4 * threads:
                yield first()
        while waiting:
            yield first()


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return UNKNOWN
    return str(error) or type(error).__name__


def evaluation_view(images: Pixels, size: int) -> Pixels:
    """The centre ``size`` × ``size`` pixels of images (N, S, S, C)."""
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """What normalises pixels of 0 … 255 as pixel · scale − shift, (2, C) float32.

    ``mean`` and ``std`` are of images scaled to [0, 1].
    """
    scale = 1 / (255 * np.asarray(std, dtype=np.float32))
    return np.stack([scale, np.asarray(mean, dtype=np.float32) * 255 * scale])


def network_input(images: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Decoded squares (N, S, S, C) uint8 as a network sees them in evaluation, (N, channels, size, size) float32.

    The network has as many channels as ``mean`` has values; one that has three sees gray squares three times.

    To the last bit what the GPU and CPU stages compute in torch, see :func:`winnow.data.augmentation.normalise`.
    """
    scale, shift = scale_and_shift(mean, std)
    return np.ascontiguousarray((evaluation_view(images, size) * scale - shift).transpose(0, 3, 1, 2))


def steps(form: Form, image_size: int, mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """What this module does to a file, in words, in order: for those who have to do it without this module."""
    size, limits = form.size, []
    for kind, name in (("integers", "integers of more than 8 bits"), ("floats", "floating point")):
        bounds = getattr(form, kind) or (SIXTEEN_BITS if kind == "integers" else None)
        if bounds:
            limits.append(f"pixels of {name} are scaled from {bounds[0]:g} … {bounds[1]:g} to 0 … 255 and rounded")
    return [
        f"decode with Pillow; a JPEG at a half, a quarter or an eighth of its size where both sides stay at least "
        f'{2 * size} pixels: Image.draft("RGB", ({2 * size}, {2 * size}))',
        "cut out the centre square: side = min(width, height), left = (width - side) // 2, top = (height - side) // 2",
        f"convert to {'RGB' if form.channels == 3 else 'gray'}; {', '.join(limits)}, transparent pixels laid on white",
        f"resize to {size} × {size} pixels, bilinear with antialiasing: "
        f"Image.resize(({size}, {size}), Image.Resampling.BILINEAR, reducing_gap=3.0)",
        "turn as the EXIF tag Orientation says, unless the decoder has",
        f"take the centre {image_size} × {image_size} pixels",
        f"divide by 255, subtract the mean {list(mean)}, divide by the standard deviation {list(std)}, by channel",
        f"put the channels first: float32 of shape (N, {len(mean)}, {image_size}, {image_size})",
    ]
