"""Answer how small the network can be: from an experiment's summary.parquet, its cells' test predictions and its data
sets' classes to recommendation.parquet, recommendation.json and recommendation.md.

The smallest network within the tolerance is chosen on validation; the test images say whether it holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import pandas as pd

from winnow import cli, tables
from winnow.answers import growth, outcomes, preference, procedure, summary, verdict
from winnow.answers.outcomes import Outcomes
from winnow.files import atomic_path, write_json
from winnow.workflow import grid
from winnow.workflow.grid import Cell

QUESTIONS = ("verdicts", "ladder", "claims")


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    frame = summary.read(arguments.summary)
    cells = growth.experiment_cells(spec["grid"], arguments.growth)
    timed = grid.latencies(spec["grid"], cells) if spec["measure"] == "latency_ms" else []
    results = Outcomes(arguments.results, timed)
    record = growth.read(arguments.growth) if arguments.growth else None
    chosen = record["places"] if record else choices(spec, results)
    judging = growth.judging(spec["grid"], cells)
    places = [judged(spec, place, judging, frame, results) for place in chosen]
    question = spec | {
        "choosing": growth.choosing_seeds(spec["grid"]),
        "judging": None if record else growth.judging_seeds(spec["grid"]),
    }
    answer = verdict.recommend(frame, places, question)
    if record:
        answer["lines"].append(growth.sentence(record))
        answer["notes"] += [growth.NOTE] * bool(spec["grid"]["screening"])
    if remark := summary.mixed_versions(map(results.metrics, cells)):
        answer["notes"].append(remark)
    chosen = [
        {name: row[name] for name in ("dataset", "backbone", "cell", "verdict")} | {"network": verdict.describe(row)}
        for row in answer["chosen"]
    ]

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
        | {"answer": answer["answer"], "chosen": chosen, "spec": spec},
    )
    print("\n".join(answer["lines"]), file=sys.stderr)


def choices(spec: Mapping[str, Any], results: Outcomes) -> list[dict[str, Any]]:
    """What validation chooses in a grid that does not grow, as a step of one that does says it."""
    experiment = spec["grid"]
    found = []
    for dataset, backbone in dict.fromkeys((cell.dataset, cell.backbone) for cell in growth.networks(experiment)):
        networks = [
            cell for cell in growth.networks(experiment) if (cell.dataset, cell.backbone) == (dataset, backbone)
        ]
        candidates = results.candidates(networks, growth.choosing_seeds(experiment), spec["measure"])
        choice = growth.choose(there, spec["tolerance"], spec["limit"], claim=True)
        found.append(growth.place(dataset, backbone, choice, spec["limit"] is not None))
    return found


def judged(
    spec: Mapping[str, Any], place: Mapping[str, Any], cells: Sequence[Cell], frame: pd.DataFrame, results: Outcomes
) -> verdict.Place:
    """The finalists of a data set and backbone with what was judged of them."""
    dataset = place["dataset"]
    folds = spec["folds"].get(dataset)
    looks = procedure.looks(folds) if growth.grows(spec["grid"]) else (len(growth.judging_seeds(spec["grid"])),)
    finalists, labels, trainings = results.finalists(place, cells)
    judgements, between = outcomes.judged(place, finalists, labels, spec | {"looks": looks})
    rows = {preference.name_of(row): row for row in summary.records(frame)}
    networks: dict[int, verdict.Network] = {}
    for number, (chosen, finalist, judgement) in enumerate(zip(place["finalists"], finalists, judgements, strict=True)):
        if np.isnan(judgement.drop.drop):
            continue
        done = [cell for cell in trainings[finalist.name] if results.finished(cell)]
        best = max(done, key=lambda cell: (results.metrics(cell)["val_accuracy"], -cell.seed))
        row = rows[dataclasses.replace(best, seed=0).path] | {"val_drop": chosen["drop"]}
        sides = map(outcomes.accuracy, (finalist.pruned, finalist.baseline))
        networks[number] = verdict.Network(row, best.path, judgement, *sides)
    used = {cell for number in networks for cell in trainings[place["finalists"][number]["cell"]]}
    # The proposal; where nothing is known of it, as all its trainings diverged, the next larger one.
    proposal = next((networks[number] for number in range(place["proposal"] or 0, -1, -1) if number in networks), None)
    return verdict.Place(
        dataset,
        place["backbone"],
        list(networks.values()),
        proposal or next(iter(networks.values()), None),
        networks.get(place["rival"]),
        between,
        len(labels),
        len(used | {cell.baseline for cell in used}),
        folds,
    )


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the experiment's summary.parquet")
    cli.add_results(result)
    growth.add_argument(result)
    result.add_argument("--output", action=cli.Folder, required=True, help="where the three files go")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
