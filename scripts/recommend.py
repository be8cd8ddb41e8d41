"""Answer how small the network can be: from an experiment's summary.parquet, its cells' test predictions and its data
sets' classes to recommendation.parquet, recommendation.json and recommendation.md.

The smallest network within the tolerance is chosen on validation; the test images say whether it holds.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli, tables
from winnow.answers import predictions, screening, summary, verdict
from winnow.files import InputError, atomic_path, read_json, write_json
from winnow.workflow import grid

QUESTIONS = ("verdicts", "ladder", "claims")


def main(arguments: argparse.Namespace) -> None:
    spec, folder = arguments.spec, arguments.results / "cells"
    frame = summary.read(arguments.summary)

    @functools.cache
    def metrics(cell: grid.Cell) -> dict[str, Any]:
        return summary.read_metrics(folder / cell.path / "metrics.json")

    @functools.cache
    def predicted(cell: grid.Cell) -> dict[str, np.ndarray]:
        table = tables.read_table(folder / cell.path / "predictions.parquet", "predictions")
        return {name: table[name].to_numpy(zero_copy_only=False) for name in ("image", "label", "correct")}

    @functools.cache
    def tested(dataset: str) -> predictions.Tested:
        done = [cell for cell in cells if cell.dataset == dataset and metrics(cell)["status"] == "finished"]
        # Of each seed one: all its cells have the same images.
        return predictions.tested([predicted(cell) for cell in {cell.seed: cell for cell in reversed(done)}.values()])

    def correct(cell: grid.Cell) -> np.ndarray | None:
        if metrics(cell)["status"] != "finished":
            return None
        found = predicted(cell)
        compared = metrics(cell.baseline)["status"] == "finished"
        if compared and not np.array_equal(found["image"], predicted(cell.baseline)["image"]):
            raise InputError(
                f"{folder / cell.path / 'predictions.parquet'} is of other test images than {cell.baseline.path}:"
                " delete the older of the two cells and run again"
            )
        return tested(cell.dataset).correct(found)

    @functools.cache
    def labels(dataset: str) -> np.ndarray:
        names = read_json(arguments.results / "datasets" / dataset / "manifest.json")["classes"]
        return np.array(names)[tested(dataset).labels]

    cells = screening.experiment_cells(spec["grid"], arguments.screening)
    judge = verdict.Judge(cells, correct, labels, spec["class_margin"])
    answer = verdict.recommend(frame, judge, spec["tolerance"])
    if arguments.screening:
        record = screening.read(arguments.screening)
        answer["lines"].append(screening.sentence(record))
        answer["notes"].append(screening.NOTE)
    if remark := summary.mixed_versions(map(metrics, cells)):
        answer["notes"].append(remark)
    chosen = []
    for row in answer["chosen"]:
        done = [cell for cell in judge.seeds_of(row) if metrics(cell)["status"] == "finished"]
        best = max(done, key=lambda cell: (metrics(cell)["val_accuracy"], -cell.seed))
        said = {"network": verdict.describe(row), "verdict": row["verdict"]}
        chosen.append({"dataset": row["dataset"], "backbone": row["backbone"], "cell": best.path} | said)

    columns = tables.SCHEMAS["recommendation"].names
    rows = [{name: row.get(name, question) for name in columns} for question in QUESTIONS for row in answer[question]]
    tables.write_table(
        arguments.output / "recommendation.parquet",
        {name: [row[name] for row in rows] for name in columns},
        "recommendation",
        {"spec": spec},
    )
    with atomic_path(arguments.output / "recommendation.md") as temporary:
        temporary.write_text(verdict.markdown(answer, spec["experiment"]), encoding="utf-8")
    by_question = {name: [row for row in rows if row["question"] == name] for name in QUESTIONS}
    write_json(
        arguments.output / "recommendation.json",
        {key: answer[key] for key in ("lines", "notes")}
        | by_question
        | {name: spec[name] for name in ("experiment", "tolerance", "class_margin")}
        | {"chosen": chosen, "spec": spec},
    )
    print("\n".join(answer["lines"]), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the experiment's summary.parquet")
    cli.add_results(result)
    screening.add_argument(result)
    result.add_argument("--output", action=cli.Folder, required=True, help="where the three files go")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
