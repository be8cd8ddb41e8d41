"""Say what images show. Needs a kept network: an exported folder, a cell's folder, a .safetensors or an .onnx file;
prints the likeliest classes of each image, or makes a CSV of a folder's.

It needs nothing else of the workflow. Images that cannot be read are named, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from winnow import cli
from winnow.data import folders
from winnow.exports import prediction
from winnow.files import InputError, atomic_path

TOP = 5


def main(arguments: argparse.Namespace) -> None:
    images = named(arguments.images)
    as_table = arguments.output is not None or arguments.all or arguments.images[0].is_dir()
    if arguments.output is not None and arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a folder: --output names a file")
    model = prediction.load(arguments.model, arguments.onnx)
    failed: list[str] = []
    answers = prediction.predict(model, images, lambda image: image[1].read_bytes(), os.cpu_count() or 1)
    answers = reported(((name, answer) for (name, _), answer in answers), failed)
    if as_table:
        with opened(arguments.output) as file:
            write_table(file, model.classes, answers, arguments.all)
    else:
        sys.stdout.reconfigure(errors="backslashreplace")
        for name, probabilities in answers:
            if not isinstance(probabilities, str):
                print(f"{name}: {likeliest(model.classes, probabilities)}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(images)} images could not be read", file=sys.stderr)
        sys.exit(1)


def named(places: list[Path]) -> list[tuple[str, Path]]:
    """The images with their names in the answer: the files as they were given, or a folder's, below it, sorted.

    Raises
    ------
    InputError
        If there are files and folders, or several folders, or none of the folder's files is an image.
    """
    if not any(place.is_dir() for place in places):
        return [(folders.name_text(str(place)), place) for place in places]
    if len(places) > 1:
        raise InputError(f"{len(places)} places with a folder among them: give files, or one folder")
    (folder,) = places
    found = [(file.name, file.path) for file in folders.images(folder)]
    if not found:
        raise InputError(f"{folder} has no image in it")
    return sorted(found)


def reported(
    answers: Iterable[tuple[str, np.ndarray | str]], failed: list[str]
) -> Iterator[tuple[str, np.ndarray | str]]:
    """The answers as they come; of each that is a reason, the image is named on standard error and put on a list."""
    for name, answer in answers:
        if isinstance(answer, str):
            failed.append(name)
            print(f"{name}: {answer}", file=sys.stderr, flush=True)
        yield name, answer


def likeliest(classes: list[str], probabilities: np.ndarray) -> str:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return ", ".join(f"{classes[number]} {probabilities[number]:.4f}" for number in order)


@contextlib.contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """The table's file, which appears when it is complete, or standard output."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield sys.stdout
    else:
        with atomic_path(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            yield file


def write_table(
    file: TextIO, classes: list[str], answers: Iterable[tuple[str, np.ndarray | str]], every_class: bool
) -> None:
    """One row an image: file, class, its probability and, where there is none, the reason; perhaps every class's."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["file", "class", "probability", "reason", *(f"probability_{name}" for name in classes if every_class)]
    )
    for name, answer in answers:
        if isinstance(answer, str):
            writer.writerow([name, "", "", answer, *("" for _ in classes if every_class)])
        else:
            best = int(answer.argmax())
            every = (f"{value:.6g}" for value in answer if every_class)
            writer.writerow([name, classes[best], f"{answer[best]:.6g}", "", *every])


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("model", type=Path, metavar="MODEL", help="an exported folder, a cell's folder, or a file")
    result.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files, or one folder")
    result.add_argument("--onnx", action="store_true", help="predict with onnxruntime and the folder's model.onnx")
    result.add_argument("--output", type=Path, metavar="FILE", help="write the answers as CSV")
    result.add_argument("--all", action="store_true", help="CSV with a column for every class's probability")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
