"""Find the learning rate of a network by short trainings. Needs a data set's store, a split with validation images, a
backbone and a mask (none for the unpruned network), and moments where its cut is repaired by them. Makes a file that
says which rate its cells are trained with, and what became of each that was tried."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli
from winnow.files import InputError, write_json
from winnow.networks import surgery
from winnow.runtime.counting import say
from winnow.training import cells, judging, loop, protocols, rates
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    bench = cells.open_bench(arguments)
    spec, clock = arguments.spec, bench.clock
    cell, recipe = spec["cell"], spec["recipe"]
    rows = bench.rows()
    labels = bench.store.labels[rows[1]]
    if not labels.size:
        raise InputError(f"{cell['dataset']} has no validation images to choose a learning rate by: give it some")
    images, chance = labels.size, float(np.bincount(labels).max() / labels.size)
    keep, _, _ = surgery.read_mask(arguments.mask, bench.backbone)
    precision = precision_for(recipe["precision"], bench.lease.device, bench.unpruned_cost[1])
    short = protocols.stretched(recipe, rates.epochs(recipe))
    normalised = loop.normalises(bench.unpruned)

    def attempt(micro_batch: int) -> list[rates.Try]:
        begun = bench.begun(keep, cell["init"], cell["seed"])
        checkpoint = bench.checkpoint(precision, arguments.mask, arguments.moments)
        written = checkpoint.read()
        tries = [rates.Try(**each) for each in written["before"]["tries"]] if written else []
        clock.lap("load")
        while rate := rates.wanted(tries, recipe, normalised, images, chance):
            # What a killed search has behind it is taken up with the training that it was killed in.
            checkpoint.before = {"phase": len(tries), "tries": [dataclasses.asdict(each) for each in tries]}
            say(f"learning rate {rate:g}")
            try:
                trained = loop.train(
                    *(copy.deepcopy(begun), bench.images, *rows, short | {"learning_rate": rate}),
                    *(cell["seed"], precision, micro_batch, checkpoint),
                )
                last = trained.history[-1]
                tries.append(rates.Try(rate, last["val_accuracy"], last["val_loss"]))
            except judging.Diverged as divergence:
                tries.append(rates.Try(rate, None, None, str(divergence)))
            clock.lap("train")
        return tries

    tries, micro_batch = cells.attempted(bench, recipe["batch_size"], attempt)
    found = rates.best(tries, images, chance)
    print(f"taken: learning rate {found.learning_rate:g}")
    rate: rates.Rate = {
        "learning_rate": found.learning_rate,
        "epochs": short["epochs"],
        "val_images": images,
        "chance": chance,
        "tries": [dataclasses.asdict(each) for each in tries],
        "micro_batch": micro_batch,
        **bench.surroundings(precision),
        "seconds": clock.seconds(),
        "spec": spec,
    }
    write_json(arguments.output[rates.RATE], rate)
    bench.working_file.unlink(missing_ok=True)


def parser() -> argparse.ArgumentParser:
    result = cells.parser(__doc__, rates.FILES)
    result.add_argument("--mask", type=Path, nargs="?", metavar="FILE")
    cells.add_moments(result)
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
