"""Results of an experiment that nobody ran: everything that its figures read, with invented numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from winnow import tables
from winnow.answers import summary
from winnow.importance import criteria, masks, sums
from winnow.importance.sums import SUMS, Sums
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


def activations_of(layers: Mapping[str, int], classes: int, images: int = 10, seed: int = 0) -> Sums:
    """Statistics of activations whose layers are the more class-specific the deeper they are."""
    generator = np.random.default_rng(seed)
    known, arrays = [], {}
    for depth, (layer, filters) in enumerate(layers.items()):
        positions = 4 ** min(5, len(layers) - depth)
        favour = generator.gamma(0.3, size=(filters, classes)) * depth**2 / len(layers)
        means = generator.gamma(2.0, size=(filters, 1)) * (1 + favour) + 0.01
        outputs = images * positions
        found = {
            "sum": means * outputs,
            "sum_sq": 2.5 * means**2 * outputs,
            "zeros": (outputs * generator.beta(1, 1 + means)).astype(np.int64),
            "max": 5 * means,
        }
        arrays |= {f"{layer}.{name}": np.ascontiguousarray(values.T) for name, values in found.items()}
        known.append({"layer": layer, "filters": filters, "activation": f"{layer}.relu", "positions": positions})
    return Sums("activations", np.full(classes, images), known, arrays)


def table_of(found: Sums) -> pd.DataFrame:
    """Statistics as a table: a row a layer, filter and class, in this order."""
    parts = []
    for layer in found.layers:
        rows = np.indices((layer["filters"], found.images.size)).reshape(2, -1)
        part = {"layer": layer["layer"], "filter": rows[0], "class": rows[1], "images": found.images[rows[1]]}
        part["positions"] = layer["positions"]
        part |= {name: found.of(layer["layer"], name).T.ravel() for name in SUMS[found.kind]}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


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
            sums.write(root / "statistics" / dataset / backbone / "activations.json", activations, {})
            scores = {
                name: scores_of(name, layers, activations)
                for name in {cell.mask_criterion for cell in cells if cell.masked}
            }
            for name, values in scores.items():
                columns = {"layer": names, "filter": filters, "value": values, "score": values}
                tables.write_table(root / "scores" / dataset / backbone / f"{name}.parquet", columns, "scores", {})
            for cell in cells:
                if cell.masked and (cell.dataset, cell.backbone) == (dataset, backbone):
                    found = masks.mask(names, scores[cell.mask_criterion], cell.scope, cell.ratio)
                    columns = {"layer": names, "filter": filters, "keep": found.keep, "rank": found.rank}
                    tables.write_table(root / "masks" / cell.mask_path({}), columns, "mask", {})


def scores_of(name: str, layers: Mapping[str, int], activations: Sums) -> np.ndarray:
    """Scores of one criterion; invented ones for those that need more than activations."""
    criterion, seed = grid.parse_criterion(name)
    generator = np.random.default_rng(seed)
    if criterion in ("mean_activation", "apoz"):
        known = criteria.CRITERIA[criterion]
        found = [known.function(activations.over_classes(layer, count)) for layer, count in layers.items()]
        return known.score(np.concatenate(found))
    values = generator.random(sum(layers.values()))
    if criterion == "average_weight":
        values += np.repeat(np.linspace(1.5, 0, len(layers)), list(layers.values()))
    return values
