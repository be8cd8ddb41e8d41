"""Say what a data set is, on one screen: images by class and part, what was skipped and why, copies, what looks odd.
Needs a store, and perhaps one of its splits; prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow import cli
from winnow.data import overview


def main(arguments: argparse.Namespace) -> None:
    print("\n".join(overview.of_store(arguments.dataset, arguments.split)))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--dataset", action=cli.Folder, required=True)
    result.add_argument("--split", type=Path, metavar="FILE", help="of the data set; without one, as its source has it")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
