"""Measure what exported networks lose on corrupted test images. Needs an experiment's exported folders, the unpruned
networks and their data sets; makes corruptions.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import robustness
from winnow.files import read_json, write_json
from winnow.runtime import devices
from winnow.workflow import grid


def main(arguments: argparse.Namespace) -> None:
    devices.lease(0)
    results, found = arguments.results, []
    for each in read_json(arguments.chosen)["chosen"]:
        cell, place = each["cell"], {name: each[name] for name in ("dataset", "backbone")}
        unpruned = grid.parse_path(cell).baseline_of(each["backbone"])
        split = read_json(results / "cells" / cell / "metrics.json")["split"]
        store = Store.open(results / "datasets" / each["dataset"])
        measured = robustness.measured(
            results / "models" / unpruned.path,
            arguments.models / "-".join(place.values()),
            store,
            Split.open(results / "splits" / each["dataset"] / f"{split}.parquet", store),
            devices.threads(),
        )
        found.append(place | measured)
    write_json(arguments.output, {"models": found, "spec": arguments.spec})


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--chosen", type=Path, required=True, metavar="FILE", help="an experiment's chosen.json")
    cli.add_results(result)
    result.add_argument("--models", type=Path, required=True, metavar="DIR", help="the experiment's exported folders")
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="corruptions.json")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
