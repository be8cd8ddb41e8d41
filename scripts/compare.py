"""Compare two networks on photographs without labels. Needs two kept networks and a folder; says on how many of them
they disagree and how far apart their accuracies can be, and makes a page with those photographs to label. With their
labels it says how much less often the second network is right.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from winnow import cli
from winnow.data import folders
from winnow.exports import comparison, prediction
from winnow.files import InputError, atomic_path
from winnow.runtime.counting import Count


def main(arguments: argparse.Namespace) -> None:
    first, second = (prediction.load(place, arguments.onnx and place.is_dir()) for place in arguments.models)
    models = first, second
    images = [(file.name, file.path) for file in folders.images(arguments.photographs)]
    if not images:
        raise InputError(f"{arguments.photographs} has no image in it")
    count = Count(len(images), "photographs")
    compared = comparison.compare(models, sorted(images), os.cpu_count() or 1, arguments.dataset, count.advance)
    count.close()
    counts = comparison.labelled(arguments.labels, compared) if arguments.labels else None
    for name, reason in compared.unreadable:
        print(f"{name}: {reason}", file=sys.stderr)
    names = str(arguments.models[0]), str(arguments.models[1])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    print(f"A: {names[0]}\nB: {names[1]}")
    for line in [*comparison.sentences(compared, counts), *comparison.cautions(compared)]:
        print(line)
    if counts is None and compared.disagreeing:
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(comparison.page(compared, models, names, arguments.most), encoding="utf-8")
        shown = min(arguments.most, len(compared.disagreeing))
        print(f"{arguments.output}: {shown} photographs to label, then: --labels labels.csv")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("models", type=Path, nargs=2, metavar="MODEL", help="A and B: exported folders, or files")
    result.add_argument("photographs", type=Path, metavar="FOLDER", help="of photographs, without labels")
    result.add_argument("--onnx", action="store_true", help="of folders take model.onnx, with onnxruntime")
    result.add_argument(
        "--labels", type=Path, metavar="FILE", help="what the page has saved, or a CSV with file, label"
    )
    result.add_argument("--dataset", action=cli.Folder, help="a store, results/datasets/NAME: leave its images out")
    result.add_argument(
        "--output", type=Path, default=Path("comparison.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    result.add_argument(
        "--most", type=int, default=comparison.MOST, metavar="N", help="photographs on it (default: %(default)s)"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
