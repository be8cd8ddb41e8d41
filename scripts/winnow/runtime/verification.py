"""Which large files this node has verified: one process reads such a file through, the others take its word.

The word is of the file as it was: its inode, size and times of change, of which one moves with every byte that is
written, and which no copy has. A file that is not as it was is read through again, once on each node.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

# A file system's clock ticks this often, in seconds, at the least: what is written within a tick has one time.
TICK = 0.05

# What this process has verified, for where the node's folder cannot be written to.
_verified: dict[Path, str] = {}


def folder() -> Path:
    """Where the node's records lie: local to the node, one folder a user."""
    return Path(os.environ.get("WINNOW_VERIFIED", f"/tmp/winnow-verified-{os.getuid()}"))


def once(path: Path, against: str, check: Callable[[], None]) -> None:
    """Call ``check``, unless the file as it is now has passed it on this node.

    Processes that ask at the same time wait for the one that checks.

    Parameters
    ----------
    path
        The file.
    against
        What it is held against: a digest of what has to be in it.
    check
        Reads the file through; raises if it is not what it should be, and then every process is told so.
    """
    record = _record(path, against)
    now = _state(path)
    if _verified.get(record) == now:
        return
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(record, "a+")  # noqa: SIM115 - it is closed below
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        check()
        _verified[record] = now
        return
    with file:
        file.seek(0)
        if file.read() != now:
            _settle(path)
            now = _state(path)
            check()
            _write(file, now)
        _verified[record] = now


def _record(path: Path, against: str) -> Path:
    return folder() / hashlib.sha256(f"{path.resolve()}\n{against}".encode()).hexdigest()[:32]


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _settle(path: Path) -> None:
    """Wait until what is written to the file from now on gives it another time."""
    age = time.time() - path.stat().st_ctime
    time.sleep(min(TICK, max(0.0, TICK - age)))


def _write(file: TextIO, text: str) -> None:
    # Where the disk is full the next process verifies once more.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(text)
        file.flush()
