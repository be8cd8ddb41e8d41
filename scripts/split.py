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
from winnow.tables import read_table


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    manifest = read_json(arguments.dataset / "manifest.json")
    index = read_table(arguments.dataset / "index.parquet", "index")
    known = index["official"].to_pylist(), index["group"].to_pylist()
    images = splits.Images(manifest["classes"], index["label"].to_numpy(), *known)
    parts = splits.assign(spec["dataset"], images, spec["fold"])
    counts = splits.write(arguments.output, parts, manifest, spec)
    print(f"images: {counts}, {parts.count(None)} left out")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--dataset", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
