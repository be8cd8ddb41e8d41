"""Turn one criterion's scores into a mask. Needs the table of scores; makes the table of the mask."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli, tables
from winnow.importance import masks


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    scores = tables.read_table(arguments.scores, "scores")
    result = masks.mask(
        scores["layer"].to_numpy(zero_copy_only=False),
        scores["score"].to_numpy(),
        spec["scope"],
        spec["ratio"],
        spec["min_filters"],
        spec["round_to"],
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
    print(f"{removed} of {result.keep.size} filters go: asked {result.requested:g}, achieved {result.achieved:.4f}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--scores", type=Path, required=True, metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
