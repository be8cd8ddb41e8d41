"""Stage programs, run in this process: as a job runs them, less the seconds of importing torch; or to be killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data import splits
from winnow.data.store import Entry, write_store
from winnow.files import canonical_json

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name: str) -> types.ModuleType:
    """``scripts/{name}.py`` as a module: its ``parser`` and its ``main``."""
    place = importlib.util.spec_from_file_location(f"program_{name}", SCRIPTS / f"{name}.py")
    program = importlib.util.module_from_spec(place)
    place.loader.exec_module(program)
    return program


def run(name: str, spec: dict[str, Any] | None, *arguments: object) -> None:
    """Run ``scripts/{name}.py`` with a spec, None for one that takes none, and further arguments.

    Its errors come out as exceptions.
    """
    program = load(name)
    options = [] if spec is None else ["--spec", canonical_json(spec)]
    program.main(program.parser().parse_args([*options, *map(str, arguments)]))


def stored(
    directory: Path, images: np.ndarray, labels: Sequence[int], parts: Sequence[str | None], size: int | None = None
) -> None:
    """A store of (N, S, S, 3) uint8 images of classes p, q, ... in a folder; beside it its split, folder.parquet."""
    side = images.shape[1]
    entries = (Entry(str(row), label, None, None, side, side) for row, label in enumerate(labels))
    manifest = {"classes": list("pqrstuvwxyz"[: max(labels) + 1]), "store_size": side, "image_size": size or side}
    manifest = write_store(directory, zip(entries, images, strict=True), manifest | {"spec": {}})
    splits.write(directory.with_suffix(".parquet"), parts, manifest, {})


def dataset(directory: Path) -> list[object]:
    """The options of a program that reads what :func:`stored` wrote."""
    return ["--dataset", directory, "--split", directory.with_suffix(".parquet")]


def short_of_memory(batches_of: Callable, room: int, asked: list[int]) -> Callable:
    """``passes.batches_of`` where memory runs out amid a pass in batches of more than ``room`` images."""

    def limited(store, rows, manifest, device, batch):
        asked.append(batch)
        for number, found in enumerate(batches_of(store, rows, manifest, device, min(batch, room + 1))):
            if number and batch > room:
                raise MemoryError
            yield found

    return limited


def cell(folder: Path, keep: bool = True) -> list[Path]:
    """A cell's files in a folder, with those of its network where it is kept, as a rule names them."""
    names = ("metrics.json", "history.parquet", "predictions.parquet", "mask.parquet")
    return [folder / name for name in (*names, *(("model.safetensors", "model.json") if keep else ()))]


def signalled(command: list[object], checkpoint: Path, number: signal.Signals) -> int:
    """Run a program, send it a signal when it has written its checkpoint anew, and return its exit status."""

    def written() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    before = written()
    with subprocess.Popen(list(map(str, command))) as process:
        while written() == before and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, number)
    return process.returncode
