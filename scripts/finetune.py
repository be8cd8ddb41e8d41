"""Fine-tune and judge one cell. Needs a data set's store, a backbone and a mask (none for the unpruned baseline); makes
metrics.json, history.parquet, predictions.parquet and, if asked to keep it, the pruned network."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import torch
import torchvision

import winnow
from winnow import backbones, cli, models, protocols, surgery, tables, training
from winnow.files import InputError, canonical_json, file_digest, read_json, write_json
from winnow.images import load_images
from winnow.runtime import devices
from winnow.runtime.memory import kept
from winnow.store import Store

# Everything that these say of a mask, a backbone or a data set is in their digests: a checkpoint is of all of them.
INPUTS = ("manifest.json", "channels.parquet")


def main(arguments: argparse.Namespace) -> None:
    clock = Clock()
    spec, output = arguments.spec, arguments.output
    cell, recipe = spec["cell"], spec["recipe"]
    if protocols.alternates(cell["protocol"]) or cell["protocol"] == protocols.DISTILLED:
        raise InputError(f"protocol {cell['protocol']} is not there yet")
    lease = devices.lease(arguments.gpu)
    threads = devices.threads()
    store = kept("store", arguments.dataset, lambda: Store.open(arguments.dataset))
    backbone = kept("backbone", arguments.backbone, lambda: backbones.load(arguments.backbone))
    keep, requested, achieved = backbones.read_mask(arguments.mask, backbone)
    mean, std = backbone.manifest["mean"], backbone.manifest["std"]
    images = kept(
        "images",
        arguments.dataset,
        lambda: load_images(store, mean, std, lease.device),
        lease.device,
        *mean,
        *std,
    )
    train_rows, val_rows, test_rows = (store.rows(split) for split in ("train", "val", "test"))

    def network_of_cell() -> torch.nn.Module:
        network = backbones.pruned(backbone, keep, len(store.classes), cell["init"], cell["seed"])
        return network.to(lease.device)

    network = network_of_cell()
    params, macs = surgery.cost(network, store.image_size)
    unpruned = backbones.build(backbone.manifest["architecture"], backbone.manifest["head"], len(store.classes))
    epochs = protocols.budget(cell["protocol"], recipe["epochs"], macs, surgery.cost(unpruned, store.image_size)[1])
    recipe = protocols.stretched(recipe, epochs)
    precision = training.precision_for(recipe["precision"], lease.device, macs)
    clock.lap("load")

    key = canonical_json({"spec": spec, "inputs": digests(arguments), "precision": precision})
    checkpoint = training.Checkpoint(output / "checkpoint.pt", key, arguments.checkpoint_seconds)
    micro_batch = recipe["batch_size"]
    metrics = {"status": "finished", "reason": None}
    predictions = {name: [] for name in tables.SCHEMAS["predictions"].names}
    trained = None
    try:
        try:
            trained = training.train(
                network, images, train_rows, val_rows, recipe, cell["seed"], precision, micro_batch, checkpoint
            )
        except torch.OutOfMemoryError:
            micro_batch = max(1, (micro_batch + 1) // 2)
            print(f"out of memory: once more with {micro_batch} images a pass, {recipe['batch_size']} a step as before")
        if trained is None:
            # Not in the except clause: as long as there is an exception, so are the frames that it came through, and
            # with them the activations and the optimizer's state that filled the memory.
            network = None
            torch.cuda.empty_cache()
            network = network_of_cell()
            trained = training.train(
                network, images, train_rows, val_rows, recipe, cell["seed"], precision, micro_batch, checkpoint
            )
        clock.lap("train")
        clock.move("train", "evaluate", trained.evaluation_seconds)
        network.load_state_dict(trained.state)
        judged = training.evaluate(network, images, test_rows, precision)
        training.require_finite(judged.loss, "test loss", f"with the weights of epoch {trained.epoch}")
    except training.Diverged as divergence:
        print(f"DIVERGED: {divergence}")
        metrics |= {"status": "diverged", "reason": str(divergence)}
        metrics |= dict.fromkeys(("accuracy", "class_accuracy", "test_loss", "val_accuracy", "epoch"))
        metrics |= {"per_class": {}, "resumed": 0, "images_per_second": None, "model": None}
        clock.lap("train")
        history = []
        models.remove(output)
    else:
        clock.lap("evaluate")
        history = trained.history
        labels = store.labels[test_rows]
        correct = judged.predicted == labels
        per_class = {
            name: float(correct[labels == number].mean())
            for number, name in enumerate(store.classes)
            if (labels == number).any()
        }
        metrics |= {
            "accuracy": judged.accuracy,
            "class_accuracy": float(np.mean(list(per_class.values()))),
            "test_loss": judged.loss,
            "val_accuracy": trained.val_accuracy,
            "epoch": trained.epoch,
            "per_class": per_class,
            "resumed": trained.resumed,
            "images_per_second": sum(row["images_per_second"] for row in history) / len(history),
        }
        predictions = {
            "image": test_rows,
            "label": labels,
            "predicted": judged.predicted,
            "probability": judged.probability,
            "correct": correct,
        }
        print(f"test accuracy {judged.accuracy:.4f} with the weights of epoch {trained.epoch}")
        if spec["models"] == "keep":
            description = {
                "architecture": backbone.manifest["architecture"],
                "head": backbone.manifest["head"],
                "classes": store.classes,
                "image_size": store.image_size,
                "store_size": store.manifest["store_size"],
                "mean": backbone.manifest["mean"],
                "std": backbone.manifest["std"],
                "params": params,
                "macs": macs,
                "accuracy": judged.accuracy,
                "spec": spec,
            }
            metrics["model"] = models.save(output, network, description)
        else:
            models.remove(output)
            metrics["model"] = None

    provenance = {"spec": spec}
    tables.write_table(output / "history.parquet", columns(history), "history", provenance)
    tables.write_table(output / "predictions.parquet", predictions, "predictions", provenance)
    metrics |= {
        "params": params,
        "macs": macs,
        "bytes": models.stored_bytes(network),
        "requested_ratio": requested,
        "achieved_ratio": achieved,
        "micro_batch": micro_batch,
        "device": lease.name,
        "lease": lease.id,
        "precision": precision,
        "threads": threads,
        "versions": {
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "winnow": winnow.__version__,
        },
        "seconds": clock.seconds(),
        "spec": spec,
    }
    # The last file: a cell that has its metrics is finished.
    write_json(output / "metrics.json", metrics)
    checkpoint.remove()


def digests(arguments: argparse.Namespace) -> list[str]:
    """Digests of what stands for the inputs' contents."""
    files = [arguments.backbone / name for name in INPUTS] + ([arguments.mask] if arguments.mask else [])
    return [read_json(arguments.dataset / "manifest.json")["images_sha256"], *(file_digest(path) for path in files)]


def columns(rows: list[dict]) -> dict[str, list]:
    """History's rows as columns."""
    return {name: [row[name] for row in rows] for name in tables.SCHEMAS["history"].names}


class Clock:
    """Where a job's seconds went."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        self.parts[source] -= seconds
        self.parts[target] = self.parts.get(target, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        self.lap("write")
        return self.parts | {"total": self.last - self.start}


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    result.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--mask", type=Path, nargs="?", metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="DIR")
    result.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="how much of a killed run may be lost (default: 120)",
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
