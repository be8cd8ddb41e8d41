"""Say which of a data set's images train, which choose and which judge. Needs the data set's manifest and index; makes
the split, or one of its folds: a table of images and their parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.data import splits
from winnow.files import read_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    parts = splits.assign(spec["dataset"], splits.Images.of_store(arguments.dataset), spec["fold"])
    counts = splits.write(arguments.output, parts, read_json(arguments.dataset / "manifest.json"), spec)
    print(f"images: {counts}, {parts.count(None)} left out")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--dataset", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
