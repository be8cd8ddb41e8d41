"""Fine-tune and judge one cell. Needs a data set's store, a backbone and a mask (none for the unpruned baseline), and a
teacher where the cell is distilled; makes metrics.json, history.parquet, predictions.parquet and, if asked to keep it,
the pruned network."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import torch

from winnow import cli
from winnow.files import InputError, read_json
from winnow.networks import backbones, models, surgery
from winnow.training import cells, loop, protocols


def main(arguments: argparse.Namespace) -> None:
    bench = cells.open_bench(arguments)
    spec, device, size = arguments.spec, bench.lease.device, bench.store.image_size
    cell, classes = spec["cell"], len(bench.store.classes)
    keep, requested, achieved = surgery.read_mask(arguments.mask, bench.backbone)

    def attempt(micro_batch: int) -> cells.Outcome:
        network = surgery.pruned(bench.backbone, keep, classes, cell["init"], cell["seed"]).to(device)
        params, macs = surgery.cost(network, size)
        precision = loop.precision_for(spec["recipe"]["precision"], device, macs)
        recipe = spec["recipe"]
        if cell["protocol"] != protocols.ONE_SHOT:
            unpruned = backbones.build(*(bench.backbone.manifest[key] for key in ("architecture", "head")), classes)
            budget = protocols.budget(cell["protocol"], recipe["epochs"], macs, surgery.cost(unpruned, size)[1])
            recipe = protocols.stretched(recipe, budget)
        checkpoint = bench.checkpoint(precision, arguments.mask, arguments.teacher)
        trained, reason, teacher = None, None, None
        try:
            if cell["protocol"] == protocols.DISTILLED:
                teacher = loop.Teacher(teaching(arguments.teacher, bench), **recipe["distillation"])
            bench.clock.lap("load")
            trained = loop.train(
                *(network, bench.images, *bench.rows(), recipe, cell["seed"], precision, micro_batch, checkpoint),
                teacher=teacher,
            )
        except loop.Diverged as divergence:
            reason = str(divergence)
        return cells.Outcome(network, params, macs, precision, requested, achieved, trained, reason)

    cells.finish(bench, attempt)


def teaching(path: Path | None, bench: cells.Bench) -> torch.nn.Module:
    """The network beside a file of the unpruned baseline, on the cell's device.

    Raises
    ------
    InputError
        If there is none, or it is of other classes.
    Diverged
        If its own training did.
    """
    if path is None:
        raise InputError("a distilled cell learns from the unpruned baseline: give one of its files with --teacher")
    if read_json(path.parent / "metrics.json")["status"] == "diverged":
        raise loop.Diverged("the training of its teacher, the unpruned baseline, diverged")
    network, description = models.load(path.parent, bench.lease.device)
    if description["classes"] != bench.store.classes:
        raise InputError(f"the network in {path.parent} knows other classes than {bench.arguments.dataset}")
    return network.to(memory_format=torch.channels_last).requires_grad_(False)


def parser() -> argparse.ArgumentParser:
    result = cells.parser(__doc__)
    result.add_argument("--mask", type=Path, nargs="?", metavar="FILE")
    result.add_argument(
        "--teacher", type=Path, nargs="?", metavar="FILE", help="a file beside the fine-tuned unpruned network"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
