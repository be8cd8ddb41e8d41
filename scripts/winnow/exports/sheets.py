"""A CSV of what a network says of images, which grows row by row and is taken up again where it was broken off.

Until it is whole it lies in a file beside its place, ``{name}.partial``: a first line says by what model, and of which
images, and whole rows follow. Once all are there, the rows alone become the file.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from winnow.exports import prediction
from winnow.exports.prediction import Model
from winnow.files import InputError, atomic_path, canonical_json, file_digest

COLUMNS = ("file", "class", "probability", "reason")
# What a first line says → with what the table was begun where it differs.
_SAME = {
    "model": "another model",
    "classes": "other classes",
    "preparation": "images that are prepared otherwise",
    "columns": "other columns",
    "images": "other images, or images that have changed since",
}


def columns(model: Model, every_class: bool) -> list[str]:
    """A table's header: file, class, its probability or the reason for none, and perhaps every class's probability."""
    return [*COLUMNS, *(f"probability_{name}" for name in model.classes if every_class)]


def row(model: Model, name: str, answer: np.ndarray | str, every_class: bool) -> list[str]:
    """An image's row: what :func:`winnow.exports.prediction.predict` says of it, as text."""
    if isinstance(answer, str):
        return [name, "", "", answer, *("" for _ in model.classes if every_class)]
    best = int(answer.argmax())
    every = (f"{value:.6g}" for value in answer if every_class)
    return [name, model.classes[best], f"{answer[best]:.6g}", "", *every]


class Sheet:
    """A table that is being written, as a context: one that is left early stays to be taken up again.

    Parameters
    ----------
    path
        Of the whole table. One that is there already is replaced, once the new one is whole.
    model
        What answers.
    images : (name, path) each
        In the order of the rows.
    every_class
        Whether there is a column for each class.
    restart
        Begin anew, whatever an earlier run has left.

    Attributes
    ----------
    done : int
        Rows that are there: of an earlier run at first. What it had of an unfinished batch is dropped, since what a
        network says of an image can depend, in the last digit, on what else is in its batch.
    unreadable : list of (name, reason)
        Of all rows that are there.

    Raises
    ------
    InputError
        If an earlier run has left a table of another model, of other images or with other columns, or writes one now.
    """

    def __init__(
        self, path: Path, model: Model, images: Sequence[tuple[str, Path]], every_class: bool, restart: bool = False
    ):
        self.path, self.partial = path, path.with_name(f"{path.name}.partial")
        self.done = 0
        self.unreadable: list[tuple[str, str]] = []
        self._model, self._every, self._names = model, every_class, [name for name, _ in images]
        self._step = prediction.batch_size(model.image_size)
        self._header = columns(model, every_class)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.partial, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.partial} is being written by another process") from None
            self._begin(_identity(model, images, self._header), restart)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Sheet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            self._finish()
        elif not self.done:
            self.partial.unlink()
        self._file.close()
        if kind is not None and self.done:
            said = f"{self.partial} has {self.done} of {len(self._names)} rows: the same command goes on from there"
            print(said, file=sys.stderr)

    def add(self, answer: np.ndarray | str) -> None:
        """Write the next image's row."""
        name = self._names[self.done]
        self._file.write(_line(row(self._model, name, answer, self._every)))
        self.done += 1
        if isinstance(answer, str):
            self.unreadable.append((name, answer))
        if self.done % self._step == 0:
            self._file.flush()

    def _begin(self, identity: dict[str, Any], restart: bool) -> None:
        """Go to where rows are to be added."""
        if restart:
            self._file.truncate(0)
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):  # Nothing is there, or a first line that was cut short.
            self._file.truncate(0)
            self._file.write(f"{canonical_json(identity)}\n".encode() + _line(self._header))
            self._file.flush()
            return
        try:
            said = json.loads(first)
            differs = [key for key in _SAME if said[key] != identity[key]]
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{self.partial} was not begun by this program: rename it, or --restart to replace it"
            ) from None
        if differs:
            raise InputError(
                f"{self.partial} was begun with {_SAME[differs[0]]}{_shown(said, identity, differs[0])}: "
                "give another --output, or --restart to begin anew"
            )
        self._take_up()

    def _take_up(self) -> None:
        """Count the whole rows that are there, and cut off what follows the last whole batch."""
        records, keep = _records(self._file), 0
        reasons: list[str] = []
        for fields, end in records:
            if not keep:
                if fields != self._header:
                    break
                keep = end
                continue
            if len(reasons) == len(self._names) or len(fields) != len(self._header):
                break
            if fields[0] != self._names[len(reasons)]:
                break
            reasons.append(fields[3])
            if len(reasons) % self._step == 0 or len(reasons) == len(self._names):
                keep, self.done = end, len(reasons)
        if not keep:
            raise InputError(f"{self.partial} is damaged: --restart to begin anew")
        self._file.truncate(keep)
        self._file.seek(keep)
        taken = zip(self._names[: self.done], reasons, strict=False)
        self.unreadable = [(name, reason) for name, reason in taken if reason]

    def _finish(self) -> None:
        self._file.seek(0)
        self._file.readline()
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            shutil.copyfileobj(self._file, file)
        self.partial.unlink()


def _records(file: BinaryIO) -> Iterator[tuple[list[str], int]]:
    """Each whole record from where a file is, and where it ends; a field in quotes may go over several lines."""
    record = b""
    while line := file.readline():
        record += line
        # Quotes come in pairs, within fields too.
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            try:
                yield next(csv.reader([record.decode()])), file.tell()
            except (ValueError, csv.Error):  # What a crash of the machine has left, not the end of a process.
                return
            record = b""


def _line(fields: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _identity(model: Model, images: Sequence[tuple[str, Path]], header: Sequence[str]) -> dict[str, Any]:
    """What has to be the same for two runs to make the same table."""
    found = hashlib.sha256()
    for name, path in images:
        try:
            status = os.stat(path)
            found.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            found.update(f"{name}\0\n".encode())
    identity = {
        "model": file_digest(model.path),
        "classes": model.classes,
        "preparation": [model.form.size, model.form.reading, model.image_size, model.mean, model.std],
        "columns": list(header),
        "images": [len(images), found.hexdigest()],
    }
    return json.loads(canonical_json(identity))


def _shown(said: dict[str, Any], identity: dict[str, Any], key: str) -> str:
    """Both values where they are short."""
    if key == "model":
        return f" (SHA-256 {said[key][:12]}…, this one's is {identity[key][:12]}…)"
    if key == "images":
        return f" ({said[key][0]} of them, now {identity[key][0]})"
    return ""
