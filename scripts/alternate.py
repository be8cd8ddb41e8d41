"""Prune and train one cell in turn, and judge it. Needs a data set's store, a backbone and, where the cell begins with
pruning, the scores of the pretrained backbone; makes what finetune.py makes, and mask.parquet: which filters stayed.

A phase prunes, from its second on by what the network's filters do after the phase before, and trains. What is gone
stays gone, and the last phase's mask keeps to the ratio as any other does.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np

from winnow import cli, tables
from winnow.files import InputError
from winnow.importance import masks, scores
from winnow.networks import backbones, surgery
from winnow.training import cells, loop, protocols
from winnow.training.phases import Before, measured


def main(arguments: argparse.Namespace) -> None:
    bench = cells.open_bench(arguments)
    spec, device, size, backbone = arguments.spec, bench.lease.device, bench.store.image_size, bench.backbone
    cell, recipe, manifest = spec["cell"], spec["recipe"], backbone.manifest
    classes = len(bench.store.classes)
    phases = protocols.phases(cell["protocol"], cell["ratio"], recipe["epochs"])
    layer, index = scores.units(manifest["layers"], backbone.channels)

    def mask(phase: int, scored: np.ndarray, keep: np.ndarray | None) -> masks.Mask:
        return masks.mask(
            layer,
            scored,
            cell["scope"],
            phases[phase][0],
            spec["min_filters"],
            cell["round_to"],
            gone=None if keep is None else ~keep,
            last=phase + 1 == len(phases),
        )

    def attempt(micro_batch: int) -> cells.Outcome:
        # One precision for all phases: that of the network at its largest.
        unpruned = backbones.build(manifest["architecture"], manifest["head"], classes)
        precision = loop.precision_for(recipe["precision"], device, surgery.cost(unpruned, size)[1])
        checkpoint = bench.checkpoint(precision, arguments.scores)
        written = checkpoint.read()
        if written:
            before = Before(**written["before"])
        else:
            before = Before()
            if phases[0][0]:
                if arguments.scores is None:
                    raise InputError(
                        f"{cell['protocol']} begins with pruning: give the backbone's scores with --scores"
                    )
                table = tables.read_table(arguments.scores, "scores")
                before = before.pruned(mask(0, table["score"].to_numpy(), None))
        network = surgery.pruned(backbone, before.kept, classes, cell["init"], cell["seed"]).to(device)
        bench.clock.lap("load")

        trained, reason = None, None
        try:
            for phase in range(before.phase, len(phases)):
                if phase > before.phase:
                    network.load_state_dict(trained.state)
                    found = mask(phase, measured(network, before.kept, bench), before.kept)
                    network = surgery.cut(backbone, trained.state, found.keep, before.kept)
                    before = Before(phase, trained.history, trained.evaluation_seconds, trained.resumed).pruned(found)
                    print(f"phase {phase + 1}: {np.count_nonzero(found.keep)} of {found.keep.size} filters stay")
                    bench.clock.lap("measure")
                checkpoint.before = {field.name: getattr(before, field.name) for field in dataclasses.fields(before)}
                trained = loop.train(
                    *(network, bench.images, *bench.rows(), protocols.stretched(recipe, phases[phase][1])),
                    *(cell["seed"], precision, micro_batch, checkpoint),
                    epochs_before=len(before.history),
                )
                trained = before.added_to(trained)
                bench.clock.lap("train")
        except loop.Diverged as divergence:
            trained, reason = None, str(divergence)
        kept = np.ones(backbone.units, dtype=bool) if before.kept is None else before.kept
        rank = np.full(backbone.units, -1) if before.rank is None else before.rank.numpy()
        achieved = float(np.count_nonzero(~kept) / kept.size)
        rows = {"layer": layer, "filter": index, "keep": kept, "rank": rank}
        provenance = {"spec": spec, "requested": cell["ratio"], "achieved": achieved}
        tables.write_table(arguments.output / "mask.parquet", rows, "mask", provenance)
        cost = surgery.cost(network, size)
        return cells.Outcome(network, *cost, precision, cell["ratio"], achieved, trained, reason)

    cells.finish(bench, attempt)


def parser() -> argparse.ArgumentParser:
    result = cells.parser(__doc__)
    result.add_argument("--scores", type=Path, nargs="?", metavar="FILE", help="of the backbone as it was pretrained")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
