"""Choose which of an experiment's networks are worth training for longer: from the metrics.json of short trainings and
the previous rung's file to this rung's.

The rule is in winnow/answers/screening.py; it looks at validation accuracies and sizes only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.answers import screening, summary
from winnow.files import InputError, write_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    previous = screening.read(arguments.previous) if arguments.previous else None
    metrics = {}
    for cell in screening.rung_cells(screening.left(spec["grid"], previous), spec["rung"]):
        path = arguments.results / "cells" / cell.path / "metrics.json"
        metrics[cell] = summary.read_metrics(path)
        if metrics[cell]["status"] == "finished" and metrics[cell]["val_accuracy"] is None:
            raise InputError(f"{path} has no validation accuracy to screen by: give {cell.dataset} validation images")
    found = screening.record(spec["grid"], spec["rung"], metrics, spec["tolerance"], previous)
    write_json(arguments.output, found | {"spec": spec})
    print(
        f"{spec['experiment']}, {spec['rung']}: {len(found['survivors'])} of {len(found['candidates'])} networks stay",
        file=sys.stderr,
    )


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--previous", type=Path, nargs="?", metavar="FILE", help="the previous rung's file")
    cli.add_results(result)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="this rung's file")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
