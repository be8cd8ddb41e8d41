"""Compare two folders of results: which verdicts changed, which cells, and why. Needs the two folders, before and
after; prints, and writes the whole of it as JSON where it is asked to."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from pathlib import Path

from winnow import cli
from winnow.answers import runs
from winnow.files import write_json


def main(arguments: argparse.Namespace) -> None:
    # A terminal that has no "→" still gets its lines.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    comparison = runs.compare(runs.Run(arguments.before), runs.Run(arguments.after))
    print("\n".join(runs.lines(comparison)))
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(comparison))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("before", type=cli.results, metavar="BEFORE", help="a folder of results")
    result.add_argument("after", type=cli.results, metavar="AFTER", help="another one")
    result.add_argument("--json", type=Path, metavar="FILE", help="every cell, not the first few of each kind")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
