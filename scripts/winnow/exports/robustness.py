"""Beyond the test set: what networks lose where photographs are noisy, blurred, bright, compressed or badly aimed.

The test images are corrupted (:mod:`winnow.data.corruptions`) and each network answers for the same ones, so that what
a smaller network loses against the unpruned one is paired, image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.answers import intervals
from winnow.data import corruptions
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import prediction
from winnow.exports.prediction import Model
from winnow.files import InputError, file_digest

# Test images that are corrupted at most: on them a drop is known to a point or two, and six times as many are seen.
IMAGES = 500
# The test images as they are, beside the corruptions.
CLEAN = "none"


def measured(unpruned: Path, folder: Path, store: Store, split: Split, threads: int) -> dict[str, Any]:
    """What an exported folder's ONNX files lose against the unpruned network.

    Parameters
    ----------
    unpruned
        Folder of its kept network.
    folder
        The exported one.
    threads
        That onnxruntime may use.

    Raises
    ------
    InputError
        If one is missing or damaged, or they do not tell the store's classes.
    """
    files = sorted(folder.glob("*.onnx"), key=lambda file: (len(file.name), file.name))
    models = [prediction.load(unpruned), *(prediction.load(file, threads=threads) for file in files)]
    for model in models:
        if model.classes != store.classes:
            raise InputError(f"{model.path} does not tell the classes of {store.directory}")
    rows = split.rows("test")
    # The store has its classes one after the other: images from all over it.
    chosen = rows[np.linspace(0, rows.size - 1, min(IMAGES, rows.size)).astype(int)]
    networks = [{"file": model.path.name, "sha256": file_digest(model.path)} for model in models]
    return {
        "networks": networks,
        "test_images": int(rows.size),
        **compared([answered(model, store, chosen) for model in models]),
    }


def answered(model: Model, store: Store, rows: np.ndarray) -> dict[str, np.ndarray]:
    """On which images a network is right, (n,) bool: as they are, and of each corruption. A batch is in memory."""
    step = prediction.batch_size(model.image_size)
    right: dict[str, list[np.ndarray]] = {name: [] for name in (CLEAN, *corruptions.CORRUPTIONS)}
    for start in range(0, rows.size, step):
        batch = rows[start : start + step]
        squares = store.read(batch)
        for name, found in right.items():
            seen = squares if name == CLEAN else corruptions.corrupt(name, squares, batch, model.image_size)
            found.append(model.probabilities(seen).argmax(axis=1) == store.labels[batch])
    return {name: np.concatenate(found) for name, found in right.items()}


def compared(networks: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """What networks lose against the first of them.

    Parameters
    ----------
    networks
        As :func:`answered` gives them.

    Returns
    -------
    dict
        ``images``, how many; ``confidence`` of the intervals; ``corruptions``: of each its ``name``, and of each
        network in order the ``accuracy`` and, of all but the first, ``drops``: ``drop``, ``low`` and ``high``, over
        images alone.
    """
    first, *others = networks
    return {
        "images": int(first[CLEAN].size),
        "confidence": intervals.CONFIDENCE,
        "corruptions": [
            {
                "name": name,
                "accuracy": [float(each[name].mean()) for each in networks],
                "drops": [intervals.paired_interval(first[name][None], each[name][None])._asdict() for each in others],
            }
            for name in first
        ],
    }
