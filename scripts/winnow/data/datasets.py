"""The data sets: where their images come from.

A source is one function and one name. It streams its images; decoding is the same for all.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winnow.data import decoding, folders, ranges
from winnow.data.archives import PACKAGE, of_package
from winnow.data.preprocessing import MEGAPIXELS, Form, decode_all
from winnow.data.store import Entry
from winnow.files import InputError

# On fewer cores threads decode as fast as processes do; and a process takes as long to start as to decode some images.
PROCESSES, IMAGES = 3, 100


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An image that a source offers: its name, label, part of the official split if there is one, its file, or how to
    get its bytes, and what it belongs to: images of one group stay together, of one stratum they are shared out evenly.

    A source that has no files gives the image itself.
    """

    file: str
    label: int
    official: str | None
    content: Path | Callable[[], bytes | Image.Image]
    group: str | None = None
    stratum: str | None = None

    def read(self) -> bytes | Image.Image:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content()


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set's classes and, as a stream that is read once, its images; how many there are, whether they are files,
    and what else is known of a folder of them."""

    classes: list[str]
    candidates: Iterator[Candidate]
    count: int
    files: bool = True
    tree: folders.Tree | None = None


# Of the data set's configuration and its archives.
Reader = Callable[[dict[str, Any], list[Path]], Source]
SOURCES: dict[str, Reader] = {}


def source(name: str) -> Callable[[Reader], Reader]:
    """Register a function as the source ``name``."""

    def register(function: Reader) -> Reader:
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
            yield Candidate(f"{number:04d}", label, None, functools.partial(Image.fromarray, pixels[number]))

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
                        file = archive.extractfile(member)
                        assert file is not None, member.name  # it is a file
                        yield Candidate(
                            member.name,
                            labels[number] - 1,  # the file counts from 1
                            split[number],
                            functools.partial(bytes, file.read()),
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
            yield Candidate(name, classes.index(parts[1]), None, functools.partial(archive.read, name))

    return Source(classes, candidates(), len(placed))


def _of_pets(parts: list[str], classes: list[str]) -> bool:
    return len(parts) == 3 and parts[0] == "PetImages" and parts[1] in classes and parts[2] != ""


# What experts have said of a cell: the probability that it is defective, to two digits.
_GRADES = {"0.00": "functional", "0.33": "possibly_defective", "0.67": "likely_defective", "1.00": "defective"}

# The cells of one module are there twice: 1735 to 1784 and, so many later, the same ones. Seen by eye, and told by the
# correlation of their small gray pictures: at least 0.984 of each of these with its second one, at most 0.88 before and
# behind them.
_TWICE, _LATER = range(1735, 1785), 542


@source("elpv")
def elpv(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Solar cells in electroluminescence (Buerhop et al. 2018; Deitsch et al. 2019), as the package ``elpv-dataset``
    has them: 2,624 gray photographs of 300×300 pixels, functional or, from a probability of one half on, defective.

    Strata are the experts' grade and the kind of the cell, mono- or polycrystalline. Which module a cell was cut from
    is not said. One module is there twice, the second time out of focus: pictures of one cell are a group.
    """
    return _solar_cells(["functional", "defective"], lambda grade: int(grade > 0.5))


@source("elpv_grades")
def elpv_grades(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """The same in the four grades that experts have given."""
    return _solar_cells([*_GRADES.values()], lambda grade: [*_GRADES].index(f"{grade:.2f}"))


def _solar_cells(classes: list[str], label: Callable[[float], int]) -> Source:
    data = Path(of_package(f"{PACKAGE}elpv_dataset/data"))
    try:
        rows = [line.split() for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
        graded = [(name, float(grade), kind) for name, grade, kind in rows]
        labelled = [(name, label(grade), f"{_GRADES[f'{grade:.2f}']} {kind}") for name, grade, kind in graded]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{data / 'labels.csv'} is not the list of elpv-dataset: {error}") from None
    again = {f"images/cell{cell + later:04d}.png": f"cell {cell}" for cell in _TWICE for later in (0, _LATER)}
    stream = (
        Candidate(name, number, None, data / name, again.get(name), stratum) for name, number, stratum in labelled
    )
    return Source(classes, stream, len(labelled))


@source("folder")
def folder(dataset: dict[str, Any], archives: list[Path]) -> Source:
    """Any folder of images, as :mod:`winnow.data.folders` understands it."""
    tree = folders.read(Path(dataset["path"]), folders.Rules.of(dataset))
    stream = (
        Candidate(picture.file.name, picture.label, picture.part, picture.file.path, picture.group)
        for picture in tree.pictures
    )
    return Source(tree.classes, stream, len(tree.pictures), tree=tree)


def form(dataset: dict[str, Any], source: Source, threads: int) -> tuple[Form, dict[str, Any]]:
    """What images are made into, and how their range was found: as it was stated, or over those that train, which are
    all where their source does not say which do."""
    size, channels = dataset["store_size"], dataset.get("channels", 3)
    limit = dataset.get("megapixels") or MEGAPIXELS
    if stated := dataset.get("range"):
        return Form(size, channels, tuple(stated), tuple(stated), limit), {"stated": list(stated)}
    pictures = source.tree.pictures if source.tree else ()
    found = ranges.find([(each.file.path, each.depth) for each in pictures if each.part in (None, "train")], threads)
    bounds = {kind: tuple(each["bounds"]) for kind, each in found.items()}
    return Form(size, channels, bounds.get("integers"), bounds.get("floats"), limit), found


def decoded(
    source: Source, form: Form, threads: int, skipped: list[dict[str, str]], likenesses: list[bytes]
) -> Iterator[tuple[Entry, np.ndarray]]:
    """Decode a source's images on ``threads`` cores, in order.

    What cannot be read goes to ``skipped``, and what copies are found by, image for image, to ``likenesses``.
    """
    if source.files and threads >= PROCESSES and source.count >= IMAGES * threads:
        stream = decoding.decode_all(source.candidates, _content, form, threads)
    else:
        stream = decode_all(source.candidates, Candidate.read, form, threads)
    for candidate, result in stream:
        if isinstance(result, str):
            skipped.append({"file": candidate.file, "reason": result})
        else:
            likenesses.append(result.likeness)
            known = candidate.file, candidate.label, candidate.official, candidate.group
            yield Entry(*known, result.width, result.height, candidate.stratum), result.pixels


def _content(candidate: Candidate) -> Path | bytes:
    content = candidate.content if isinstance(candidate.content, Path) else candidate.content()
    assert not isinstance(content, Image.Image), candidate.file  # its source has files
    return content
