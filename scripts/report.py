"""Write an experiment's report: from its summary, recommendation and figures to one HTML page that needs no network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.answers import report, screening
from winnow.files import atomic_path


def main(arguments: argparse.Namespace) -> None:
    text = report.page(arguments.experiment, arguments.results, arguments.spec, arguments.screening)
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{arguments.spec['experiment']}: {len(text.encode()) / 1e6:.1f} MB", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--experiment", action=cli.Folder, required=True, help="the experiment's files, or its folder")
    cli.add_results(result)
    screening.add_argument(result)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page to make")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
