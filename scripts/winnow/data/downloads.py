"""Downloads that end whole or not at all: resumed where they were cut, checked against their digest, then renamed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from winnow.files import InputError, file_digest

# Where a backbone's weights are put, and looked for first.
FOLDER = Path("results/downloads/weights")
ATTEMPTS = 5
CHUNK = 2**16
TIMEOUT = (10, 60)  # seconds to connect, and between two reads


def download(url: str, target: Path, digest: str, pause: float = 1.0, placed: Path | None = None) -> None:
    """Bring a file to ``target``, unless it lies there already.

    A file that was placed by hand is taken instead of a download. Where a workflow removes the target before it makes
    it, as Snakemake does, ``placed`` has to lie elsewhere.

    What was read of an interrupted download is kept beside the target, as ``.{name}.part``, and taken up by the next
    try, in this process or a later one.

    Parameters
    ----------
    url
        ``http(s)://``, ``file://`` or a plain path.
    digest
        ``md5:`` or ``sha256:`` and the hex digits, or the first of them, of the whole file.
    pause : float
        Seconds before the second try; doubled after every further one.
    placed
        Where a user may put the file by hand; the target itself if not given.

    Raises
    ------
    InputError
        If the file cannot be had or is not the expected one; the message says how to place it by hand.
    """
    if target.exists():
        verify(target, digest)
        return
    placed = placed or target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    if placed.exists():
        verify(placed, digest)
        _copy(placed, part, target)
        return
    address = urlsplit(url)
    if address.scheme in ("http", "https"):
        _fetch(url, part, _by_hand(placed, digest), pause)
    else:
        path = Path(unquote(address.path) if address.scheme == "file" else url)
        if not path.is_file():
            raise InputError(f"{path} does not exist. {_by_hand(placed, digest)}")
        shutil.copyfile(path, part)
    difference = _difference(part, digest)
    if difference:
        part.unlink()
        raise InputError(f"{url} is not the expected file: {difference}. {_by_hand(placed, digest)}")
    part.replace(target)


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


def _copy(source: Path, part: Path, target: Path) -> None:
    """Make ``target`` the same as ``source``, by a link where the file system has them."""
    part.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, part)
        part.replace(target)


def _fetch(url: str, part: Path, by_hand: str, pause: float) -> None:
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            print(f"{reason}; once more in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause *= 2
        try:
            if _read(url, part):
                return
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
    return f"Without it, put the file at {place.absolute()} by hand ({digest}) and run again."


def _read(url: str, part: Path) -> bool:
    """Read what is missing of ``part``; whether it is whole as far as the server says."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            # Nothing lies behind what is here already: it is the whole file, or a longer one of another content.
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return True
            part.unlink()
            return False
        response.raise_for_status()
        resumed = response.status_code == 206
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(part, "ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=part.name[1:-5],
                mininterval=1,
                dynamic_ncols=True,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    return total is None or part.stat().st_size == total
