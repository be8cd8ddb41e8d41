"""Results of an experiment that nobody ran: everything that its figures read, with invented numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow import tables
from winnow.answers import summary
from winnow.importance import criteria, masks
from winnow.workflow import grid
from winnow.workflow.grid import Cell

LOSSES = {"unpruned": 0, "apoz": 0.05, "mean_activation": 0.1, "average_weight": 0.2, "random": 0.6, "any": 0.1}


def metrics_of(cell: Cell, classes: Sequence[str] = ("a", "b"), top: float = 0.95, spread: float = 0.002) -> dict:
    """A finished cell's metrics: accuracy falls with the ratio and the criterion, in the last class most."""
    accuracy = top - LOSSES.get(cell.criterion, 0.3) * cell.ratio + spread * (cell.seed - 1)
    accuracy -= 0.05 * (cell.init == "random")
    left = 1 - cell.ratio + 0.004
    return {
        "status": "finished",
        "accuracy": accuracy,
        "class_accuracy": accuracy,
        "val_accuracy": accuracy,
        "per_class": {
            name: max(0.0, accuracy - 0.5 * cell.ratio * (number + 1 == len(classes)))
            for number, name in enumerate(classes)
        },
        "params": round(1e6 * left**2),
        "macs": round(1e8 * left ** (1.5 if cell.criterion == "average_weight" else 2)),
        "bytes": 4000,
        "achieved_ratio": cell.ratio - 0.004 if cell.ratio else 0.0,
        "seconds": {"total": 1.0},
    }


def activations_of(layers: Mapping[str, int], classes: int, images: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """A table of activations whose layers are the more class-specific the deeper they are."""
    generator = np.random.default_rng(seed)
    parts = []
    for depth, (layer, filters) in enumerate(layers.items()):
        positions = 4 ** min(5, len(layers) - depth)
        favour = generator.gamma(0.3, size=(filters, classes)) * depth**2 / len(layers)
        means = generator.gamma(2.0, size=(filters, 1)) * (1 + favour) + 0.01
        outputs = images * positions
        parts.append(
            {
                "layer": np.repeat(layer, filters * classes),
                "filter": np.repeat(np.arange(filters), classes),
                "class": np.tile(np.arange(classes), filters),
                "images": np.full(filters * classes, images),
                "positions": np.full(filters * classes, positions),
                "sum": (means * outputs).ravel(),
                "sum_sq": (2.5 * means**2 * outputs).ravel(),
                "zeros": (outputs * generator.beta(1, 1 + means)).astype(np.int64).ravel(),
                "max": (5 * means).ravel(),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def results(
    root: Path,
    experiment: Mapping[str, Any],
    layers: Mapping[str, int],
    classes: Sequence[str],
    diverged: Callable[[Cell], bool] = lambda cell: False,
) -> None:
    """Write an experiment's cells, masks, scores, statistics and summary below ``root``."""
    cells = grid.cells(experiment)
    rows = []
    for cell in cells:
        found = metrics_of(cell, classes)
        if diverged(cell):
            found = {"status": "diverged", "reason": "the loss is nan", "per_class": {}}
        path = root / "cells" / cell.path / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found))
        rows.append((cell, found))
    tables.write_table(root / "summary.parquet", summary.summarise(rows), "summary", {})

    names = np.repeat(list(layers), list(layers.values()))
    filters = np.concatenate([np.arange(count) for count in layers.values()])
    for seed, dataset in enumerate(experiment["datasets"]):
        (root / "datasets" / dataset).mkdir(parents=True)
        (root / "datasets" / dataset / "manifest.json").write_text(json.dumps({"classes": list(classes)}))
        for backbone in experiment["backbones"]:
            activations = activations_of(layers, len(classes), seed=seed)
            place = root / "statistics" / dataset / backbone / "activations.parquet"
            tables.write_table(place, activations, "activations", {})
            scores = {
                name: scores_of(name, layers, activations)
                for name in {cell.mask_criterion for cell in cells if cell.mask}
            }
            for name, values in scores.items():
                columns = {"layer": names, "filter": filters, "value": values, "score": values}
                tables.write_table(root / "scores" / dataset / backbone / f"{name}.parquet", columns, "scores", {})
            for cell in cells:
                if cell.mask and (cell.dataset, cell.backbone) == (dataset, backbone):
                    found = masks.mask(names, scores[cell.mask_criterion], cell.scope, cell.ratio)
                    columns = {"layer": names, "filter": filters, "keep": found.keep, "rank": found.rank}
                    tables.write_table(root / "masks" / cell.mask, columns, "mask", {})


def scores_of(name: str, layers: Mapping[str, int], activations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Scores of one criterion; invented ones for those that need more than activations."""
    criterion, seed = grid.parse_criterion(name)
    generator = np.random.default_rng(seed)
    if criterion in ("mean_activation", "apoz"):
        order = activations["class"].max() + 1
        columns = {key: activations[key].reshape(-1, order).sum(axis=1) for key in ("images", "sum", "zeros")}
        columns["positions"] = activations["positions"].reshape(-1, order)[:, 0]
        known = criteria.CRITERIA[criterion]
        return known.score(known.function(columns))
    values = generator.random(sum(layers.values()))
    if criterion == "average_weight":
        values += np.repeat(np.linspace(1.5, 0, len(layers)), list(layers.values()))
    return values
