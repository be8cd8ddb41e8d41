"""Take from an experiment's recommendation which cells to export, and what is answered of them: from
recommendation.json to chosen.json."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypedDict

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.files import InputError, read_json, write_json
from winnow.workflow import grid


def main(arguments: argparse.Namespace) -> None:
    chosen = cells(arguments.recommendation)
    write_json(arguments.output, {"chosen": chosen, "spec": arguments.spec})
    for each in chosen:
        print(each["cell"])


class Chosen(TypedDict):
    """A cell to export, and what is answered of its data set and backbone."""

    dataset: str
    backbone: str
    cell: str
    answer: dict[str, Any] | None


def cells(path: Path) -> list[Chosen]:
    """One cell for each data set and backbone that has one to recommend, with what is answered of it.

    Raises
    ------
    InputError
        If there is none, or what stands there is no list of cells with their data sets and backbones.
    """
    recommendation = read_json(path)
    try:
        chosen = [{name: each[name] for name in ("dataset", "backbone", "cell")} for each in recommendation["chosen"]]
        answers = {(each["dataset"], each["backbone"]): each for each in recommendation["answer"]}
        parsed = [grid.parse_path(each["cell"]) for each in chosen]
        pairs = [(each["dataset"], each["backbone"]) for each in chosen]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} names no cells to export ({error}): delete it and run again to make it anew"
        ) from None
    if not chosen:
        raise InputError(f"{path} recommends no cell: there is nothing to export until some have finished")
    # A control's network is chosen for the backbone that it is held against.
    strange = [pair for pair, cell in zip(pairs, parsed, strict=True) if not _fits(cell, *pair)]
    if strange or len(set(pairs)) < len(pairs):
        raise InputError(f"{path} names cells that are not one for each data set and backbone: {pairs}")
    return [
        {"dataset": each["dataset"], "backbone": each["backbone"], "cell": each["cell"], "answer": answers.get(pair)}
        for each, pair in zip(chosen, pairs, strict=True)
    ]


def _fits(cell: grid.Cell, dataset: str, backbone: str) -> bool:
    return cell.dataset == dataset and (cell.backbone == backbone or cell.criterion == grid.UNPRUNED)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--recommendation", type=Path, required=True, metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
