"""Download an archive. Needs the network, a mirror or a file placed by hand; makes the archive, checked against its
digest."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.data import downloads


def main(arguments: argparse.Namespace) -> None:
    placed = arguments.place / arguments.output.name
    downloads.download(arguments.spec["url"], arguments.output, arguments.spec["digest"], placed=placed)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    result.add_argument(
        "--place",
        type=Path,
        default=Path("downloads"),
        metavar="DIR",
        help="where archives placed by hand are looked for first (default: %(default)s)",
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
