"""Say what a grid with seeds: auto trains next: from the cells that its last step asked for to this step's file.

How it grows is in winnow/answers/growth.py: validation accuracies choose, and trainings with fresh seeds judge, as many
as winnow/answers/procedure.py wants.
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

from winnow import cli
from winnow.answers import growth, outcomes, procedure
from winnow.answers.outcomes import Outcomes
from winnow.files import InputError, write_json
from winnow.training import protocols
from winnow.workflow import grid
from winnow.workflow.grid import Cell


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    previous = growth.read(arguments.previous) if arguments.previous else None
    cells = growth.asked(spec["grid"], previous)
    found: growth.Step
    if previous and previous["places"]:
        results = Outcomes(arguments.results)
        found = {**previous, **judged(spec, previous["places"], previous["cells"], cells, results)}
    else:
        timed = grid.latencies(spec["grid"], cells) if spec["measure"] == "latency_ms" else []
        found = compared(spec, previous, cells, Outcomes(arguments.results, timed))
    write_json(arguments.output, {**found, "spec": spec})
    said = f"{len(found['asked'])} cells are asked for" if found["asked"] else "done"
    print(f"{spec['experiment']}: {said}", file=sys.stderr)


def compared(
    spec: Mapping[str, Any], previous: growth.Step | None, cells: Sequence[Cell], results: Outcomes
) -> growth.Step:
    """The step after trainings that choose: the next rung, or the finalists and the first trainings that judge."""
    experiment = spec["grid"]
    for cell in cells:
        if results.finished(cell) and results.metrics(cell)["val_accuracy"] is None:
            raise InputError(
                f"{cell.path} has no validation accuracy to choose by: give {cell.dataset} validation images"
            )
    rung = previous["rung"] if previous else growth.first_rung(experiment)
    networks = growth.networks(experiment)
    if rung:
        networks = [cell for cell in networks if growth.shortened(cell, rung) in cells]
    beside = grid.beside(experiment)
    candidates = results.candidates(networks, growth.choosing_seeds(experiment), spec["measure"], rung, beside)
    trained = len(cells) + (previous["compared"] if previous else 0)
    rows = [row for row in previous["candidates"] if row["reason"]] if previous else []
    if rung and rung != growth.RUNGS[-1]:
        staying = growth.better_half(candidates)
        beaten = f"not in the better half of its ratio and scope with {protocols.share(rung)} of the epochs"
        rows += [growth.row(each, None if each in staying else beaten) for each in candidates]
        following = growth.RUNGS[growth.RUNGS.index(rung) + 1]
        asked = growth.rung_cells([each.cell for each in staying], following, beside)
        return {
            "done": False,
            "rung": following,
            "compared": trained,
            "candidates": rows,
            "asked": [cell.path for cell in asked],
            "cells": [],
            "places": [],
        }
    places, left_out = growth.places(candidates, spec["tolerance"], spec["limit"])
    return {
        **judged(spec, places, [] if rung else [cell.path for cell in cells], [], results),
        "rung": None,
        "compared": trained,
        "candidates": rows + left_out,
    }


def judged(
    spec: Mapping[str, Any],
    places: Sequence[growth.Place],
    trained: Sequence[str],
    judging: Sequence[Cell],
    results: Outcomes,
) -> growth.Judging:
    """The step after trainings that judge: those that are wanted next.

    Parameters
    ----------
    places
        Each data set and backbone with its finalists.
    trained
        The experiment's cells up to here, all of its steps together.
    judging
        Those of them that judge.
    """
    asked: dict[Cell, None] = {}
    judged_places: list[growth.Place] = []
    for place in places:
        finalists, labels, trainings = results.finalists(place, judging)
        looks = procedure.looks(spec["folds"].get(place["dataset"]))
        judgements, _ = outcomes.judged(place, finalists, labels, spec, looks)
        rows: list[growth.Finalist] = []
        for row, judgement in zip(place["finalists"], judgements, strict=True):
            cells = growth.fresh(grid.parse_path(row["cell"]), judgement.wanted)
            asked.update(dict.fromkeys([*(cell.baseline_of(place["backbone"]) for cell in cells), *cells]))
            rows.append(
                {
                    **row,
                    "seeds": len(trainings[row["cell"]]),
                    "wanted": judgement.wanted,
                    "verdict": judgement.verdict,
                }
            )
        judged_places.append({**place, "finalists": rows})
    new = [cell.path for cell in asked if cell not in judging]
    everything = [cell.path for cell in judging] + new
    named = list(dict.fromkeys([*trained, *everything]))
    if not named:
        which = (
            "that were short"
            if spec["limit"] is None
            else f"within the budget of {spec['limit']:g} ({spec['measure']})"
        )
        raise InputError(f"{spec['experiment']}: no training {which} has finished: there is no network to judge")
    return {"done": not new, "asked": everything if new else [], "cells": named, "places": judged_places}


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--previous", type=Path, nargs="?", metavar="FILE", help="the last step's file")
    cli.add_results(result)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="this step's file")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
