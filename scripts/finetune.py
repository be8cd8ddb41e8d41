"""Fine-tune and judge one cell. Needs a data set's store, a split, a backbone and a mask (none for the unpruned
baseline), a teacher where the cell is distilled, and moments where its cut is repaired by them; in place of mask and
moments a trunk where the cell prunes what it has trained. Makes metrics.json, history.parquet, predictions.parquet,
mask.parquet (which filters stay) and, where they are asked for, the network's model.safetensors and model.json.

A cell is trained in phases, most in one. Each but the first prunes what the phase before has trained, by what the
network's filters do then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import torch

from winnow import cli, tables
from winnow.files import InputError
from winnow.networks import models, surgery
from winnow.runtime.counting import say
from winnow.training import cells, distillation, judging, loop, protocols, trunks
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    bench = cells.open_bench(arguments)
    spec, size = arguments.spec, bench.store.image_size
    cell, recipe = spec["cell"], bench.recipe
    alternates = protocols.alternates(cell["protocol"])
    trunk = trunk_of(bench) if alternates else None
    begun, requested = beginning(bench, trunk)
    unpruned_macs = bench.unpruned_cost[1]
    precision = precision_for(recipe["precision"], bench.lease.device, unpruned_macs)
    described = (arguments.trunk, trunks.MANIFEST), (arguments.teacher, models.DESCRIPTION)
    inputs = [arguments.mask, arguments.moments, arguments.rate]
    inputs += [folder and folder / name for folder, name in described]

    def attempt(micro_batch: int) -> cells.Outcome:
        images = bench.images
        before = begun
        # What a trunk has behind it is repaired.
        network = (bench.network if alternates else bench.begun)(begun.kept, cell["init"], cell["seed"])
        params, macs = surgery.cost(network, size)
        epochs = protocols.budget(cell["protocol"], recipe["epochs"], macs, unpruned_macs)
        phases = protocols.phases(cell["protocol"], cell["ratio"], epochs)
        checkpoint = bench.checkpoint(precision, *inputs)
        trained = None if trunk is None else trunk.trained
        reason, teacher = None, None
        written = checkpoint.read() if alternates else None
        if written:
            before = cells.Before(**written["before"])
            micro_batch = loop.fewest(micro_batch, before.micro_batch)
            network = bench.network(before.kept, cell["init"], cell["seed"])
        first = before.phase if written or trunk is None else 1
        bench.clock.lap("load")
        try:
            if trunk and trunk.reason:
                raise judging.Diverged(trunk.reason)
            if protocols.plain(cell["protocol"]) == protocols.DISTILLED:
                teacher = distillation.Teacher(teaching(arguments.teacher, bench), **recipe["distillation"])
                bench.clock.lap("load")
            for phase in range(first, len(phases)):
                ratio, epochs = phases[phase]
                if phase > before.phase:
                    # Here, and not above: cells of one phase depend on none of it.
                    from winnow.training import phases as between

                    assert trained is not None  # there was a phase before
                    last = phase + 1 == len(phases)
                    network, mask = between.cut(network, trained, before, ratio, last, bench)
                    behind = trained.history, trained.evaluation_seconds, trained.resumed, trained.micro_batch
                    before = cells.Before(phase, *behind).pruned(mask.keep, mask.rank, mask.achieved)
                    stay = f"{np.count_nonzero(mask.keep)} of {mask.keep.size} filters stay"
                    say(f"phase {phase + 1} of {len(phases)}: {stay}")
                    bench.clock.lap("measure")
                if alternates:
                    checkpoint.before = vars(before)
                trained = loop.train(
                    *(network, images, *bench.rows(), protocols.stretched(recipe, epochs)),
                    *(cell["seed"], precision, micro_batch, checkpoint),
                    teacher=teacher,
                    epochs_before=len(before.history),
                    knows=protocols.FITTED in bench.repairs and not alternates,
                )
                trained = before.added_to(trained)
                bench.clock.lap("train")
        except judging.Diverged as divergence:
            trained, reason = None, str(divergence)
        if alternates:
            params, macs = surgery.cost(network, size)
        return cells.Outcome(network, params, macs, precision, requested, before, trained, reason)

    micro_batch = recipe["batch_size"]
    if trunk is not None:
        micro_batch = min(micro_batch, trunk.micro_batch)
        bench.clock.add("train", trunk.seconds["train"] + trunk.seconds.get("evaluate", 0.0))
    cells.finish(bench, *cells.attempted(bench, micro_batch, attempt))


def trunk_of(bench: cells.Bench) -> trunks.Trunk:
    """What the cell begins with."""
    arguments = bench.arguments
    if arguments.trunk is None:
        protocol = arguments.spec["cell"]["protocol"]
        raise InputError(f"{protocol} prunes what it has trained: give what it begins with, a trunk, with --trunk")
    return trunks.read(arguments.trunk, bench.lease.device)


def beginning(bench: cells.Bench, trunk: trunks.Trunk | None) -> tuple[cells.Before, float]:
    """The mask that a cell's training begins with, and the share of units to remove that was asked for."""
    cell, mask = bench.arguments.spec["cell"], bench.arguments.mask
    if trunk is not None:
        return cells.Before().pruned(trunk.keep, trunk.rank), cell["ratio"]
    keep, requested, achieved = surgery.read_mask(mask, bench.backbone)
    rank = None if keep is None else tables.read_table(mask, "mask")["rank"].to_numpy().astype(np.int64)
    return cells.Before().pruned(keep, rank, achieved), requested


def teaching(folder: Path | None, bench: cells.Bench) -> torch.nn.Module:
    """The fine-tuned unpruned network, on the cell's device.

    Raises
    ------
    InputError
        If there is none, or it is of other classes.
    Diverged
        If its own training did.
    """
    if folder is None:
        raise InputError("a distilled cell learns from the unpruned baseline: give its network with --teacher")
    if models.divergence(folder):
        raise judging.Diverged("the training of its teacher, the unpruned baseline, diverged")
    network, description = models.load(folder, bench.lease.device)
    if description["classes"] != bench.store.classes:
        raise InputError(f"the network in {folder} knows other classes than {bench.arguments.dataset}")
    return network.to(memory_format=torch.channels_last).requires_grad_(False)


def parser() -> argparse.ArgumentParser:
    result = cells.parser(__doc__, cells.FILES, models.FILES)
    result.add_argument("--mask", type=Path, nargs="?", metavar="FILE")
    cells.add_moments(result)
    cells.add_rate(result)
    cells.add_prices(result)
    result.add_argument("--trunk", action=cli.Folder, nargs="*", help="what a cell begins with that alternates")
    result.add_argument("--teacher", action=cli.Folder, nargs="*", help="the kept network of the unpruned baseline")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
