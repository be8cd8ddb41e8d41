"""A finished cell as a folder that its user takes home: the network twice, what it is, and how it is used.

The folder is whole or absent, and it is checked before it appears: the ONNX file answers as the safetensors file does,
both as they were written, on images of the data set's test split.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from torch import nn

from winnow import tables
from winnow.data import preprocessing
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import cards, graphs, prediction
from winnow.files import InputError, atomic_folder, write_json
from winnow.networks import backbones, descriptions, models, surgery

CHECKED_IMAGES = 100
TOLERANCE = 1e-4  # of a logit


class Disagreement(Exception):
    """The ONNX file does not answer as the network does."""


def export(
    cell: Path,
    network: Path,
    dataset: Path,
    split: Path,
    output: Path,
    spec: dict[str, Any],
    threads: int,
    answer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Export a cell.

    Parameters
    ----------
    cell
        Folder of a finished cell.
    network
        Folder of its network, as it was kept or trained once more.
    dataset
        Folder of the store that it was judged on.
    split
        Of this store: which images it was judged on.
    output
        The folder to make. An earlier export there is replaced.
    spec
        Of this export, for its provenance.
    threads
        That the check may use.
    answer
        Of the experiment that chose the cell, as :mod:`winnow.answers.words` takes it; None where none did.

    Returns
    -------
    dict
        The content of the new ``model.json``.

    Raises
    ------
    InputError
        If the cell is not finished, its model was not kept, its files do not belong together, or the output is a folder
        of something else.
    Disagreement
        If the check fails. There is no folder then.
    """
    if output.exists() and not (output / descriptions.DESCRIPTION).exists():
        raise InputError(f"{output} exists and is no exported model: give another --output")
    store = Store.open(dataset)
    parts = Split.open(split, store)
    network, description, measured = finished(cell, network, store, parts)
    description = described(network, description, parts, store, spec) | {"answer": answer}
    rows = parts.rows("test")
    # The store has its classes one after the other: images from all over it.
    rows = rows[np.linspace(0, rows.size - 1, min(CHECKED_IMAGES, rows.size)).astype(int)]
    with atomic_folder(output) as folder:
        weights = models.save(folder, network, description)
        onnx = folder / descriptions.FILES["onnx"]
        graphs.write(onnx, network, description)
        whole = description | {"weights": weights, "onnx": descriptions.written(onnx) | graphs.interface(description)}
        write_json(folder / descriptions.DESCRIPTION, whole)
        whole["onnx"]["check"] = check(folder, store.read(rows), measured[rows], threads)
        write_json(folder / descriptions.DESCRIPTION, whole)
        (folder / "README.md").write_text(cards.card(whole, output.name), encoding="utf-8")
        (folder / "example.py").write_text(cards.EXAMPLE, encoding="utf-8")
        # The very code that the images went through that the network has learned from.
        shutil.copyfile(preprocessing.__file__, folder / "preprocessing.py")
    return whole


def finished(cell: Path, place: Path, store: Store, split: Split) -> tuple[nn.Module, dict[str, Any], np.ndarray]:
    """A cell's network, its description, and what the cell predicted: for each row of the store a class, or −1.

    Raises
    ------
    InputError
        If the network was not kept, its training diverged, or it is not of this cell, store and split.
    """
    if not (place / models.WEIGHTS).exists():
        raise InputError(f"{place} has no network to export, it was not kept: set models: keep for it in config.yaml")
    network, description = models.load(place)
    table = cell / "predictions.parquet"
    predictions = tables.read_table(table, "predictions")
    if tables.read_provenance(table)["spec"] != description["spec"]:
        raise InputError(f"the network in {place} is not of the cell in {cell}: their specs differ")
    rows = predictions["image"].to_numpy()
    same = description["classes"] == store.classes and np.array_equal(rows, split.rows("test"))
    if not same or not np.array_equal(predictions["label"].to_numpy(), store.labels[rows]):
        raise InputError(f"{cell} was judged on other images than {split.path} has of {store.directory}")
    measured = np.full(store.labels.size, -1)
    measured[rows] = predictions["predicted"].to_numpy()
    return network, description, measured


def described(
    network: nn.Module, kept: dict[str, Any], split: Split, store: Store, spec: dict[str, Any]
) -> dict[str, Any]:
    """All that is to be known about a network, less what is known of its files."""
    unpruned = backbones.build(kept["architecture"], kept["head"], len(kept["classes"]))
    params, macs = surgery.cost(unpruned, kept["image_size"])
    form = preprocessing.Form.of(kept["store_size"], kept["reading"])
    made = ("versions", "device", "precision")
    return {name: value for name, value in kept.items() if name not in ("spec", *made)} | {
        "layers": layers(network, unpruned),
        "unpruned": {"params": params, "macs": macs, "bytes": models.stored_bytes(unpruned)},
        "bytes": models.stored_bytes(network),
        "images": split.counts,
        "skipped": len(store.manifest.get("skipped", ())),
        "preprocessing": preprocessing.steps(form, kept["image_size"], kept["mean"], kept["std"]),
        "provenance": {"cell": kept["spec"], "export": spec, **{name: kept[name] for name in made}},
    }


def layers(network: nn.Module, unpruned: nn.Module) -> list[dict[str, Any]]:
    """Every layer that has weights, in network order: name, kind, widths, and the outputs that it had unpruned."""
    found = []
    for name, module in network.named_modules():
        before = unpruned.get_submodule(name)
        if isinstance(module, nn.Conv2d):
            widths = {"inputs": module.in_channels, "outputs": module.out_channels, "unpruned": before.out_channels}
            widths["kernel"] = list(module.kernel_size)
        elif isinstance(module, nn.Linear):
            widths = {"inputs": module.in_features, "outputs": module.out_features, "unpruned": before.out_features}
        elif isinstance(module, nn.BatchNorm2d):
            widths = {"inputs": module.num_features, "outputs": module.num_features, "unpruned": before.num_features}
        else:
            continue
        found.append({"layer": name, "kind": type(module).__name__, **widths})
    return found


def check(folder: Path, squares: np.ndarray, measured: np.ndarray, threads: int) -> dict[str, Any]:
    """Hold a folder's ONNX file against its safetensors file.

    Parameters
    ----------
    squares : (N, S, S, C) uint8
        Decoded images.
    measured : (N,)
        What the cell predicted for them when it was judged, perhaps on another device or in another precision.

    Raises
    ------
    Disagreement
        If a prediction differs, or a logit by more than :data:`TOLERANCE`.
    """
    answers = []
    for model in prediction.load(folder), prediction.load(folder, onnx=True, threads=threads):
        views = preprocessing.network_input(squares, model.image_size, model.mean, model.std)
        step = prediction.batch_size(model.image_size)
        answers.append(np.concatenate([model.logits(views[at : at + step]) for at in range(0, len(views), step)]))
    by_torch, by_onnx = answers
    difference = float(np.abs(by_torch - by_onnx).max())
    predicted = by_torch.argmax(1)
    same = int((predicted == by_onnx.argmax(1)).sum())
    # Written so that NaN fails.
    if same < len(squares) or not difference <= TOLERANCE:
        raise Disagreement(
            f"the ONNX file does not answer as PyTorch does: on {len(squares)} test images {len(squares) - same} "
            f"predictions differ, and logits by up to {difference:.2g}, allowed are {TOLERANCE:g}"
        )
    return {
        "images": len(squares),
        "same_predictions": same,
        "largest_difference": difference,
        "tolerance": TOLERANCE,
        "as_measured": int((predicted == measured).sum()),
        "onnxruntime": onnxruntime.__version__,
    }
