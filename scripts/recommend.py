"""Answer how small the network can be: from an experiment's summary.parquet, its cells' test predictions and its data
sets' classes to recommendation.parquet, recommendation.json and recommendation.md.

The smallest network within the tolerance is chosen on validation; the test images say whether it holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli, tables
from winnow.answers import growth, summary, verdict
from winnow.answers.outcomes import Outcomes
from winnow.files import atomic_path, write_json
from winnow.workflow import grid


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    frame = summary.read(arguments.summary)
    cells = growth.experiment_cells(spec["grid"], arguments.growth)
    timed = grid.latencies(spec["grid"], cells) if spec["measure"] == "latency_ms" else []
    results = Outcomes(arguments.results, timed)
    record = growth.read(arguments.growth) if arguments.growth else None
    if record:
        places = record["places"]
    else:
        networks, choosing = growth.networks(spec["grid"]), growth.choosing_seeds(spec["grid"])
        candidates = results.candidates(networks, choosing, spec["measure"], beside=grid.beside(spec["grid"]))
        places, _ = growth.places(candidates, spec["tolerance"], spec["limit"], claim=True)
    judging = growth.judging(spec["grid"], cells)
    judged = [verdict.judged(place, judging, spec, frame, results) for place in places]
    answer = verdict.recommend(frame, judged, spec)
    if record:
        answer["lines"].append(growth.sentence(record))
        answer["notes"] += [growth.NOTE] * bool(spec["grid"]["screening"])
    if remark := summary.mixed_versions(map(results.metrics, cells)):
        answer["notes"].append(remark)
    chosen = [
        {
            "dataset": row["dataset"],
            "backbone": row["backbone"],
            "cell": row["cell"],
            "verdict": row["verdict"],
            "network": verdict.describe(row),
        }
        for row in answer["chosen"]
    ]

    columns = tables.SCHEMAS["recommendation"].names
    # The question's is the one column that a row has no value of.
    of_question: dict[str, Sequence[Mapping[str, Any]]] = {
        "verdicts": answer["verdicts"],
        "ladder": answer["ladder"],
        "claims": answer["claims"],
    }
    by_question = {
        question: [{name: question if name == "question" else row[name] for name in columns} for row in found]
        for question, found in of_question.items()
    }
    rows = [row for found in by_question.values() for row in found]
    tables.write_table(
        arguments.output / "recommendation.parquet",
        {name: [row[name] for row in rows] for name in columns},
        "recommendation",
        {"spec": spec},
    )
    with atomic_path(arguments.output / "recommendation.md") as temporary:
        temporary.write_text(verdict.markdown(answer, spec["experiment"]), encoding="utf-8")
    write_json(
        arguments.output / "recommendation.json",
        {
            "answer": answer["answer"],
            "lines": answer["lines"],
            "notes": answer["notes"],
            **by_question,
            "experiment": spec["experiment"],
            "tolerance": spec["tolerance"],
            "class_margin": spec["class_margin"],
            "chosen": chosen,
            "spec": spec,
        },
    )
    print("\n".join(answer["lines"]), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the experiment's summary.parquet")
    cli.add_results(result)
    growth.add_argument(result)
    result.add_argument("--output", action=cli.Folder, required=True, help="where the three files go")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
