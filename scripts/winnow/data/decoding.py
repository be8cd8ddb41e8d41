"""Decoding in processes of their own, for many cores: threads wait for each other between Pillow's calls.

A process gets its images by their files' names, or by their contents, and sends back what
:func:`winnow.data.preprocessing.attempt` makes of them.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import itertools
import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from winnow.data.preprocessing import LIKENESS, Decoded, Form, attempt

Item = TypeVar("Item")

# Images that a process gets at a time.
CHUNK = 8
# Each chunk's number of images; each request's kind and bytes; each answer's bytes, width and height. A picture's
# likeness follows its pixels.
HEADER, REQUEST, ANSWER = (struct.Struct(layout) for layout in ("<I", "<?Q", "<?III"))
# What an answer's pixels go through at once, where the system allows it: each read is a turn for Python's lock.
PIPE_BYTES = 2**20
PROGRAM = "import sys; sys.path[0] = sys.argv[1]; from winnow.data.decoding import serve; serve(*sys.argv[2:])"


class Process:
    """One that decodes to squares of a form."""

    def __init__(self, form: Form) -> None:
        self._shape = form.size, form.size, form.channels
        command = [sys.executable, "-c", PROGRAM, str(Path(__file__).resolve().parents[2]), str(form.size)]
        command.append(json.dumps(form.reading))
        self._process = process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        self._requests, self._answers = process.stdin, process.stdout
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def decode(self, contents: list[Path | bytes]) -> list[Decoded | str]:
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
        parts = [HEADER.pack(len(contents))]
        for content, data in zip(contents, encoded, strict=True):
            parts += [REQUEST.pack(isinstance(content, Path), len(data)), data]
        try:
            self._requests.write(b"".join(parts))
            self._requests.flush()
            return [self._answer() for _ in contents]
        except (BrokenPipeError, EOFError):
            status = self._process.wait()
            raise RuntimeError(f"a process that decodes images ended with status {status}") from None

    def _answer(self) -> Decoded | str:
        good, length, width, height = ANSWER.unpack(_read(self._answers, ANSWER.size))
        if not good:
            return _read(self._answers, length).decode()
        pixels = np.frombuffer(_read(self._answers, length), np.uint8).reshape(self._shape)
        return Decoded(pixels, width, height, _read(self._answers, LIKENESS**2))

    def close(self) -> None:
        """End it, once it is idle."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        self._process.wait()


def decode_all(
    items: Iterable[Item], content: Callable[[Item], Path | bytes], form: Form, processes: int
) -> Iterator[tuple[Item, Decoded | str]]:
    """Decode a stream of items in processes: each, in order, with what :func:`winnow.data.preprocessing.decode` gives
    or why it failed.

    At most :data:`CHUNK` × 2 images a process are in memory at any time.
    """
    own, started = threading.local(), []

    def work(chunk: list[Item]) -> list[Decoded | str]:
        if not hasattr(own, "process"):
            own.process = Process(form)
            started.append(own.process)
        return own.process.decode([content(item) for item in chunk])

    waiting: collections.deque[tuple[list[Item], Future[list[Decoded | str]]]] = collections.deque()

    def first() -> Iterator[tuple[Item, Decoded | str]]:
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


def serve(size: str, reading: str) -> None:
    """The life of a process that decodes: chunk after chunk, until its input ends."""
    form = Form.of(int(size), json.loads(reading))
    # An interruption of all is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while header := requests.read(HEADER.size):
        (count,) = HEADER.unpack(header)
        # All of them before the first answer: the other side writes all before it reads.
        found = []
        for _ in range(count):
            named, length = REQUEST.unpack(requests.read(REQUEST.size))
            found.append((named, requests.read(length)))
        for named, data in found:
            read = Path(data.decode(errors="surrogateescape")).read_bytes if named else lambda data=data: data
            result = attempt(read, form)
            if isinstance(result, str):
                reason = result.encode(errors="replace")
                answers.write(ANSWER.pack(False, len(reason), 0, 0) + reason)
            else:
                answers.write(ANSWER.pack(True, result.pixels.nbytes, result.width, result.height))
                answers.write(np.ascontiguousarray(result.pixels).data)
                answers.write(result.likeness)
        answers.flush()


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
