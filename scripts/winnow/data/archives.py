"""What data sets and backbones are made from, before anything is opened: files with their addresses and digests, and
folders.

The Snakefile asks this module, so it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow.files import InputError, file_digest

SPLIT_FOLDERS = ("train", "val", "test")
# Those that Pillow reads, and .heic, which it does not: better skipped by name than passed over in silence.
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".heic",
        ".ppm",
        ".pgm",
    )
)


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that can be downloaded. ``digest`` is ``md5:`` or ``sha256:`` and hex digits, or the first of them."""

    name: str
    url: str
    digest: str


_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_CATS = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"

OFFICIAL: dict[str, tuple[Archive, ...]] = {
    "flowers102": (
        Archive("102flowers.tgz", f"{_FLOWERS}102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa"),
        Archive("imagelabels.mat", f"{_FLOWERS}imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d"),
        Archive("setid.mat", f"{_FLOWERS}setid.mat", "md5:a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    "cats_vs_dogs": (
        Archive(
            "kagglecatsanddogs_5340.zip",
            f"{_CATS}kagglecatsanddogs_5340.zip",
            "sha256:b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
        ),
    ),
}


def archives(dataset: Mapping[str, Any]) -> list[Archive]:
    """The archives of a data set as configured: official ones, each with the configuration's ``urls`` in its place.

    Parameters
    ----------
    dataset
        Its ``source``, and ``urls``: archive name → address of a mirror, or a mapping of ``url`` and ``digest`` for
        other content.

    Raises
    ------
    InputError
        If ``urls`` names an archive that the source does not have.
    """
    official = OFFICIAL.get(dataset["source"], ())
    urls = dataset.get("urls") or {}
    names = [archive.name for archive in official]
    for name in urls:
        if name not in names:
            raise InputError(f"urls: unknown archive {name!r}; allowed: {', '.join(names)}")
    return [_elsewhere(archive, urls.get(archive.name, archive.url)) for archive in official]


def _elsewhere(archive: Archive, place: str | Mapping[str, str]) -> Archive:
    changes = {"url": place} if isinstance(place, str) else dict(place)
    return dataclasses.replace(archive, **changes)


def image_files(folder: Path) -> Iterator[Path]:
    """Files below a folder that look like images by their suffix, in the order of their paths; hidden ones left out.

    Raises
    ------
    InputError
        If the folder is missing or cannot be read.
    """

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}") from None

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name)


def name_text(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 are written as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def listing_digest(folder: str) -> str:
    """Digest of a folder's images by path and size: what has to change for the folder to be decoded again.

    A touched file is the same file. So is one edited in place to exactly the same size: delete the store after that.
    """
    root = Path(folder)
    digest = hashlib.sha256()
    for path in image_files(root):
        # A dangling link is listed too: decoding skips it by name, and does so again once it points somewhere.
        size = path.stat().st_size if path.exists() else "missing"
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


@functools.cache
def content_digest(path: str) -> str:
    """``sha256:`` and hex digits of a user's own file, read once a process.

    Raises
    ------
    InputError
        If there is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    return f"sha256:{file_digest(path)}"


def listing_count(folder: str) -> int:
    """Number of images in a folder."""
    return sum(1 for _ in image_files(Path(folder)))
