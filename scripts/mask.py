"""Turn one criterion's scores into a mask. Needs the table of scores and, for a budget, what the network costs by its
widths and the backbone's channel table; makes the table of the mask."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli, tables
from winnow.importance import budgets, masks
from winnow.importance.scopes import BUDGETS, share_of


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    scores = tables.read_table(arguments.scores, "scores")
    costs = None
    if spec["scope"] in BUDGETS and arguments.prices and arguments.backbone:
        channels = tables.read_table(arguments.backbone / "channels.parquet", "channels")
        costs = budgets.Costs.read(arguments.prices, channels)
    result = masks.mask(
        scores["layer"].to_numpy(zero_copy_only=False),
        scores["score"].to_numpy(),
        spec["scope"],
        spec["ratio"],
        spec["min_filters"],
        spec["round_to"],
        costs=costs,
    )
    removed = int(np.count_nonzero(~result.keep))
    provenance = {
        "spec": spec,
        "requested": result.requested,
        "achieved": result.achieved,
        "removed": removed,
        "units": result.keep.size,
    }
    rows = {"layer": scores["layer"], "filter": scores["filter"], "keep": result.keep, "rank": result.rank}
    tables.write_table(arguments.output, rows, "mask", provenance)
    share = f"asked {result.requested:g} of the {share_of(spec['scope'])}, achieved {result.achieved:.4f}"
    print(f"{removed} of {result.keep.size} filters go: {share}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--scores", type=Path, required=True, metavar="FILE")
    result.add_argument("--prices", type=Path, nargs="?", metavar="FILE", help="what a budget is kept by")
    result.add_argument("--backbone", action=cli.Folder, nargs="*", help="whose channel table goes with them")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
