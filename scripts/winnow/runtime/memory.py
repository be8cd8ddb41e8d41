"""Memory: what a warm worker keeps from job to job, what a job took, and what is done where it runs out."""

from __future__ import annotations

import collections
import contextlib
import re
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, overload

Made = TypeVar("Made")

# A grid's neighbouring jobs share a data set and a backbone; a few of each kind are all that is worth its memory.
LIMIT = 4

# How libraries say that there is no memory left, besides torch's and Python's errors of that name. cuDNN calls a plan
# unsupported whose workspace it cannot have, and torch then finds no engine; cuBLAS cannot make its handle.
_NO_MEMORY = re.compile(
    r"out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_(\w*ALLOC\w*_FAILED|NOT_SUPPORTED)"
    r"|unable to find an engine to execute this computation"
    r"|DefaultCPUAllocator: (can't|not enough) "
)

_kept: dict[str, collections.OrderedDict[Hashable, tuple[Any, int]]] = {}


@overload
def kept(kind: str, directory: Path, make: Callable[[], Made], *details: Hashable) -> Made: ...
@overload
def kept(
    kind: str, directory: Path, make: Callable[[], Made], *details: Hashable, size: int, room: int
) -> Made | None: ...
def kept(
    kind: str, directory: Path, make: Callable[[], Made], *details: Hashable, size: int = 0, room: int | None = None
) -> Made | None:
    """What ``make`` makes of a stage's folder, made once as long as the folder's manifest stays the same file.

    Whoever gets it must not change it. In a process that runs one job this is just ``make()``. Of each kind the last
    few are kept.

    Parameters
    ----------
    details
        What else it depends on.
    size
        Bytes of a device that it takes.
    room
        Bytes of a device that what is kept of a kind may take, this one among them: others of it go before it is made.
        None for any number.

    Returns
    -------
    object or None
        None where there is none yet, and it would not find room even without the others.
    """
    known = version(directory)
    if known is None:
        return make()
    key = (known, *details)
    of_kind = _kept.setdefault(kind, collections.OrderedDict())
    if key not in of_kind:
        if room is not None and size > room:
            return None
        while of_kind and (len(of_kind) >= LIMIT or (room is not None and size + taken(kind) > room)):
            of_kind.popitem(last=False)
        of_kind[key] = make(), size
    of_kind.move_to_end(key)
    return of_kind[key][0]


def version(directory: Path) -> str | None:
    """A stage's folder as it is now: what was made of it is good as long as its manifest stays the same file."""
    manifest = (directory / "manifest.json").absolute()
    try:
        stat = manifest.stat()
    except FileNotFoundError:
        return None
    return f"{manifest} {stat.st_mtime_ns} {stat.st_ino}"


def taken(kind: str) -> int:
    """Bytes of a device that what is kept of a kind takes."""
    return sum(size for _, size in _kept.get(kind, {}).values())


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the device or in the host."""
    if isinstance(error, MemoryError):
        return True
    # Torch's own is a RuntimeError too, and not always one that speaks of it.
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, RuntimeError) and (named or _NO_MEMORY.search(str(error)) is not None)


def in_smaller_parts(
    size: int, attempt: Callable[[int], Made], least: int = 1, report: Callable[[int], None] = lambda size: None
) -> tuple[Made, int]:
    """What ``attempt`` makes with so many images at a time or, where memory runs out, with half as many, and so on.

    Parameters
    ----------
    size
        To begin with.
    attempt
        Makes all that it fills the memory with itself, so that nothing holds it when it is called once more.
    least
        With so few the error is raised.
    report
        Called with each smaller number before it is tried.

    Returns
    -------
    (made, size)
        With the number that memory had room for.
    """
    while True:
        try:
            return attempt(size), size
        except (MemoryError, RuntimeError) as error:
            if size <= least or not ran_out(error):
                raise
        # Not in the except clause: as long as there is an exception, so are the frames that it came through, and with
        # them whatever filled the memory.
        size = max(least, (size + 1) // 2)
        report(size)
        release()


def release() -> None:
    """Give back what torch holds of the device and does not use."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()


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
        say. ``device``: what torch took of the GPU, images that processes share aside; None without one.
    """
    host = device = None
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        host = round(next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) * 1024 / 1e6)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        device = round(torch.cuda.max_memory_reserved() / 1e6)
    return {"host": host, "device": device}
