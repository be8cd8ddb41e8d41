"""Draw an experiment's figures: from its summary.parquet to accuracy against ratio as SVG, PNG and Vega-Lite JSON, one
figure for each data set, backbone and scope."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli, figures, summary


def main(arguments: argparse.Namespace) -> None:
    frame = summary.read(arguments.summary)
    names = figures.file_names(frame)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for key, name in names.items():
        figures.write(figures.accuracy_against_ratio(frame, *key), arguments.output, name)
    print(f"{arguments.spec['experiment']}: {len(names)} figures", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the experiment's summary.parquet")
    result.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the figures go")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
