"""What data sets and backbones are made from, before anything is opened: files with their addresses and digests.

The Snakefile asks this module, so it imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winnow.files import InputError, file_digest


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


# What a path begins with that lies in an installed package: package:NAME/path.
PACKAGE = "package:"


def of_package(path: str) -> str:
    """A path as it is, or where it lies if it is one of a package of this Python's: ``package:NAME/path``. The package
    is not imported.

    Raises
    ------
    InputError
        If there is no such package.
    """
    if not path.startswith(PACKAGE):
        return path
    package, _, rest = path.removeprefix(PACKAGE).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{path}: no package {package} is installed: make photos installs what its photographs need")
    return str(Path(found.submodule_search_locations[0], rest))


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
