"""Give an experiment's cells to MLflow, a run each: parameters, metrics, history as steps, metrics.json and
mask.parquet. They go where MLFLOW_TRACKING_URI says, or into a store of their own; which run is which cell's is written
beside it.

Where a server has a run of the very same metrics already, that one is the cell's.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.answers import growth, tracking
from winnow.files import atomic_folder, write_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    cells = growth.experiment_cells(spec["grid"], arguments.growth)
    folders = {cell.path: arguments.results / "cells" / cell.path for cell in cells}
    uri = os.environ.get(tracking.URI)
    with atomic_folder(arguments.store) as store:
        tracker = tracking.remote(uri) if uri else tracking.local(store, arguments.store)
        runs = tracker.track(spec["experiment"], folders)
    write_json(
        arguments.output, {"uri": uri or f"sqlite:///{arguments.store / tracking.STORE}", "runs": runs, "spec": spec}
    )
    print(f"{len(runs)} runs in {uri or arguments.store}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    cli.add_results(result)
    growth.add_argument(result)
    result.add_argument("--store", type=Path, required=True, metavar="FOLDER", help="empty where a server has the runs")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
