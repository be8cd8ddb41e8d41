"""How long a run's trainings will take on the machine at hand, from how long others took there or, before there are
any, from how fast its statistics passes were: estimated without torch, and not before one of them has run here.

A pass of the statistics sends every training image once through the unpruned network. A training's worth is counted in
such passes: an image that is learned from takes three, forward and backward, one that only chooses or judges takes one,
and a network of which a share r of the filters is gone (1 - r)² of each. What learning really takes only finished cells
know: it depends on batch, precision and optimizer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from winnow.files import InputError, read_json
from winnow.importance.scopes import BUDGETS
from winnow.runtime.counting import duration
from winnow.training import protocols, rates
from winnow.workflow import grid, wiring
from winnow.workflow.config import Config
from winnow.workflow.grid import Cell, Trunk
from winnow.workflow.resources import Machine

# Passes that learning from an image takes: forward, and backward twice as much.
LEARNING = 3
# Trainings of a search: between the fewest that it takes and the most.
_TRIES = (3 + rates.MOST) / 2
# Of so many finished cells the median counts.
_CELLS = 15


@dataclasses.dataclass(frozen=True)
class Work:
    """A training, counted in passes of the unpruned network over each of the images of a part."""

    dataset: str
    fold: int | None
    backbone: str
    train: float
    val: float
    test: float = 0.0

    def images(self, counts: Mapping[str, int]) -> float:
        """How many images are sent through the network, of so many in each part."""
        return sum(getattr(self, part) * counts[part] for part in ("train", "val", "test"))


def of_cell(config: Config, cell: Cell) -> Work:
    """A cell's: all that it trains itself, which is less than its protocol where it begins with a trunk."""
    recipe = config.recipe(cell.dataset, cell.backbone)
    whole = _left(cell.scope, cell.ratio)
    epochs = protocols.budget(cell.protocol, recipe.epochs, whole, 1)
    phases = protocols.phases(cell.protocol, cell.ratio, epochs)[1 if cell.alternates else 0 :]
    passes = sum(length * _left(cell.scope, float(ratio)) for ratio, length in phases)
    return Work(cell.dataset, cell.fold(config.folds), cell.backbone, LEARNING * passes, passes, whole)


def of_search(config: Config, cell: Cell) -> Work:
    """Of the trainings that find the learning rate of a cell."""
    epochs = max(rates.LEAST_EPOCHS, config.recipe(cell.dataset, cell.backbone).epochs / rates.SHARE)
    passes = _TRIES * epochs * _left(cell.scope, cell.ratio)
    return Work(cell.dataset, cell.fold(config.folds), cell.backbone, LEARNING * passes, passes)


def of_trunk(trunk: Trunk) -> Work:
    passes = trunk.epochs * _left(trunk.scope, float(trunk.share))
    return Work(trunk.dataset, trunk.fold, trunk.backbone, LEARNING * passes, passes)


def _left(scope: str, ratio: float) -> float:
    """Of a pass of the unpruned network, what one takes that a ratio is removed from."""
    return 1 - ratio if scope in BUDGETS else (1 - ratio) ** 2


def forecast(config: Config, works: Iterable[Work], machine: Machine, processor: str | None, more: bool) -> str:
    """What a run's trainings will take, as a sentence; empty where there are none.

    Parameters
    ----------
    machine
        What runs them.
    processor
        Its name: what was measured on another does not count. None where jobs are submitted, to machines that this one
        does not know: then the time is that of one of them.
    more
        Whether further trainings may follow, of a grid that grows.
    """
    works = list(works)
    if not works:
        return ""
    clock = _Clock(config, machine, processor)
    known: dict[str, None] = {}
    unknown: dict[tuple[str, str], int] = {}
    seconds = 0.0
    for work in works:
        found, counts = clock.speed(work.dataset, work.backbone), clock.counts(work.dataset, work.fold)
        if found is None or counts is None:
            unknown[work.dataset, work.backbone] = unknown.get((work.dataset, work.backbone), 0) + 1
            continue
        seconds += work.images(counts) / found.images_a_second
        known[found.source] = None
    so_far = " that are planned so far" if more else ""
    if not known:
        (dataset, backbone), *_ = unknown
        place = f"{grid.first_images(dataset, config.folds)}/{backbone}"
        return (
            f"Time: not known for {len(works)} trainings{so_far} before a pass has measured how fast this machine is: "
            f"snakemake results/statistics/{place}/speed.json"
        )
    where = "of one of the machines that jobs are submitted to" if processor is None else "on this machine"
    text = f"Time: about {duration(seconds)} {where} for {len(works) - sum(unknown.values())} trainings{so_far}: "
    text += "; ".join(known) + "."
    if unknown:
        names = ", ".join(f"{backbone} on {dataset}" for dataset, backbone in unknown)
        text += f" Not known for {sum(unknown.values())} more, of {names}, which nothing has measured."
    return text


@dataclasses.dataclass(frozen=True)
class _Speed:
    """Images a second of the whole machine, and where that is known from."""

    images_a_second: float
    source: str


class _Clock:
    """What is known of speeds and of numbers of images, below ``results/``."""

    def __init__(self, config: Config, machine: Machine, processor: str | None):
        self.config, self.machine, self.processor = config, machine, processor
        self.counts = functools.cache(self._counts)
        self.speed = functools.cache(self._speed)

    def _counts(self, dataset: str, fold: int | None) -> dict[str, int] | None:
        """How many images train, choose and judge; None where nothing is split yet."""
        # Here, since it takes a library that the Snakefile does without.
        from winnow.tables import read_provenance

        for path in (Path(wiring.split(dataset, fold)), *sorted(Path("results/splits", dataset).glob("*.parquet"))):
            try:
                return read_provenance(path)["counts"]
            except (InputError, KeyError):
                continue
        return None

    def _speed(self, dataset: str, backbone: str) -> _Speed | None:
        """As finished cells have it; else as a pass over the data set's images has measured it; else one over another's
        with the same network, which takes time by the images' area."""
        if (trained := self._of_cells(dataset, backbone)) is not None:
            return trained
        size = self.config.datasets[dataset].image_size
        for name in (dataset, *(name for name in self.config.datasets if name != dataset)):
            area = (self.config.datasets[name].image_size / size) ** 2
            places = [Path("results/statistics", name), *sorted(Path("results/statistics").glob(f"{name}{grid.FOLD}*"))]
            for place in places:
                if (record := self._record(place / backbone / "speed.json")) is not None:
                    rate = record["images"] / record["seconds"]
                    told = f"{backbone} saw {_figures(rate)} images of {place.name} a second ({record['device']})"
                    return _Speed(rate * area * self._share(record), told)
        return None

    def _of_cells(self, dataset: str, backbone: str) -> _Speed | None:
        folder, epochs = Path("results/cells"), self.config.recipe(dataset, backbone).epochs
        paths = sorted((folder / dataset / backbone).rglob("metrics.json"))
        speeds, device = [], ""
        for path in paths[:: max(1, len(paths) // _CELLS)]:
            try:
                cell = grid.parse_path(str(path.parent.relative_to(folder)))
                counts, record = self.counts(dataset, cell.fold(self.config.folds)), self._record(path)
                # What was trained before its recipe was changed says nothing; nor does one whose trunk is counted in.
                if record is None or counts is None or cell.alternates or record["spec"]["recipe"]["epochs"] != epochs:
                    continue
                speed = of_cell(self.config, cell).images(counts) / record["seconds"]["total"] * self._share(record)
            except (KeyError, ValueError):
                continue  # It is told by who needs it.
            speeds.append(speed)
            device = record["device"]
        if not speeds:
            return None
        return _Speed(statistics.median(speeds), f"as {len(speeds)} of {backbone} on {dataset} took ({device})")

    def _record(self, path: Path) -> dict[str, Any] | None:
        """What was measured, where it was on such a device as this run's."""
        try:
            record = read_json(path)
        except InputError:
            return None
        # A cell's metrics have the lease in place of the answer.
        gpu = record.setdefault("gpu", record.get("lease") is not None)
        ours = gpu or self.processor in (None, record["device"])
        return record if ours and gpu == (self.machine.gpus > 0) else None

    def _share(self, record: dict[str, Any]) -> float:
        """How many such passes run at a time."""
        if record["gpu"]:
            return self.machine.gpus
        return max(1.0, self.machine.cores / record["threads"])


def _figures(value: float) -> str:
    """A number to two digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.{1 - math.floor(math.log10(value))}f}"
