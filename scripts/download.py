"""Download an archive. Needs the network, a mirror or a file; makes the archive, checked against its digest."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli, downloads


def main(arguments: argparse.Namespace) -> None:
    downloads.download(arguments.spec["url"], arguments.output, arguments.spec["digest"])


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
