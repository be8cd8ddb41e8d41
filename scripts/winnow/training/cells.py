"""What the programs that train a cell share: what they work with, a second attempt where memory runs out, and the
files that they leave."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

import winnow
from winnow import cli, tables
from winnow.data.images import Images, load_images
from winnow.data.store import Store
from winnow.files import canonical_json, file_digest, read_json, write_json
from winnow.networks import backbones, models
from winnow.runtime import devices
from winnow.runtime.memory import begin_peak, kept, peak_mb
from winnow.training import loop

# Everything that these say of a mask, a backbone or a data set is in their digests: a checkpoint is of all of them.
INPUTS = ("manifest.json", "channels.parquet")


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


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a cell is made of and where: the device is leased, images and backbone are there.

    Attributes
    ----------
    arguments
        The program's, of :func:`parser`.
    """

    arguments: argparse.Namespace
    clock: Clock
    lease: devices.Lease
    threads: int
    store: Store
    backbone: backbones.Backbone
    images: Images

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The images to train on and those to choose the epoch with."""
        return self.store.rows("train"), self.store.rows("val")

    def checkpoint(self, precision: str, *files: Path | None) -> loop.Checkpoint:
        """The cell's, which is of the spec, the inputs, among them ``files``, and the precision."""
        arguments = self.arguments
        inputs = [arguments.backbone / name for name in INPUTS] + [path for path in files if path]
        digests = [read_json(arguments.dataset / "manifest.json")["images_sha256"], *map(file_digest, inputs)]
        key = canonical_json({"spec": arguments.spec, "inputs": digests, "precision": precision})
        return loop.Checkpoint(arguments.output / "checkpoint.pt", key, arguments.checkpoint_seconds)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes
    ----------
    network : Module
        As it was trained last.
    trained : Training or None
        None where it diverged; then ``reason`` says why.
    requested, achieved : float
        Share of filters to remove, asked for and done.
    """

    network: nn.Module
    params: int
    macs: int
    precision: str
    requested: float
    achieved: float
    trained: loop.Training | None
    reason: str | None = None


def open_bench(arguments: argparse.Namespace) -> Bench:
    """Lease a device and load what the cell needs, or find it where the last cell left it."""
    clock = Clock()
    begin_peak()
    lease = devices.lease(arguments.gpu)
    threads = devices.threads()
    store = kept("store", arguments.dataset, lambda: Store.open(arguments.dataset))
    backbone = kept("backbone", arguments.backbone, lambda: backbones.load(arguments.backbone))
    mean, std = backbone.manifest["mean"], backbone.manifest["std"]
    images = kept(
        "images",
        arguments.dataset,
        lambda: load_images(store, mean, std, lease.device),
        lease.device,
        *mean,
        *std,
    )
    return Bench(arguments, clock, lease, threads, store, backbone, images)


def finish(bench: Bench, attempt: Callable[[int], Outcome]) -> None:
    """Train a cell, judge it and write its files.

    Parameters
    ----------
    attempt
        Trains with at most so many images a pass. It makes its network itself, so that nothing holds what filled the
        memory when it is called once more, with half of them.
    """
    arguments, clock, store = bench.arguments, bench.clock, bench.store
    spec, output = arguments.spec, arguments.output
    micro_batch = batch_size = spec["recipe"]["batch_size"]
    outcome = None
    try:
        outcome = attempt(micro_batch)
    except torch.OutOfMemoryError:
        micro_batch = max(1, (micro_batch + 1) // 2)
        print(f"out of memory: once more with {micro_batch} images a pass, {batch_size} a step as before")
    if outcome is None:
        # Not in the except clause: as long as there is an exception, so are the frames that it came through, and with
        # them the network, the activations and the optimizer's state that filled the memory.
        clock.lap("train")
        torch.cuda.empty_cache()
        outcome = attempt(micro_batch)
    clock.lap("train")
    network, trained, reason = outcome.network, outcome.trained, outcome.reason
    test_rows = store.rows("test")
    judged = None
    if trained is not None:
        clock.move("train", "evaluate", trained.evaluation_seconds)
        network.load_state_dict(trained.state)
        judged = loop.evaluate(network, bench.images, test_rows, outcome.precision)
        try:
            loop.require_finite(judged.loss, "test loss", f"with the weights of epoch {trained.epoch}")
        except loop.Diverged as divergence:
            trained, reason = None, str(divergence)
        clock.lap("evaluate")

    history: list[dict] = []
    predictions = {name: [] for name in tables.SCHEMAS["predictions"].names}
    if trained is None:
        print(f"DIVERGED: {reason}")
        metrics = {"status": "diverged", "reason": reason}
        metrics |= dict.fromkeys(("accuracy", "class_accuracy", "test_loss", "val_accuracy", "epoch"))
        metrics |= {"per_class": {}, "resumed": 0, "images_per_second": None, "model": None}
        models.remove(output)
    else:
        history = trained.history
        labels = store.labels[test_rows]
        correct = judged.predicted == labels
        per_class = {
            name: float(correct[labels == number].mean())
            for number, name in enumerate(store.classes)
            if (labels == number).any()
        }
        metrics = {
            "status": "finished",
            "reason": None,
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
        metrics["model"] = None
        if spec["models"] == "keep":
            metrics["model"] = models.save(output, network, _description(bench, outcome, judged.accuracy))
        else:
            models.remove(output)

    provenance = {"spec": spec}
    columns = {name: [row[name] for row in history] for name in tables.SCHEMAS["history"].names}
    tables.write_table(output / "history.parquet", columns, "history", provenance)
    tables.write_table(output / "predictions.parquet", predictions, "predictions", provenance)
    metrics |= {
        "params": outcome.params,
        "macs": outcome.macs,
        "bytes": models.stored_bytes(network),
        "requested_ratio": outcome.requested,
        "achieved_ratio": outcome.achieved,
        "micro_batch": micro_batch,
        "device": bench.lease.name,
        "lease": bench.lease.id,
        "precision": outcome.precision,
        "threads": bench.threads,
        "peak_mb": peak_mb(),
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
    (output / "checkpoint.pt").unlink(missing_ok=True)


def _description(bench: Bench, outcome: Outcome, accuracy: float) -> dict[str, Any]:
    """What a kept network's user should know of it."""
    manifest, store = bench.backbone.manifest, bench.store
    return {
        "architecture": manifest["architecture"],
        "head": manifest["head"],
        "classes": store.classes,
        "image_size": store.image_size,
        "store_size": store.manifest["store_size"],
        "mean": manifest["mean"],
        "std": manifest["std"],
        "params": outcome.params,
        "macs": outcome.macs,
        "accuracy": accuracy,
        "spec": bench.arguments.spec,
    }


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all programs have that make a cell."""
    result = cli.parser(description, leases=True)
    result.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--output", type=Path, required=True, metavar="DIR")
    result.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="how much of a killed run may be lost (default: 120)",
    )
    return result
