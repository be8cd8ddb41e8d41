"""The data sets: where their images come from, and which images train, choose and judge.

A source is one function and one name. It streams its images; decoding and splitting are the same for all.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from winnow.archives import SPLIT_FOLDERS, image_files
from winnow.files import InputError
from winnow.store import Entry

DEFAULT_SPLIT = {"val": 0.15, "test": 0.15}
BACKGROUND = (255, 255, 255)  # behind transparent pixels


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that a source offers: its name, label, official split if it has one, and how to open it."""

    file: str
    label: int
    split: str | None
    open: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's classes and, as a stream that is read once, its images."""

    classes: list[str]
    candidates: Iterator[Candidate]


SOURCES: dict[str, Callable[[dict[str, Any], list[Path]], Source]] = {}


def source(name: str) -> Callable:
    """Register a function of (the data set's configuration, its archives) as the source ``name``."""

    def register(function: Callable[[dict[str, Any], list[Path]], Source]) -> Callable:
        SOURCES[name] = function
        return function

    return register


@source("digits")
def digits(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """scikit-learn's digits: 1,797 images of 8×8 pixels in 17 shades of gray."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    wanted = dataset.get("classes") or list(range(10))
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)

    def candidates() -> Iterator[Candidate]:
        for number in np.flatnonzero(np.isin(loaded.target, wanted)):
            label = wanted.index(loaded.target[number])
            yield Candidate(f"{number:04d}", label, None, lambda number=number: Image.fromarray(pixels[number]))

    return Source([str(digit) for digit in wanted], candidates())


@source("flowers102")
def flowers102(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Flowers-102 (Nilsback and Zisserman 2008) in its official split: 1,020 / 1,020 / 6,149 images."""
    from scipy.io import loadmat

    tgz, labels_file, split_file = archives
    try:
        labels = loadmat(labels_file)["labels"].ravel()
        split = {
            number: name
            for name, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
            for number in loadmat(split_file)[key].ravel()
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{labels_file} and {split_file} are not the official labels and split: {error}") from None

    def candidates() -> Iterator[Candidate]:
        # A compressed tar is read from its beginning to its end, so its bytes are read here and decoded elsewhere.
        try:
            with tarfile.open(tgz, "r|gz") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".jpg"):
                        number = int(member.name.rsplit("_", 1)[1][:-4])
                        content = archive.extractfile(member).read()
                        label = int(labels[number - 1]) - 1  # the file counts from 1
                        yield Candidate(member.name, label, split[number], lambda content=content: io.BytesIO(content))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{tgz} cannot be read ({error}): delete it and run again to download it anew") from None

    return Source([f"{number:03d}" for number in range(1, int(labels.max()) + 1)], candidates())


@source("cats_vs_dogs")
def cats_vs_dogs(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Cats vs. Dogs (Asirra; Elson et al. 2007): 25,000 images, some of them not readable; no official split."""
    classes = ["Cat", "Dog"]
    try:
        archive = zipfile.ZipFile(archives[0])
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{archives[0]} cannot be read ({error}): delete it and run again to download it anew"
        ) from None

    def candidates() -> Iterator[Candidate]:
        for name in sorted(archive.namelist(), key=lambda name: (len(name), name)):
            parts = name.split("/")
            if len(parts) == 3 and parts[0] == "PetImages" and parts[1] in classes and parts[2]:
                label = classes.index(parts[1])
                yield Candidate(name, label, None, lambda name=name: io.BytesIO(archive.read(name)))

    return Source(classes, candidates())


@source("folder")
def folder(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Any folder of images: ``class/image``, or ``train/class/image``, ``test/class/image`` and perhaps ``val/…``."""
    root = Path(dataset["path"])
    files = [(path.relative_to(root).parts, path) for path in image_files(root)]
    official = (root / "train").is_dir() and (root / "test").is_dir()
    depth = 3 if official else 2
    placed = [(parts, path) for parts, path in files if len(parts) >= depth]
    if official:
        placed = [(parts, path) for parts, path in placed if parts[0] in SPLIT_FOLDERS]
    classes = sorted({parts[depth - 2] for parts, _ in placed if not official or parts[0] == "train"})
    if not classes:
        raise InputError(f"{root} has no image at class/image or train/class/image and test/class/image")
    for parts, path in placed:
        if parts[depth - 2] not in classes:
            raise InputError(f"{path}: the class {parts[depth - 2]!r} has no images in {root / 'train'}")

    def candidates() -> Iterator[Candidate]:
        for parts, path in placed:
            split = parts[0] if official else None
            yield Candidate(path.relative_to(root).as_posix(), classes.index(parts[depth - 2]), split, lambda p=path: p)

    return Source(classes, candidates())


def decode(opened: Any, size: int) -> tuple[np.ndarray, int, int]:
    """One image as an RGB square.

    The shorter side becomes ``size``, with antialiasing, and the centre square is kept. Orientation follows the EXIF
    tag; transparent pixels are laid on white; 16-bit gray is scaled to 8 bits.

    Parameters
    ----------
    opened
        A path, a file object or a ``PIL.Image``.

    Returns
    -------
    (pixels, width, height)
        (size, size, 3) uint8, and the original's size in pixels as it is looked at.
    """
    image = opened if isinstance(opened, Image.Image) else Image.open(opened)
    width, height = image.size
    turned = image.getexif().get(0x0112, 1) if image.format else 1
    # A JPEG decodes at a half, a quarter or an eighth of its size in a fraction of the time, if that is large enough.
    image.draft("RGB", (size, size))
    image.load()
    image = _rgb(image)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side), reducing_gap=3.0
    )
    if turned != 1:
        exif = Image.Exif()
        exif[0x0112] = turned
        square.info["exif"] = exif.tobytes()
        square = ImageOps.exif_transpose(square)
        if turned >= 5:
            width, height = height, width
    return np.asarray(square), width, height


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if values.max(initial=0) > 255 else 255
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError(f"values from {values.min():g} to {values.max():g} are neither 8 nor 16 bits")
        return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")


def decoded(
    candidates: Iterator[Candidate], size: int, threads: int, skipped: list[dict[str, str]]
) -> Iterator[tuple[Entry, np.ndarray]]:
    """Decode a stream of candidates on ``threads`` threads, in order; what cannot be read goes to ``skipped``.

    At most a few images a thread are in memory at any time. Pillow decodes and resizes without Python's lock, so
    threads are enough.
    """

    def work(candidate: Candidate) -> tuple[Entry, np.ndarray] | str:
        try:
            pixels, width, height = decode(candidate.open(), size)
        except Exception as error:  # Pillow's plugins raise what they like; a bad file is never more than a bad file
            return _reason(error)
        return Entry(candidate.file, candidate.label, candidate.split, width, height), pixels

    waiting: collections.deque[tuple[Candidate, Future]] = collections.deque()

    def finished() -> Iterator[tuple[Entry, np.ndarray]]:
        candidate, future = waiting.popleft()
        result = future.result()
        if isinstance(result, str):
            skipped.append({"file": candidate.file, "reason": result})
        else:
            yield result

    with ThreadPoolExecutor(threads) as pool:
        for candidate in candidates:
            waiting.append((candidate, pool.submit(work, candidate)))
            if len(waiting) >= 4 * threads:
                yield from finished()
        while waiting:
            yield from finished()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return str(error) or type(error).__name__


def assign(dataset: dict[str, Any], classes: list[str], entries: list[Entry]) -> list[str | None]:
    """The split of every image, None for one that is left out.

    Official splits stay as they are. Else each class is put into a seeded order and cut: test, validation, training.
    ``train_per_class`` takes the first of a class's training images in a seeded order, so a smaller subset lies within
    a larger one. With ``train_on: train+val`` the validation images train too.

    Raises
    ------
    InputError
        If a class has too few images; the message names the class, its count and the need.
    """
    seed = dataset.get("seed", 0)
    splits: list[str | None] = [entry.split for entry in entries]
    labels = np.array([entry.label for entry in entries], dtype=np.int64)
    official = bool(entries) and entries[0].split is not None
    carve_val = official and "val" not in splits
    for label, name in enumerate(classes):
        rows = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))
        if not official:
            test, val = _shares(dataset, rows.size)
            if rows.size <= test + val or not test:
                raise InputError(
                    f"class {name!r} has {rows.size} readable images, too few for {test} to test, {val} for validation "
                    "and at least 1 to train on"
                )
            for position, row in enumerate(rows):
                splits[row] = "test" if position < test else "val" if position < test + val else "train"
        elif carve_val:
            trains = [row for row in rows if splits[row] == "train"]
            for row in trains[: max(1, round(_fractions(dataset)["val"] * len(trains)))]:
                splits[row] = "val"
        if dataset.get("train_on") == "train+val":
            for row in rows:
                splits[row] = "train" if splits[row] == "val" else splits[row]
        trains = [row for row in rows if splits[row] == "train"]
        wanted = dataset.get("train_per_class")
        if len(trains) < (wanted or 1):
            raise InputError(f"class {name!r} has {len(trains)} readable images to train on, {wanted or 1} are needed")
        for row in trains[wanted:] if wanted else ():
            splits[row] = None
        if not any(splits[row] == "test" for row in rows):
            raise InputError(f"class {name!r} has no readable image to test")
    return splits


def _fractions(dataset: dict[str, Any]) -> dict[str, float]:
    return dataset.get("split") or DEFAULT_SPLIT


def _shares(dataset: dict[str, Any], images: int) -> tuple[int, int]:
    """Numbers of test and validation images of a class."""
    fractions = _fractions(dataset)
    if dataset.get("val_per_class"):
        # The small target task: what is not needed to train or to choose is there to judge.
        val, train = dataset["val_per_class"], dataset.get("train_per_class")
        return (images - val - train if train else round(fractions["test"] * images)), val
    val = max(1, round(fractions["val"] * images)) if fractions["val"] else 0
    return max(1, round(fractions["test"] * images)), val
