"""Downloads that end whole or not at all: resumed where they were cut, checked against their digest, then renamed.

What is read of a file lies in a part beside its place until it is whole. A part belongs to one address and one digest:
its name carries both, so that nothing is ever taken up for another content. It is locked by the one that writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import requests

from winnow.files import InputError, file_digest
from winnow.runtime.counting import Count

ATTEMPTS = 5
CHUNK = 2**16
MB = 10**6
TIMEOUT = (10, 60)  # seconds to connect, and between two reads


def download(url: str, target: Path, digest: str, pause: float = 1.0, placed: Path | None = None) -> None:
    """Bring a file to ``target``, unless it lies there already.

    A file that was placed by hand is taken instead of a download. Where a workflow removes the target before it makes
    it, as Snakemake does, ``placed`` has to lie elsewhere.

    What was read of an interrupted download is kept in its part, and taken up by the next try, in this process or a
    later one. Where the whole then is not the expected file, it is read once more from its beginning. Who comes while
    another writes the part waits until that one is done.

    Parameters
    ----------
    url
        ``http(s)://``, ``file://`` or a plain path.
    digest
        ``md5:`` or ``sha256:`` and the hex digits, or the first of them, of the whole file. Without any digits the file
        is held against those that a hub says of it when it serves it.
    pause : float
        Seconds before the second try; doubled after every further one.
    placed
        Where a user may put the file by hand; the target itself if not given.

    Raises
    ------
    InputError
        If the file cannot be had or is not the expected one; the message says how to place it by hand.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    placed = placed or target
    with _locked(part_of(target, url, digest)) as file:
        part = Path(file.name)
        if target.exists():
            verify(target, digest)
        elif placed.exists():
            verify(placed, digest)
            _copy(placed, file, target)
        else:
            _bring(url, file, digest, _by_hand(placed, digest), pause)
            part.replace(target)
    _sweep(target)


def part_of(target: Path, url: str, digest: str) -> Path:
    """Where what was read of one address's file of one digest is kept until it is whole."""
    binding = hashlib.sha256(f"{url}\0{digest}".encode()).hexdigest()[:16]
    return target.with_name(f".{target.name}.{binding}.part")


def verify(path: Path, digest: str) -> None:
    """Hold a file against its digest.

    Raises
    ------
    InputError
        If they differ; the message gives both.
    """
    difference = _difference(path, digest)
    if difference:
        raise InputError(f"{path} is not the expected file: {difference}. Delete or replace it and run again.")


def _difference(path: Path, digest: str) -> str:
    """How a file differs from its digest; empty if it does not."""
    algorithm, _, expected = digest.partition(":")
    found = file_digest(path, algorithm)
    return "" if found.startswith(expected) else f"its {algorithm} is {found}, expected is {expected}"


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The part, open at its end and this process's alone, until it is closed or the process ends, however it ends.

    A part in which nothing is left after an error is removed.
    """
    while True:
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process downloads {part}: waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it may have renamed or removed it meanwhile: then this is nobody's part any more.
            if not _is_at(part, file):
                continue
            try:
                yield file
            except BaseException:
                if not os.fstat(file.fileno()).st_size:
                    part.unlink(missing_ok=True)
                raise
            return


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is the one that lies at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sweep(target: Path) -> None:
    """Remove what was begun under other addresses or digests and nobody writes any more."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with open(part, "ab") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _copy(source: Path, file: BinaryIO, target: Path) -> None:
    """Make ``target`` the same as ``source``, by a link where the file system has them, else by way of the part."""
    part = Path(file.name)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, part)
        part.replace(target)


def _bring(url: str, file: BinaryIO, digest: str, by_hand: str, pause: float) -> None:
    """Fill the part with the file of an address, and hold it against its digest."""
    address, part = urlsplit(url), Path(file.name)
    if address.scheme in ("http", "https"):
        resumed = os.fstat(file.fileno()).st_size > 0
        said = _fetch(url, file, by_hand, pause)
        if resumed and _difference(part, _known(digest, said)):
            print(f"{part} does not go on as it began; once more from the beginning", file=sys.stderr, flush=True)
            file.truncate(0)
            said = _fetch(url, file, by_hand, pause)
        digest = _known(digest, said)
    else:
        path = Path(unquote(address.path) if address.scheme == "file" else url)
        if not path.is_file():
            file.truncate(0)
            raise InputError(f"{path} does not exist. {by_hand}")
        shutil.copyfile(path, part)
    difference = _difference(part, digest)
    if difference:
        file.truncate(0)
        raise InputError(f"{url} is not the expected file: {difference}. {by_hand}")


def _known(digest: str, said: str) -> str:
    """The digest that is known beforehand, else the one that a hub says."""
    return digest if digest.partition(":")[2] else said or digest


def _fetch(url: str, file: BinaryIO, by_hand: str, pause: float) -> str:
    """Fill the part; return what a hub says that the file's digest is, empty if nobody does."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{reason}; once more in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause *= 2
        try:
            whole, said = _read(url, file)
            if whole:
                return said
            reason = "the connection was cut"
        except requests.HTTPError as error:
            status = error.response.status_code
            if status < 500 and status not in (408, 429):
                raise InputError(f"{url} answers {status} {error.response.reason}. {by_hand}") from None
            reason = f"the server answers {status}"
        except requests.RequestException as error:
            reason = f"{type(error).__name__}"
    raise InputError(f"{url} cannot be downloaded ({reason}, {ATTEMPTS} tries). {by_hand}")


def _by_hand(place: Path, digest: str) -> str:
    known = f" ({digest})" if digest.partition(":")[2] else ""
    return f"Without it, put the file at {place.absolute()} by hand{known} and run again."


def _read(url: str, file: BinaryIO) -> tuple[bool, str]:
    """Read what is missing of a part; whether it is whole as far as the server says, and the digest that it says."""
    have = os.fstat(file.fileno()).st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        said = _said(response)
        if response.status_code == 416:
            # Nothing lies behind what is here already: it is the whole file, or a longer one of another content.
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return True, said
            file.truncate(0)
            return False, said
        response.raise_for_status()
        if response.status_code != 206:
            file.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        name = Path(file.name).name[1:].rsplit(".", 2)[0]
        count = Count(total and total // MB, f"MB of {name}", have // MB)
        try:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                have += len(chunk)
                count.add(have // MB - count.done)
        finally:
            file.flush()
            count.close()
    return total is None or os.fstat(file.fileno()).st_size == total, said


def _said(response: requests.Response) -> str:
    """The digest that a hub gives of a large file, before it sends one on to where the file lies."""
    for each in (*response.history, response):
        digits = each.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", digits):
            return f"sha256:{digits}"
    return ""
