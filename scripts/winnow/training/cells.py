"""What the programs that train cells and trunks share: what they work with, a second attempt where memory runs out, and
the files that a cell leaves."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torchvision
from torch import nn

import winnow
from winnow import cli, tables
from winnow.data.images import Images, load_images
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError, canonical_json, file_digest, read_json, write_json
from winnow.networks import backbones, models, surgery, units
from winnow.runtime import devices
from winnow.runtime.memory import begin_peak, in_smaller_parts, kept, peak_mb
from winnow.training import checkpoints, judging, loop, protocols, rates
from winnow.training.metrics import Described, Epoch, Judged, Metrics, Surroundings

# Everything that these say of a mask, a backbone or a data set is in their digests: a checkpoint is of all of them.
INPUTS = ("manifest.json", "channels.parquet")
METRICS, HISTORY, PREDICTIONS, MASK = FILES = ("metrics.json", "history.parquet", "predictions.parquet", "mask.parquet")
# What a network's description says of it.
JUDGED = (
    *("params", "macs", "accuracy", "class_accuracy", "per_class", "val_accuracy", "epoch"),
    *("requested_ratio", "achieved_ratio", "learning_rate", "weights_sha256"),
)

Made = TypeVar("Made")


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

    def add(self, part: str, seconds: float) -> None:
        """Count what another job spent on this one's behalf."""
        self.parts[part] = self.parts.get(part, 0.0) + seconds
        self.start -= seconds

    def seconds(self) -> dict[str, float]:
        self.lap("write")
        return self.parts | {"total": self.last - self.start}


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a cell or a trunk is made of and where: the device is leased, the backbone is there.

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
    split: Split
    backbone: backbones.Backbone

    @functools.cached_property
    def images(self) -> Images:
        """The data set's, where the network can see them. An attempt loads them, since that may take memory too."""
        manifest = self.backbone.manifest
        return load_images(self.store, manifest["mean"], manifest["std"], self.lease.device)

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The images to train on and those to choose the epoch with."""
        return self.split.rows("train"), self.split.rows("val")

    @functools.cached_property
    def unpruned(self) -> nn.Module:
        """The unpruned network, shapes without values."""
        manifest = self.backbone.manifest
        return backbones.build(manifest["architecture"], manifest["head"], len(self.store.classes))

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """How to train: the spec's recipe, with the learning rate that was found where it leaves that to a search."""
        recipe, file = self.arguments.spec["recipe"], self.arguments.rate
        if recipe["learning_rate"] != rates.AUTO:
            return recipe
        if file is None:
            raise InputError(f"learning_rate: {rates.AUTO}: give the rate that was found with --rate")
        return recipe | {"learning_rate": rates.read(file)}

    @property
    def repairs(self) -> tuple[str, ...]:
        """What of a cell or a trunk is repaired after a cut."""
        spec = self.arguments.spec
        if "trunk" in spec:
            return tuple(spec["trunk"]["repairs"])
        return protocols.repairs(spec["cell"]["protocol"])

    @property
    def unpruned_cost(self) -> tuple[int, int]:
        """Parameters and multiply-accumulates of the unpruned network."""
        return surgery.cost(self.unpruned, self.store.image_size)

    def network(self, keep: np.ndarray | None, init: str, seed: int) -> nn.Module:
        """The backbone less its removed units, with a new last layer, on the device as it is trained."""
        network = surgery.pruned(self.backbone, keep, len(self.store.classes), init, seed)
        return network.to(self.lease.device).to(memory_format=torch.channels_last)

    def begun(self, keep: np.ndarray | None, init: str, seed: int) -> nn.Module:
        """The same, repaired after the cut as the cell or trunk wants it."""
        if not self.repairs:
            return self.network(keep, init, seed)
        # Here, and not above: what is not repaired depends on none of it.
        from winnow.training import repair

        network = repair.begun(self, keep, seed, self.repairs, self.arguments.moments)
        self.clock.lap("repair")
        return network

    def checkpoint(self, precision: str, *files: Path | None) -> checkpoints.Checkpoint:
        """The job's, which is of the spec, the inputs, among them ``files``, and the precision."""
        arguments = self.arguments
        inputs = [arguments.backbone / name for name in INPUTS] + [path for path in (arguments.split, *files) if path]
        digests = [read_json(arguments.dataset / "manifest.json")["images_sha256"], *map(file_digest, inputs)]
        key = canonical_json({"spec": arguments.spec, "inputs": digests, "precision": precision})
        return checkpoints.Checkpoint(self.working_file, key, arguments.checkpoint_seconds)

    @property
    def working_file(self) -> Path:
        """Where an interrupted job goes on, beside its first output; gone when it ends."""
        return next(iter(self.arguments.output.values())).parent / "checkpoint.pt"

    def surroundings(self, precision: str) -> Surroundings:
        """Where and with what a network is trained, as results say it."""
        return {
            "device": self.lease.name,
            "lease": self.lease.id,
            "precision": precision,
            "threads": self.threads,
            "peak_mb": peak_mb(),
            "versions": {
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "winnow": winnow.__version__,
            },
        }

    def mask(self, before: Before) -> dict[str, np.ndarray]:
        """The columns of a mask; without one all units stay, and none is the first to go."""
        layer, index = units.named(self.backbone.manifest["layers"], self.backbone.channels)
        keep = np.ones(layer.size, dtype=bool) if before.keep is None else before.keep.numpy()
        rank = np.full(layer.size, -1) if before.rank is None else before.rank.numpy()
        return {"layer": layer, "filter": index, "keep": keep, "rank": rank}


@dataclasses.dataclass(frozen=True)
class Before:
    """What a phase has behind it, as a checkpoint can hold it.

    Attributes
    ----------
    phase : int
        How many phases.
    history, evaluation_seconds, resumed, micro_batch
        Theirs, as a :class:`winnow.training.loop.Training` has them.
    keep, rank : (units,) Tensor
        The mask that the phase begins with; None for none.
    achieved : float or None
        What the mask achieves of the ratio; None where a trunk made it, whose ratio is another.
    """

    phase: int = 0
    history: list[Epoch] = dataclasses.field(default_factory=list)
    evaluation_seconds: float = 0.0
    resumed: int = 0
    micro_batch: int | None = None
    keep: torch.Tensor | None = None
    rank: torch.Tensor | None = None
    achieved: float | None = None

    @property
    def kept(self) -> np.ndarray | None:
        return None if self.keep is None else self.keep.numpy()

    def pruned(self, keep: np.ndarray | None, rank: np.ndarray | None, achieved: float | None = None) -> Before:
        if keep is None or rank is None:
            return self
        mask = torch.from_numpy(keep.copy()), torch.from_numpy(rank.copy())
        return dataclasses.replace(self, keep=mask[0], rank=mask[1], achieved=achieved)

    def added_to(self, trained: loop.Training) -> loop.Training:
        return dataclasses.replace(
            trained,
            history=self.history + trained.history,
            evaluation_seconds=self.evaluation_seconds + trained.evaluation_seconds,
            resumed=self.resumed + trained.resumed,
            micro_batch=loop.fewest(self.micro_batch, trained.micro_batch),
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes
    ----------
    network : Module
        As it was trained last.
    trained : Training or None
        None where it diverged; then ``reason`` says why.
    requested : float
        Share of filters to remove that was asked for.
    before : Before
        With the network's mask.
    """

    network: nn.Module
    params: int
    macs: int
    precision: str
    requested: float
    before: Before
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
    return Bench(arguments, clock, lease, threads, store, Split.open(arguments.split, store), backbone)


def attempted(bench: Bench, micro_batch: int, attempt: Callable[[int], Made]) -> tuple[Made, int]:
    """What ``attempt`` makes with at most ``micro_batch`` images a pass or, where memory runs out, with half as many,
    and so on; and how many they were.

    It makes its network itself, so that nothing holds what filled the memory when it is called once more.
    """
    batch_size = bench.arguments.spec["recipe"]["batch_size"]

    def report(size: int) -> None:
        print(f"out of memory: once more with {size} images a pass, {batch_size} a step as before")
        bench.clock.lap("train")

    return in_smaller_parts(micro_batch, attempt, loop.least_images(bench.unpruned), report)


def finish(bench: Bench, outcome: Outcome, micro_batch: int) -> None:
    """Judge a cell and write those of its files that the program was asked for."""
    arguments, clock, store = bench.arguments, bench.clock, bench.store
    spec, output = arguments.spec, arguments.output
    clock.lap("train")
    network, trained, reason = outcome.network, outcome.trained, outcome.reason or ""
    test_rows = bench.split.rows("test")
    judged = None
    if trained is not None:
        micro_batch = loop.fewest(micro_batch, trained.micro_batch)
        clock.move("train", "evaluate", trained.evaluation_seconds)
        network.load_state_dict(trained.state)
        # As its file answers, which is float32 whatever the network was trained in.
        judged = judging.evaluate(network, bench.images, test_rows, "fp32")
        try:
            judging.require_finite(judged.loss, "test loss", f"with the weights of epoch {trained.epoch}")
        except judging.Diverged as divergence:
            trained, reason = None, str(divergence)
        clock.lap("evaluate")

    mask = bench.mask(outcome.before)
    achieved = outcome.before.achieved
    if achieved is None:
        achieved = float(np.count_nonzero(~mask["keep"]) / mask["keep"].size)
    ratios = {"requested": outcome.requested, "achieved": achieved}
    surroundings = bench.surroundings(outcome.precision)
    predictions: dict[str, Sequence[Any] | np.ndarray] = {name: [] for name in tables.SCHEMAS["predictions"].names}
    told: Judged
    if trained is None or judged is None:
        print(f"DIVERGED: {reason}")
        told = {
            "status": "diverged",
            "reason": reason,
            "accuracy": None,
            "class_accuracy": None,
            "test_loss": None,
            "val_accuracy": None,
            "epoch": None,
            "weights_sha256": None,
            "per_class": {},
            "resumed": 0,
            "images_per_second": None,
        }
    else:
        labels = store.labels[test_rows]
        correct = judged.predicted == labels
        per_class = {
            name: float(correct[labels == number].mean())
            for number, name in enumerate(store.classes)
            if (labels == number).any()
        }
        told = {
            "status": "finished",
            "reason": None,
            "accuracy": judged.accuracy,
            "class_accuracy": float(np.mean(list(per_class.values()))),
            "test_loss": judged.loss,
            "val_accuracy": trained.val_accuracy,
            "epoch": trained.epoch,
            # Of what was judged: a network that is exported as this cell's has the same.
            "weights_sha256": models.digest(network.state_dict()),
            "per_class": per_class,
            "resumed": trained.resumed,
            "images_per_second": sum(row["images_per_second"] for row in trained.history) / len(trained.history),
        }
        predictions = {
            "image": test_rows,
            "label": labels,
            "predicted": judged.predicted,
            "probability": judged.probability,
            "correct": correct,
        }
        print(f"test accuracy {judged.accuracy:.4f} with the weights of epoch {trained.epoch}")
    described: Described = {
        **told,
        "split": bench.split.path.stem,
        "learning_rate": bench.recipe["learning_rate"],
        "params": outcome.params,
        "macs": outcome.macs,
        "bytes": models.stored_bytes(network),
        "requested_ratio": outcome.requested,
        "achieved_ratio": achieved,
    }

    if models.WEIGHTS in output:
        folder = output[models.WEIGHTS].parent
        if trained is None:
            models.save_none(folder, reason, spec)
        else:
            models.save(folder, network, _description(bench, described, surroundings))
    written: dict[str, tuple[Any, dict[str, float]]] = {
        HISTORY: (loop.table(trained.history if trained else []), {}),
        PREDICTIONS: (predictions, {}),
        MASK: (mask, ratios),
    }
    for name in written.keys() & output.keys():
        rows, more = written[name]
        tables.write_table(output[name], rows, name.removesuffix(".parquet"), {"spec": spec, **more})
    if METRICS in output:
        # The last file: a cell that has its metrics is finished.
        metrics: Metrics = {
            **described,
            **surroundings,
            "micro_batch": micro_batch,
            "batch_norm": loop.normalises(network),
            "files": {name: file_digest(output[name]) for name in written if name in output},
            "seconds": clock.seconds(),
            "spec": spec,
        }
        write_json(output[METRICS], metrics)
    bench.working_file.unlink(missing_ok=True)


def _description(bench: Bench, described: Described, surroundings: Surroundings) -> dict[str, Any]:
    """What a kept network's user should know of it: how to use it, how well it did, and what made it."""
    manifest, store = bench.backbone.manifest, bench.store
    judged: Mapping[str, object] = described
    return {
        "architecture": manifest["architecture"],
        "head": manifest["head"],
        "classes": store.classes,
        "image_size": store.image_size,
        "store_size": store.manifest["store_size"],
        "reading": store.manifest["reading"],
        "mean": manifest["mean"],
        "std": manifest["std"],
        **{name: judged[name] for name in JUDGED},
        "device": surroundings["device"],
        "precision": surroundings["precision"],
        "versions": surroundings["versions"],
        "spec": bench.arguments.spec,
    }


class Outputs(argparse.Action):
    """Takes files, told apart by their names, or one folder for all of ``names``; stores name → path.

    ``more`` are names that are asked for one by one, and all of them or none.
    """

    def __init__(
        self, option_strings: Sequence[str], dest: str, names: Sequence[str], more: Sequence[str] = (), **rest: Any
    ) -> None:
        super().__init__(option_strings, dest, nargs="+", type=Path, metavar="PATH", **rest)
        self.names, self.more = names, more

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        allowed = (*self.names, *self.more)
        paths: list[Path] = values
        if len(paths) == 1 and paths[0].name not in allowed:
            paths = [paths[0] / name for name in self.names]
        found = {path.name: path for path in paths}
        foreign = [str(path) for path in paths if path.name not in allowed]
        if foreign or len(found) < len(paths):
            what = f"{foreign[0]} is none of them" if foreign else "one of them is given twice"
            raise argparse.ArgumentError(self, f"a folder, or files named {', '.join(allowed)}: {what}")
        together = {path.parent for name, path in found.items() if name in self.more}
        if together and (len(together) > 1 or not found.keys() >= set(self.more)):
            raise argparse.ArgumentError(self, f"{' and '.join(self.more)} go together, in one folder")
        setattr(namespace, self.dest, found)


def parser(description: str, names: Sequence[str], more: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options of a program that trains on a data set: what it makes are files with ``names`` and ``more``."""
    result = cli.parser(description, leases=True)
    cli.add_dataset(result)
    result.add_argument("--backbone", action=cli.Folder, required=True)
    help = f"a folder, or files named {', '.join((*names, *more))}"
    result.add_argument("--output", action=Outputs, names=names, more=more, required=True, help=help)
    result.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=120.0,
        metavar="S",
        help="how much of a killed run may be lost (default: 120)",
    )
    return result


def add_rate(parser: argparse.ArgumentParser) -> None:
    """The option by which a cell or a trunk is given the learning rate that its recipe leaves to a search."""
    parser.add_argument("--rate", type=Path, nargs="?", metavar="FILE", help="of learning_rate: auto, what was found")


def add_prices(parser: argparse.ArgumentParser) -> None:
    """The option by which a cell or a trunk is given what its own masks' budget is kept by."""
    help = "prices of the network: what a budget is kept by, where masks are made between phases"
    parser.add_argument("--prices", type=Path, nargs="?", metavar="FILE", help=help)


def add_moments(parser: argparse.ArgumentParser) -> None:
    """The option by which a cell or a trunk is given what its cut is repaired by."""
    help = "manifest of the backbone's moments: what a cut is repaired by"
    parser.add_argument("--moments", type=Path, nargs="?", metavar="FILE", help=help)
