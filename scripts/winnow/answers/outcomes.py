"""What cells came to, as choosing and judging ask for it: metrics, latencies and test predictions, read once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow import tables
from winnow.answers import growth, procedure, summary
from winnow.answers.growth import Candidate
from winnow.answers.predictions import Tested, tested
from winnow.answers.procedure import Finalist, Judgement
from winnow.files import InputError, read_json
from winnow.training.metrics import Metrics
from winnow.workflow import grid
from winnow.workflow.grid import UNPRUNED, Beside, Cell

FINISHED = "finished"


class Outcomes:
    """The cells' files below a folder of results.

    Parameters
    ----------
    results
        The folder with ``cells/``, ``datasets/`` and ``latency/``.
    latencies
        Those of :func:`winnow.workflow.grid.latencies` that are to be looked at.
    """

    def __init__(self, results: Path, latencies: Iterable[str] = ()):
        self.results = results
        found = {name: summary.read_latency(results / "latency" / name) for name in latencies}
        self._latencies = {name: each["latency_ms"] for name, each in summary.comparable(found).items()}
        # Once a cell, however many questions it has a part in.
        self.metrics = functools.cache(self._metrics)
        self.predictions = functools.cache(self._predictions)
        self.classes = functools.cache(self._classes)

    def _metrics(self, cell: Cell) -> Metrics:
        return summary.read_metrics(self.results / "cells" / cell.path / "metrics.json")

    def _predictions(self, cell: Cell) -> dict[str, np.ndarray]:
        table = tables.read_table(self.results / "cells" / cell.path / "predictions.parquet", "predictions")
        return {name: table[name].to_numpy(zero_copy_only=False) for name in ("image", "label", "correct")}

    def _classes(self, dataset: str) -> list[str]:
        return read_json(self.results / "datasets" / dataset / "manifest.json")["classes"]

    def finished(self, cell: Cell) -> bool:
        return self.metrics(cell)["status"] == FINISHED

    def candidates(
        self,
        cells: Iterable[Cell],
        seeds: Collection[int],
        measure: str,
        rung: str | None = None,
        beside: Beside = grid.own,
    ) -> list[Candidate]:
        """Networks as the trainings that choose see them.

        Parameters
        ----------
        cells
            Networks, each as a cell of any seed.
        seeds
            Those that choose.
        measure
            Of size: a name in :data:`winnow.answers.verdict.MEASURES`.
        rung
            The short trainings to look at; None for those in full.
        beside
            Of which backbones a network is; but for those whose unpruned one it is.
        """
        return [
            self._candidate(cell, backbone, seeds, measure, rung)
            for cell in cells
            for backbone in beside(cell)
            if cell != cell.baseline_of(backbone)
        ]

    def _candidate(
        self, network: Cell, backbone: str, seeds: Collection[int], measure: str, rung: str | None
    ) -> Candidate:
        trainings = [dataclasses.replace(network, seed=seed) for seed in seeds]
        if rung:
            trainings = [growth.shortened(cell, rung) for cell in trainings]
        done = [cell for cell in trainings if self.finished(cell)]
        whole = [cell.baseline_of(backbone) for cell in done]
        accuracies = [self.metrics(cell)["val_accuracy"] for cell in done]
        before = [self.metrics(cell).get("val_accuracy") for cell in whole]
        drops = [
            unpruned - pruned
            for unpruned, pruned in zip(before, accuracies, strict=True)
            if unpruned is not None and pruned is not None
        ]
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        sizes = (self.size(done, measure), self.size(done, "macs")) if done else (np.inf, np.inf)
        bounding = [cell for cell in whole if network.backbone != backbone and self.finished(cell)]
        return Candidate(
            network,
            trainings[0].protocol,
            float(np.mean(known)) if known else None,
            float(np.mean(drops)) if drops else None,
            sizes,
            len(done) < len(trainings),
            backbone,
            self.size(bounding, measure) if bounding else np.inf,
        )

    def size(self, cells: Sequence[Cell], measure: str) -> float:
        """What a network takes, by a measure: the mean over its finished cells, of which there must be one."""
        if measure == "latency_ms":
            return self._latencies[cells[0].latency or ""]
        metrics: list[Mapping[str, Any]] = [self.metrics(cell) for cell in cells]
        return float(np.mean([each[measure] for each in metrics]))

    def finalists(
        self, place: growth.Place, cells: Iterable[Cell]
    ) -> tuple[list[Finalist], np.ndarray, dict[str, list[Cell]]]:
        """A data set's and backbone's finalists as the test images see them.

        Parameters
        ----------
        place
            As a step's file has it.
        cells
            Those that judge, the unpruned ones among them; others are passed over.

        Returns
        -------
        tuple
            The finalists; the test images' classes, by name; and each finalist's trainings.
        """
        there, backbone = [cell for cell in cells if cell.dataset == place["dataset"]], place["backbone"]
        whole = [cell for cell in there if (cell.backbone, cell.criterion) == (backbone, UNPRUNED)]
        done = [self.predictions(cell) for cell in whole if self.finished(cell)]
        images = tested(done) if done else Tested(np.array([], dtype=int), np.array([], dtype=int))
        names = np.array(self.classes(place["dataset"]))
        found, trainings = [], {}
        for each in place["finalists"]:
            network = grid.parse_path(each["cell"])
            own = sorted((cell for cell in there if same_network(cell, network)), key=lambda cell: cell.seed)
            trainings[network.path] = own
            before, after = np.full((2, len(own), images.images.size), np.nan)
            for number, cell in enumerate(own):
                unpruned = cell.baseline_of(backbone)
                if self.finished(cell) and self.finished(unpruned):
                    before[number] = self._right(unpruned, unpruned, images)
                    after[number] = self._right(cell, unpruned, images)
            diverged = not all(self.finished(cell) for cell in own)
            found.append(Finalist(network.path, each["size"], diverged, before, after, each["allowed"]))
        return found, names[images.labels], trainings

    def sides(self, cells: Sequence[Cell], backbone: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Test outcomes as :func:`winnow.answers.summary.summarise` asks for them."""
        whole = [cell.baseline_of(backbone) for cell in cells]
        images = tested(list(map(self.predictions, whole)))
        baseline = [self._right(unpruned, unpruned, images) for unpruned in whole]
        pruned = [self._right(cell, unpruned, images) for cell, unpruned in zip(cells, whole, strict=True)]
        return np.array(baseline), np.array(pruned), images.labels

    def _right(self, cell: Cell, unpruned: Cell, images: Tested) -> np.ndarray:
        """(n,) float: 1 where a cell's network is right, 0 where it is wrong, NaN where it does not test an image."""
        found = self.predictions(cell)
        if not np.array_equal(found["image"], self.predictions(unpruned)["image"]):
            raise InputError(
                f"{self.results / 'cells' / cell.path / 'predictions.parquet'} is of other test images than "
                f"{unpruned.path}: delete the older of the two cells and run again"
            )
        return images.correct(found)


def same_network(cell: Cell, other: Cell) -> bool:
    """Whether two cells differ in their seeds only."""
    return dataclasses.replace(cell, seed=other.seed) == other


def judged(
    place: growth.Place,
    finalists: Sequence[Finalist],
    labels: np.ndarray,
    question: Mapping[str, Any],
    looks: Sequence[int],
) -> tuple[list[Judgement], Judgement | None]:
    """The finalists of a data set and backbone, judged by what trainings there are of them.

    Parameters
    ----------
    place
        As a step's file has it.
    finalists, labels
        As of :meth:`Outcomes.finalists`.
    question
        ``tolerance`` and ``class_margin``, in points.
    looks
        After how many trainings.

    Returns
    -------
    tuple
        A judgement a finalist; and within a budget that of the proposal against its rival. The rival is there to be
        held against: it has its intervals, is trained as often as the proposal, and is no answer by itself.
    """
    proposal, second = place["proposal"], place["rival"]
    if proposal is None:
        return [], None
    asked = (labels, question["tolerance"], question["class_margin"], looks)
    if not place["budget"]:
        return procedure.judge(finalists, proposal, *asked), None
    rival = None if second is None else finalists[second]
    proposed, between = procedure.within_budget(finalists[proposal], rival, *asked)
    found = {proposal: proposed}
    if second is not None and rival is not None:
        (beside,) = procedure.judge([rival], 0, *asked)
        found[second] = dataclasses.replace(
            beside, verdict=procedure.UNDECIDED, reached=False, wanted=proposed.wanted, images=None
        )
    return [found[number] for number in range(len(finalists))], between


def accuracy(right: np.ndarray) -> float:
    """The share of test images that trainings are right on: of each image the mean over those that test it.

    Parameters
    ----------
    right : (S, n) float
        1, 0, or NaN where training s does not test image i; where none is tested, so is the share.
    """
    times = (~np.isnan(right)).sum(axis=0)
    tested = times > 0
    return float(np.mean(np.nansum(right, axis=0)[tested] / times[tested])) if tested.any() else np.nan
