"""A data set's store: its images decoded once, as a memory-mapped array, with their index and a manifest.

Which of them train, choose and judge is no part of it: see :mod:`winnow.data.splits`.

Images are held against their checksums where they are written and, on each node, once more when their file is not as
it was: see :mod:`winnow.runtime.verification`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.preprocessing import Form
from winnow.files import InputError, atomic_path, file_digest, read_json, write_json
from winnow.runtime import verification
from winnow.tables import read_table, write_table

HEADER_BYTES = 128
# Images that are read back at a time while others are written.
READ = 32


@dataclasses.dataclass(frozen=True)
class Store:
    """An open store.

    Attributes
    ----------
    directory : Path
    images : (N, S, S, C) uint8, memory-mapped
        Of three channels, or one where they are gray.
    labels : (N,) int64
        Positions in ``classes``.
    manifest : dict
    """

    directory: Path
    images: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    manifest: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Store:
        """Open a store and check that its files fit each other.

        Raises
        ------
        InputError
            If a file is missing, cut short or does not fit the manifest; the message names it.
        """
        manifest = read_json(directory / "manifest.json")
        index = read_table(directory / "index.parquet", "index")
        path = directory / "images.npy"
        size, channels = manifest["store_size"], manifest["reading"]["channels"]
        shape = (manifest["images"], size, size, channels)
        try:
            images = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read ({error}): delete it and run again to make it anew") from None
        if images.shape != shape or images.dtype != np.uint8 or index.num_rows != shape[0]:
            raise InputError(
                f"{path} holds {images.dtype} of shape {images.shape} and its index {index.num_rows} rows, but its "
                f"manifest says uint8 of shape {shape}: delete the folder {directory} and run again to make it anew"
            )
        return cls(
            directory,
            images,
            index["label"].to_numpy().astype(np.int64),
            index["crc32"].to_numpy(),
            manifest,
        )

    @property
    def path(self) -> Path:
        """The images' file."""
        return self.directory / "images.npy"

    @property
    def classes(self) -> list[str]:
        return self.manifest["classes"]

    @property
    def image_size(self) -> int:
        return self.manifest["image_size"]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Copies of images, (len(rows), S, S, C) uint8, verified."""
        self.verify()
        return self.images[rows]

    def verify(self) -> None:
        """Hold all images against their checksums, unless this node has done so since their file last changed.

        Raises
        ------
        InputError
            If an image is not the one that was written.
        """
        verification.once(self.path, self._against, self._check)

    @functools.cached_property
    def _against(self) -> str:
        return _against(self.manifest, self.checksums)

    def _check(self) -> None:
        # The file that is there now, which is the one that is vouched for, and not the one that was opened.
        images = Store.open(self.directory).images
        for row, checksum in enumerate(self.checksums):
            if zlib.crc32(images[row]) != checksum:
                raise InputError(
                    f"{self.path}: image {row} is not what was written: "
                    f"delete the folder {self.directory} and run again to make it anew"
                )


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the index says of one image: its file, label, part of the official split, group, original size in pixels and
    stratum.

    None stands for no official split, for an image that belongs to no other, and for one of no stratum.
    """

    file: str
    label: int
    official: str | None
    group: str | None
    width: int
    height: int
    stratum: str | None = None


def write_store(
    directory: Path,
    images: Iterable[tuple[Entry, np.ndarray]],
    manifest: dict[str, Any],
    expected: int | None = None,
    group: Callable[[list[Entry], list[int]], list[str | None]] | None = None,
) -> dict[str, Any]:
    """Write a store from a stream of images, holding one at a time.

    A directory has one writer at a time. What a killed one left is removed: it may be as large as the store.

    Parameters
    ----------
    directory
        Gets ``images.npy``, ``index.parquet`` and, last, ``manifest.json``.
    images
        Pairs of an entry and its (S, S, C) uint8 pixels.
    manifest
        ``classes``, ``store_size``, ``reading``, ``spec`` and what else is known; it may still change while ``images``
        is read. Without ``reading`` pixels are RGB.
    expected
        How many images there will be, where that is known: if so many come, the file is read back and digested while it
        is written, and not after.
    group
        Called once all are read, with their entries and checksums: the group of each.

    Returns
    -------
    dict
        The manifest as written: with the number of images, and the size and digest of ``images.npy``.
    """
    size = manifest["store_size"]
    manifest.setdefault("reading", Form(size).reading)
    shape = size, size, manifest["reading"]["channels"]
    entries: list[Entry] = []
    checksums: list[int] = []
    path = directory / "images.npy"
    for left in directory.glob(f".{path.name}.*.tmp"):
        left.unlink()
    with atomic_path(path) as temporary:
        with open(temporary, "wb+") as file:
            # A header's padding leaves room for any count, so it can be written again once the count is known.
            start, length = _write_header(file, (expected or 0, *shape)), math.prod(shape)
            file.flush()
            with contextlib.closing(_Digest(temporary, start, length)) as digest, ThreadPoolExecutor(1) as behind:
                read: list[Future[None]] = []
                for entry, pixels in images:
                    entries.append(entry)
                    checksums.append(zlib.crc32(pixels.data))
                    file.write(pixels.data)
                    if expected and (len(checksums) % READ == 0 or len(checksums) == expected):
                        file.flush()
                        read.append(behind.submit(digest.read, checksums[len(read) * READ :]))
                for future in read:
                    future.result()
            if len(entries) != expected:
                file.seek(0)
                _write_header(file, (len(entries), *shape))
        if len(entries) != expected:
            with contextlib.closing(_Digest(temporary, start, length)) as digest:
                digest.read(checksums)
        manifest |= {"images_sha256": digest.hexdigest(), "images_bytes": temporary.stat().st_size}
    # They were read to be digested, and held against their checksums then: what is left is to say so.
    verification.once(path, _against(manifest, np.array(checksums, dtype=np.uint32)), lambda: None)
    if group:
        groups = group(entries, checksums)
        entries = [dataclasses.replace(entry, group=each) for entry, each in zip(entries, groups, strict=True)]
    names = [field.name for field in dataclasses.fields(Entry)]
    columns: dict[str, Any] = {name: [getattr(entry, name) for entry in entries] for name in names}
    columns |= {"image": np.arange(len(entries)), "crc32": checksums}
    write_table(directory / "index.parquet", columns, "index", {"spec": manifest["spec"]})
    manifest["index_sha256"] = file_digest(directory / "index.parquet")
    manifest["images"] = len(entries)
    write_json(directory / "manifest.json", manifest)
    return manifest


class _Digest:
    """Of a store's file as it is on the disk, whose images are held against their checksums on the way."""

    def __init__(self, path: Path, start: int, length: int):
        self._path, self._length, self._row = path, length, 0
        # Nothing ahead of what is asked for: that is not written yet.
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close
        self._digest = hashlib.sha256(self._file.read(start))

    def read(self, checksums: list[int]) -> None:
        """Go on by so many images.

        Raises
        ------
        InputError
            If what is read is not what was written.
        """
        for checksum in checksums:
            pixels = self._file.read(self._length)
            if zlib.crc32(pixels) != checksum:
                raise InputError(
                    f"{self._path}: image {self._row} is not what was written: the disk or its memory is damaged"
                )
            self._digest.update(pixels)
            self._row += 1

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()


def _against(manifest: dict[str, Any], checksums: np.ndarray) -> str:
    """What a store's images are held against: the same for the same images."""
    return f"{manifest['images_sha256']} {zlib.crc32(np.ascontiguousarray(checksums).data)}"


def _write_header(file: Any, shape: tuple[int, ...]) -> int:
    """Write an .npy header of fixed length and return it."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    file.write(b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little"))
    file.write(header.ljust(HEADER_BYTES - 11) + b"\n")
    return HEADER_BYTES
