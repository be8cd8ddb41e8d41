"""Say what images show. Needs a kept network: an exported folder, a cell's folder, a .safetensors or an .onnx file;
prints the likeliest classes of each image, or makes a CSV of a folder's.

It needs nothing else of the workflow. A CSV that was broken off is taken up again by the same command. Images that
cannot be read are named, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow import cli
from winnow.data import folders
from winnow.exports import prediction, sheets
from winnow.files import InputError
from winnow.runtime.counting import Count

TOP = 5


def main(arguments: argparse.Namespace) -> None:
    images = named(arguments.images)
    if arguments.output is not None and arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a folder: --output names a file")
    model = prediction.load(arguments.model, arguments.onnx)
    if arguments.output is not None:
        unreadable = written(arguments.output, model, images, arguments.all, arguments.restart)
    else:
        table = arguments.all or arguments.images[0].is_dir()
        unreadable = printed(model, images, table, arguments.all)
    for name, reason in unreadable:
        print(f"{name}: {reason}", file=sys.stderr)
    if unreadable:
        print(f"{len(unreadable)} of {len(images)} images could not be read", file=sys.stderr)
        sys.exit(1)


def written(
    output: Path, model: prediction.Model, images: list[tuple[str, Path]], every_class: bool, restart: bool
) -> list[tuple[str, str]]:
    """Make the CSV, or what is missing of it; the images that could not be read, each with its reason."""
    with sheets.Sheet(output, model, images, every_class, restart) as sheet:
        if sheet.done:
            print(f"{sheet.partial} has {sheet.done} of {len(images)} images: going on from there", file=sys.stderr)
        count = Count(len(images), "images", sheet.done)
        for _, answer in answers(model, images[sheet.done :]):
            sheet.add(answer)
            count.advance(f"{len(sheet.unreadable)} unreadable" if sheet.unreadable else "")
        count.close()
    return sheet.unreadable


def printed(
    model: prediction.Model, images: list[tuple[str, Path]], table: bool, every_class: bool
) -> list[tuple[str, str]]:
    """Print the CSV, or each image's likeliest classes; the images that could not be read, each with its reason."""
    unreadable = []
    options: dict[str, Any] = {"encoding": "utf-8", "newline": ""} if table else {}
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace", **options)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if table:
        writer.writerow(sheets.columns(model, every_class))
    for name, answer in answers(model, images):
        if isinstance(answer, str):
            unreadable.append((name, answer))
        if table:
            writer.writerow(sheets.row(model, name, answer, every_class))
        elif not isinstance(answer, str):
            print(f"{name}: {likeliest(model.classes, answer)}", flush=True)
    return unreadable


def answers(model: prediction.Model, images: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each image's name with the probabilities of its classes, or why there are none."""
    found = prediction.predict(model, images, lambda image: image[1].read_bytes(), os.cpu_count() or 1)
    return ((name, answer) for (name, _), answer in found)


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


def likeliest(classes: list[str], probabilities: np.ndarray) -> str:
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return ", ".join(f"{classes[number]} {probabilities[number]:.4f}" for number in order)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("model", type=Path, metavar="MODEL", help="an exported folder, a cell's folder, or a file")
    result.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files, or one folder")
    result.add_argument("--onnx", action="store_true", help="predict with onnxruntime and the folder's model.onnx")
    result.add_argument("--output", type=Path, metavar="FILE", help="write the answers as CSV")
    result.add_argument("--restart", action="store_true", help="begin anew where an earlier run has left FILE.partial")
    result.add_argument("--all", action="store_true", help="CSV with a column for every class's probability")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
