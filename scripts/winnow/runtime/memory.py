"""What a warm worker keeps from job to job: the data set on the device, the backbone; and what a job took."""

from __future__ import annotations

import collections
import contextlib
import sys
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


def begin_peak() -> None:
    """Let :func:`peak_mb` count from here: a warm worker's earlier jobs may have taken more."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_mb() -> dict[str, int | None]:
    """The most memory that this process had since :func:`begin_peak`, in megabytes (10⁶ bytes).

    Returns
    -------
    dict
        ``host``: resident, with what it shares with others: libraries, mapped images. None where the kernel does not
        say. ``device``: what torch took of the GPU; None without one.
    """
    host = device = None
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        host = round(next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024 / 1e6)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        device = round(torch.cuda.max_memory_reserved() / 1e6)
    return {"host": host, "device": device}
