"""Train a trunk: what cells begin with that prune what they have trained. Needs a data set's store, a split, a backbone
and, where the first phase begins with pruning, the scores of the pretrained backbone, and its moments, if the cut is
repaired by them. Makes trunk.safetensors, history.parquet, mask.parquet and trunk.json."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli, tables
from winnow.files import InputError
from winnow.importance import budgets, masks
from winnow.networks import units
from winnow.training import cells, judging, loop, protocols, trunks
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    bench = cells.open_bench(arguments)
    spec, clock = arguments.spec, bench.clock
    trunk, recipe = spec["trunk"], bench.recipe
    mask = first_mask(bench) if Fraction(trunk["share"]) else None
    keep, rank = (None, None) if mask is None else (mask.keep, mask.rank)
    precision = precision_for(recipe["precision"], bench.lease.device, bench.unpruned_cost[1])

    def attempt(micro_batch: int) -> tuple[loop.Training | None, str | None]:
        images = bench.images
        network = bench.begun(keep, "inherited", trunk["seed"])
        checkpoint = bench.checkpoint(precision, arguments.scores, arguments.moments, arguments.rate)
        clock.lap("load")
        try:
            return loop.train(
                *(network, images, *bench.rows(), recipe, trunk["seed"], precision, micro_batch, checkpoint),
                knows=protocols.FITTED in bench.repairs,
            ), None
        except judging.Diverged as divergence:
            return None, str(divergence)

    (trained, reason), micro_batch = cells.attempted(bench, recipe["batch_size"], attempt)
    clock.lap("train")
    if trained is None:
        print(f"DIVERGED: {reason}")
    else:
        clock.move("train", "evaluate", trained.evaluation_seconds)
        micro_batch = loop.fewest(micro_batch, trained.micro_batch)
    trunks.write(
        arguments.output,
        trunks.Trunk(keep, rank, trained, reason, micro_batch, clock.seconds()),
        bench.mask(cells.Before().pruned(keep, rank)),
        bench.surroundings(precision),
        spec,
    )
    bench.working_file.unlink(missing_ok=True)


def first_mask(bench: cells.Bench) -> masks.Mask:
    """What is pruned before any training."""
    spec, backbone = bench.arguments.spec, bench.backbone
    scores, prices = bench.arguments.scores, bench.arguments.prices
    if scores is None:
        raise InputError("this trunk begins with pruning: give the backbone's scores with --scores")
    mask = masks.mask(
        units.named(backbone.manifest["layers"], backbone.channels)[0],
        tables.read_table(scores, "scores")["score"].to_numpy(),
        spec["trunk"]["scope"],
        Fraction(spec["trunk"]["share"]),
        spec["min_filters"],
        spec["trunk"]["round_to"],
        last=False,
        costs=prices and budgets.Costs.read(prices, backbone.channels),
    )
    print(f"{np.count_nonzero(mask.keep)} of {mask.keep.size} filters stay")
    return mask


def parser() -> argparse.ArgumentParser:
    result = cells.parser(__doc__, trunks.FILES)
    result.add_argument("--scores", type=Path, nargs="?", metavar="FILE", help="of the backbone as it was pretrained")
    cells.add_moments(result)
    cells.add_rate(result)
    cells.add_prices(result)
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
