"""Decoding in processes of their own, for many cores: threads wait for each other between Pillow's calls.

A process gets its images by their files' names, or by their contents, and sends back what
:func:`winnow.data.preprocessing.attempt` makes of them.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from winnow.data.preprocessing import Decoded, attempt

Item = TypeVar("Item")

# Images that a process gets at a time.
CHUNK = 8
# Each chunk's number of images and their side; each request's kind and bytes; each answer's bytes, width and height.
HEADER, REQUEST, ANSWER = (struct.Struct(form) for form in ("<II", "<?Q", "<?III"))
# What an answer's pixels go through at once, where the system allows it: each read is a turn for Python's lock.
PIPE_BYTES = 2**20
PROGRAM = "import sys; sys.path[0] = sys.argv[1]; from winnow.data.decoding import serve; serve()"


class Process:
    """One that decodes."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).resolve().parents[2])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def decode(self, contents: list[Path | bytes], size: int) -> list[Decoded]:
        """What comes of some files or their contents.

        Raises
        ------
        RuntimeError
            If the process has ended.
        """
        encoded = [
            str(content).encode(errors="surrogateescape") if isinstance(content, Path) else content
            for content in contents
        ]
        parts = [HEADER.pack(len(contents), size)]
        for content, data in zip(contents, encoded, strict=True):
            parts += [REQUEST.pack(isinstance(content, Path), len(data)), data]
        try:
            self._process.stdin.write(b"".join(parts))
            self._process.stdin.flush()
            return [self._answer(size) for _ in contents]
        except (BrokenPipeError, EOFError):
            status = self._process.wait()
            raise RuntimeError(f"a process that decodes images ended with status {status}") from None

    def _answer(self, size: int) -> Decoded:
        good, length, width, height = ANSWER.unpack(_read(self._process.stdout, ANSWER.size))
        if not good:
            return _read(self._process.stdout, length).decode()
        return np.frombuffer(_read(self._process.stdout, length), np.uint8).reshape(size, size, 3), width, height

    def close(self) -> None:
        """End it, once it is idle."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def decode_all(
    items: Iterable[Item], content: Callable[[Item], Path | bytes], size: int, processes: int
) -> Iterator[tuple[Item, Decoded]]:
    """Decode a stream of items in processes: each, in order, with what :func:`winnow.data.preprocessing.decode` gives
    or why it failed.

    At most :data:`CHUNK` × 2 images a process are in memory at any time.
    """
    own, started = threading.local(), []

    def work(chunk: list[Item]) -> list[Decoded]:
        if not hasattr(own, "process"):
            own.process = Process()
            started.append(own.process)
        return own.process.decode([content(item) for item in chunk], size)

    waiting: collections.deque[tuple[list[Item], Future[list[Decoded]]]] = collections.deque()

    def first() -> Iterator[tuple[Item, Decoded]]:
        chunk, future = waiting.popleft()
        yield from zip(chunk, future.result(), strict=True)

    stream = iter(items)
    try:
        with ThreadPoolExecutor(processes) as pool:
            while chunk := list(itertools.islice(stream, CHUNK)):
                waiting.append((chunk, pool.submit(work, chunk)))
                if len(waiting) >= 2 * processes:
                    yield from first()
            while waiting:
                yield from first()
    finally:
        for process in started:
            process.close()


def serve() -> None:
    """The life of a process that decodes: chunk after chunk, until its input ends."""
    # An interruption of all is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(HEADER.size):
        count, size = HEADER.unpack(header)
        # All of them before the first answer: the other side writes all before it reads.
        found = []
        for _ in range(count):
            named, length = REQUEST.unpack(requests.read(REQUEST.size))
            found.append((named, requests.read(length)))
        for named, data in found:
            read = Path(data.decode(errors="surrogateescape")).read_bytes if named else lambda data=data: data
            result = attempt(read, size)
            if isinstance(result, str):
                reason = result.encode(errors="replace")
                answers.write(ANSWER.pack(False, len(reason), 0, 0) + reason)
            else:
                pixels, width, height = result
                answers.write(ANSWER.pack(True, pixels.nbytes, width, height))
                answers.write(np.ascontiguousarray(pixels))
        answers.flush()


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
