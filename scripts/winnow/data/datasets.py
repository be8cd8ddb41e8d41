"""The data sets: where their images come from.

A source is one function and one name. It streams its images; decoding is the same for all.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winnow.data import decoding
from winnow.data.archives import SPLIT_FOLDERS, image_files, name_text
from winnow.data.preprocessing import decode_all
from winnow.data.store import Entry
from winnow.files import InputError

# On fewer cores threads decode as fast as processes do; and a process takes as long to start as to decode some images.
PROCESSES, IMAGES = 3, 100


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that a source offers: its name, label, part of the official split if there is one, its file, or how to
    get its bytes, and what it belongs to: images of one group stay together.

    A source that has no files gives the image itself.
    """

    file: str
    label: int
    official: str | None
    content: Path | Callable[[], bytes | Image.Image]
    group: str | None = None

    def read(self) -> bytes | Image.Image:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's classes and, as a stream that is read once, its images; how many there are, and whether they are
    files."""

    classes: list[str]
    candidates: Iterator[Candidate]
    count: int
    files: bool = True


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
    chosen = np.flatnonzero(np.isin(loaded.target, wanted))

    def candidates() -> Iterator[Candidate]:
        for number in chosen:
            label = wanted.index(loaded.target[number])
            yield Candidate(f"{number:04d}", label, None, lambda number=number: Image.fromarray(pixels[number]))

    return Source([str(digit) for digit in wanted], candidates(), chosen.size, files=False)


@source("flowers102")
def flowers102(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Flowers-102 (Nilsback and Zisserman 2008) in its official split: 1,020 / 1,020 / 6,149 images."""
    from scipy.io import loadmat

    tgz, labels_file, split_file = archives
    try:
        labels = dict(enumerate(loadmat(labels_file)["labels"].ravel().tolist(), 1))
        split = {
            number: name
            for name, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
            for number in loadmat(split_file)[key].ravel().tolist()
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{labels_file} and {split_file} are not the official labels and split: {error}") from None

    def candidates() -> Iterator[Candidate]:
        # A compressed tar is read from its beginning to its end, so its bytes are read here and decoded elsewhere.
        missing = set(split)
        try:
            with tarfile.open(tgz, "r|gz") as archive:
                for member in archive:
                    match = re.fullmatch(r"(?:.*/)?image_(\d+)\.jpg", member.name)
                    if member.isfile() and match:
                        number = int(match[1])
                        if number not in split or number not in labels:
                            raise InputError(f"{tgz}: {member.name} is not in {labels_file} and {split_file}")
                        missing.discard(number)
                        content = archive.extractfile(member).read()
                        yield Candidate(
                            member.name,
                            labels[number] - 1,  # the file counts from 1
                            split[number],
                            lambda content=content: content,
                        )
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{tgz} cannot be read ({error}): delete it and run again to download it anew") from None
        if missing:
            raise InputError(f"{tgz} lacks {len(missing)} images of {split_file}, such as number {min(missing)}")

    return Source([f"{number:03d}" for number in range(1, max(labels.values()) + 1)], candidates(), len(split))


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

    names = sorted(archive.namelist(), key=lambda name: (len(name), name))
    placed = [(parts, name) for parts, name in ((name.split("/"), name) for name in names) if _of_pets(parts, classes)]

    def candidates() -> Iterator[Candidate]:
        for parts, name in placed:
            yield Candidate(name, classes.index(parts[1]), None, lambda name=name: archive.read(name))

    return Source(classes, candidates(), len(placed))


def _of_pets(parts: list[str], classes: list[str]) -> bool:
    return len(parts) == 3 and parts[0] == "PetImages" and parts[1] in classes and parts[2] != ""


@source("folder")
def folder(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Any folder of images: ``class/image``, or ``train/class/image``, ``test/class/image`` and perhaps ``val/…``."""
    root = Path(dataset["path"])
    files = [(path.relative_to(root).parts, path) for path in image_files(root)]
    folders = _folders(root)
    official = {"train", "test"} <= folders
    if folders and not official and folders <= set(SPLIT_FOLDERS):
        raise InputError(f"{root} has just {', '.join(sorted(folders))}: its own split needs train and test")
    if official:
        others = {parts[0] for parts, _ in files if len(parts) > 1} - set(SPLIT_FOLDERS)
        if others:
            raise InputError(
                f"{root} has its own split and images in {', '.join(sorted(others))} beside it: "
                f"allowed are {', '.join(SPLIT_FOLDERS)}; rename or remove the other folders"
            )
    depth = 3 if official else 2
    placed = [(parts, path) for parts, path in files if len(parts) >= depth]
    if not placed:
        raise InputError(f"{root} has no image at class/image or train/class/image and test/class/image")
    parent = root / "train" if official else root
    classes = sorted(_folders(parent))
    empty = set(classes) - {parts[depth - 2] for parts, _ in placed if not official or parts[0] == "train"}
    if empty:
        raise InputError(f"{parent / min(empty)} has no images: a class has some; remove the folder if it is none")
    for parts, path in placed:
        if parts[depth - 2] not in classes:
            raise InputError(f"{path}: the class {parts[depth - 2]!r} has no images in {parent}")

    def candidates() -> Iterator[Candidate]:
        for parts, path in placed:
            part = parts[0] if official else None
            yield Candidate(name_text("/".join(parts)), classes.index(parts[depth - 2]), part, path)

    return Source([name_text(name) for name in classes], candidates(), len(placed))


def _folders(place: Path) -> set[str]:
    return {entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith(".")}


def decoded(
    source: Source, size: int, threads: int, skipped: list[dict[str, str]]
) -> Iterator[tuple[Entry, np.ndarray]]:
    """Decode a source's images on ``threads`` cores, in order; what cannot be read goes to ``skipped``."""
    if source.files and threads >= PROCESSES and source.count >= IMAGES * threads:
        stream = decoding.decode_all(source.candidates, _content, size, threads)
    else:
        stream = decode_all(source.candidates, Candidate.read, size, threads)
    for candidate, result in stream:
        if isinstance(result, str):
            skipped.append({"file": candidate.file, "reason": result})
        else:
            pixels, width, height = result
            yield Entry(candidate.file, candidate.label, candidate.official, candidate.group, width, height), pixels


def _content(candidate: Candidate) -> Path | bytes:
    return candidate.content if isinstance(candidate.content, Path) else candidate.content()
