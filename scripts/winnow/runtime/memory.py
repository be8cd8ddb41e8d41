"""What a warm worker keeps from job to job: the data set on the device, the backbone."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")

# A grid's neighbouring jobs share a data set and a backbone; a few of each are all that is worth its memory.
LIMIT = 4

_kept: collections.OrderedDict[Hashable, object] = collections.OrderedDict()


def kept(kind: str, directory: Path, make: Callable[[], Made], *details: Hashable) -> Made:
    """What ``make`` makes of a stage's folder, made once as long as the folder's manifest stays the same file.

    Whoever gets it must not change it. In a process that runs one job this is just ``make()``.
    """
    manifest = (directory / "manifest.json").absolute()
    if not manifest.exists():
        return make()
    stat = manifest.stat()
    key = (kind, manifest, stat.st_mtime_ns, stat.st_ino, *details)
    if key not in _kept:
        _kept[key] = make()
    _kept.move_to_end(key)
    while len(_kept) > LIMIT:
        _kept.popitem(last=False)
    return _kept[key]
