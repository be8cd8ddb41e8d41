"""Summarise an experiment: from its cells' metrics.json and predictions.parquet and, where they are timed, its
latencies to summary.parquet, summary.csv and summary.md.

One row per cell less its seed: accuracy with its 95 % interval over seeds, drop against the unpruned baseline with that
over seeds and test images, sizes. A seed whose training diverged is listed and left out of the means.
"""

from __future__ import annotations

import argparse
import sys

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli, tables
from winnow.answers import growth, summary
from winnow.answers.outcomes import Outcomes
from winnow.files import atomic_path
from winnow.training.metrics import Metrics
from winnow.workflow import grid


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    rows: list[tuple[grid.Cell, Metrics | None]] = []
    missing: list[str] = []
    cells = growth.experiment_cells(spec["grid"], arguments.growth)
    for cell in cells:
        path = arguments.results / "cells" / cell.path / "metrics.json"
        if arguments.partial and not path.exists():
            missing.append(cell.path)
            print(f"missing: {cell.path}", file=sys.stderr)
            rows.append((cell, None))
            continue
        metrics = summary.read_metrics(path)
        if metrics["status"] == "diverged":
            print(f"diverged: {cell.path}: {metrics.get('reason')}", file=sys.stderr)
        rows.append((cell, metrics))

    latencies = {}
    for name in grid.latencies(spec["grid"], cells):
        path = arguments.results / "latency" / name
        if arguments.partial and not path.exists():
            print(f"missing: latency/{name}", file=sys.stderr)
            continue
        latencies[name] = summary.read_latency(path)

    choosers = growth.choosers(spec["grid"], cells)
    beside = grid.beside(spec["grid"])
    frame = summary.summarise(rows, latencies, choosers, Outcomes(arguments.results).sides, beside)
    tables.write_table(arguments.output / "summary.parquet", frame, "summary", {"spec": spec, "missing": missing})
    with atomic_path(arguments.output / "summary.csv") as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(arguments.output / "summary.md") as temporary:
        remark = summary.mixed_versions(found for _, found in rows)
        temporary.write_text(summary.markdown(frame, spec["experiment"], len(missing), remark), encoding="utf-8")
    failed = sum(found is None or found["status"] == "diverged" for _, found in rows)
    print(f"{spec['experiment']}: {len(rows)} cells, {failed} failed, {len(frame)} rows", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    cli.add_results(result)
    result.add_argument("--output", action=cli.Folder, required=True, help="where the three files go")
    growth.add_argument(result)
    result.add_argument(
        "--partial", action="store_true", help="summarise what is there: a cell without metrics counts as failed"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
