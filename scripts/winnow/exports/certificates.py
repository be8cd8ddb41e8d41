"""Certificates: what one file answers on all test images, beside the network that was judged and the unpruned one.

A verdict is of a recipe: what networks lose that are made in this way, over trainings and test images. A certificate is
of one file. Its accuracy and its drop against the unpruned network, trained with the same seed and judged on the same
images, are counted on the very file, by the runtime that it is for; only the images are a sample, so that the drop's
interval is over images alone: :func:`winnow.answers.intervals.paired_interval` of one training.

The weights that were judged are told by their digest, see :func:`winnow.networks.models.digest`. It stands in the
cell's metrics, in every file that is made of them, and in each certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from winnow import tables
from winnow.answers import intervals
from winnow.data.preprocessing import network_input
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import prediction
from winnow.files import InputError, read_json
from winnow.networks import descriptions
from winnow.networks.descriptions import Written
from winnow.workflow.grid import UNPRUNED

# Between two runtimes: of a logit, or, where the largest is more than 1, as a share of that.
TOLERANCE = 1e-4
# On so many of the test images a file in floating point answers as PyTorch does, and as the judged network did.
ALIKE = 0.995
# That one may have been judged in another precision, and a GPU shortens numbers in float32 too: where the logits of two
# classes are no further apart than this, as a share of the image's largest, it may have named either.
ROUNDING = {"fp32": 2**-7, "bf16": 2**-4}


class Disagreement(Exception):
    """A file does not answer as it should."""


class Compared(TypedDict):
    """What a file's answers are worth: see :func:`compared`."""

    images: int
    accuracy: float
    as_judged: int
    confidence: float
    unpruned_accuracy: float | None
    drop: float | None
    low: float | None
    high: float | None


class Agreement(TypedDict):
    """How near a file's logits are to PyTorch's: see :func:`agreement`."""

    as_pytorch: int
    largest_difference: float
    tolerance: float


class Certificate(Written, Compared):
    """What is certified of a file: see :meth:`Exam.certificate`."""

    weights_sha256: str
    runtime: str


class OfInt8(Certificate):
    """Of an int8 file too, for how many images it names the class that PyTorch names."""

    as_pytorch: int


class OfOnnx(Certificate, Agreement):
    """Of an ONNX file in floating point, how near its logits are to PyTorch's."""


@dataclasses.dataclass(frozen=True)
class Exam:
    """The test images that a cell was judged on, and what was answered then.

    Attributes
    ----------
    store : Store
    rows : (n,) int64
        The test images, as rows of the store.
    labels, judged : (n,) int64
        Their classes, and those that the cell's network took them for when it was judged.
    unpruned : (n,) int64 or None
        Those that the unpruned network of the same seed took them for; None where there is nothing to compare with: the
        cell is that network, or that one's training diverged.
    weights : str
        Digest of the weights that were judged.
    made : dict
        Where and with what they were trained and judged: ``device``, ``precision`` and ``versions``.
    spec : dict
        The cell's.
    """

    store: Store
    rows: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    unpruned: np.ndarray | None
    weights: str
    made: dict[str, Any]
    spec: dict[str, Any]

    @classmethod
    def open(cls, cell: Path, unpruned: Path | None, store: Store, split: Split) -> Exam:
        """That of a finished cell.

        Parameters
        ----------
        cell
            Its folder.
        unpruned
            Folder of the unpruned network's cell of the same seed; None only where ``cell`` is of such a network.

        Raises
        ------
        InputError
            If the cell does not say which weights were judged, the unpruned cell is missing or of something else, or
            one of them was judged on other images than the split has.
        """
        metrics, rows = read_json(cell / "metrics.json"), split.rows("test")
        if metrics.get("weights_sha256") is None:
            raise InputError(
                f"{cell / 'metrics.json'} does not say which weights were judged, since no training of it finished or "
                "it was made by an older Winnow: delete it and run again to train the cell anew"
            )
        judged, spec = _predicted(cell, store, split)
        itself = unpruned is None or unpruned.resolve() == cell.resolve()
        if itself and spec["cell"]["criterion"] != UNPRUNED:
            raise InputError(f"{cell} is of a pruned network: give the unpruned one's cell of its seed with --unpruned")
        whole = None if unpruned is None or itself else _unpruned(unpruned, spec["cell"], store, split)
        made = {name: metrics[name] for name in ("device", "precision", "versions")}
        return cls(store, rows, store.labels[rows], judged, whole, metrics["weights_sha256"], made, spec)

    def require_judged(self, weights: str, of: Path, made: Mapping[str, Any]) -> None:
        """Hold weights against those that were judged.

        Parameters
        ----------
        weights
            Their digest.
        of
            Where they lie, for the message.
        made
            Where and with what they were trained, as :attr:`made` has it of the judged ones.

        Raises
        ------
        InputError
            If they are others.
        """
        if weights != self.weights:
            raise InputError(
                f"the network in {of} is not the one that was judged: its weights have the SHA-256 {weights[:16]}…, "
                f"the judged ones {self.weights[:16]}…. It was trained on {_described(made)}, and what was judged on "
                f"{_described(self.made)}: once more, it came out otherwise. models: keep in config.yaml, or seeds: "
                "auto, keeps networks as they are judged; to judge this one anew delete the cell's metrics.json"
            )

    def certificate(self, file: Path, answers: np.ndarray, runtime: str) -> Certificate:
        """What is certified of a file.

        Parameters
        ----------
        file
            As its user gets it.
        answers : (n, classes) float
            Its logits, or anything that is largest for the same class, for the test images.
        runtime
            What ran it, with its version.

        Returns
        -------
        dict
            ``file``, ``sha256`` and ``bytes``, its own; ``weights_sha256``, of the weights that it was made of;
            ``runtime``; and what :func:`compared` says.
        """
        return {
            **descriptions.written(file),
            "weights_sha256": self.weights,
            "runtime": runtime,
            **compared(answers.argmax(1), self.labels, self.judged, self.unpruned),
        }

    def require_alike(self, answers: np.ndarray, file: Path) -> None:
        """Hold the answers of a file in floating point against those of the network that was judged.

        Raises
        ------
        Disagreement
            If more of them differ than :data:`ALIKE` has it, by more than precision explains.
        """
        apart = answers.max(1) - answers[np.arange(len(answers)), self.judged]
        near = apart <= ROUNDING[self.made["precision"]] * np.abs(answers).max(1)
        _require_alike(near, file, "the judged network did")


def answers(model: prediction.Model, store: Store, rows: np.ndarray) -> np.ndarray:
    """A file's logits for rows of a store, (n, classes) float32: a batch of images is in memory at any time.

    Raises
    ------
    Disagreement
        If they are not one number a class.
    """
    step, found = prediction.batch_size(model.image_size), []
    for start in range(0, len(rows), step):
        squares = store.read(rows[start : start + step])
        found.append(model.logits(network_input(squares, model.image_size, model.mean, model.std)))
        if found[-1].shape != (len(squares), len(model.classes)) or not np.isfinite(found[-1]).all():
            raise Disagreement(f"{model.path.name} does not answer with a number for each class")
    return np.concatenate(found)


def compared(predicted: np.ndarray, labels: np.ndarray, judged: np.ndarray, unpruned: np.ndarray | None) -> Compared:
    """What a file's answers are worth.

    Parameters
    ----------
    predicted, labels, judged : (n,) int
        The classes that the file takes the test images for, their own, and those that the judged network took them for.
    unpruned : (n,) int or None
        Those that the unpruned network of the same seed took them for.

    Returns
    -------
    dict
        ``images``, n; ``accuracy``; ``as_judged``, of how many images file and judged network say the same;
        ``unpruned_accuracy``; ``drop``, by which the file is less accurate, and ``low`` and ``high``, between which it
        is with ``confidence``, over images alone. These but the last are None without an unpruned network.
    """
    right = predicted == labels
    before = None if unpruned is None else unpruned == labels
    drop = None if before is None else intervals.paired_interval(before[None], right[None])
    return {
        "images": len(labels),
        "accuracy": float(right.mean()),
        "as_judged": int((predicted == judged).sum()),
        "confidence": intervals.CONFIDENCE,
        "unpruned_accuracy": None if before is None else float(before.mean()),
        "drop": None if drop is None else drop.drop,
        "low": None if drop is None else drop.low,
        "high": None if drop is None else drop.high,
    }


def agreement(answers: np.ndarray, reference: np.ndarray, file: Path) -> Agreement:
    """Hold a file's logits against those of PyTorch, (n, classes) each.

    Returns
    -------
    dict
        ``as_pytorch``, for how many images both name the same class; ``largest_difference``, of a logit; ``tolerance``,
        what was allowed of it.

    Raises
    ------
    Disagreement
        If one differs by more than :data:`TOLERANCE`, or fewer than :data:`ALIKE` of the classes are the same.
    """
    difference = float(np.abs(answers - reference).max())
    tolerance = TOLERANCE * max(1.0, float(np.abs(reference).max()))
    # Written so that NaN fails.
    if not difference <= tolerance:
        raise Disagreement(
            f"{file.name} does not answer as PyTorch does: on {len(answers)} test images logits differ by up to "
            f"{difference:.2g}, allowed are {tolerance:.2g}"
        )
    same = answers.argmax(1) == reference.argmax(1)
    _require_alike(same, file, "PyTorch does")
    return {"as_pytorch": int(same.sum()), "largest_difference": difference, "tolerance": tolerance}


def _require_alike(alike: np.ndarray, file: Path, whose: str) -> None:
    """Of a few images one alone is more than any share."""
    if alike.sum() < min(ALIKE * alike.size, alike.size - 1):
        raise Disagreement(
            f"{file.name} does not answer as {whose}: on {alike.size} test images {(~alike).sum()} predictions differ, "
            f"and {100 * ALIKE:g} % are to be the same"
        )


def _described(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in sorted(made["versions"].items()))
    return f"{made['device']} in {made['precision']} with {versions}"


def _predicted(cell: Path, store: Store, split: Split) -> tuple[np.ndarray, dict[str, Any]]:
    """What a cell's network took its test images for, and the cell's spec."""
    path = cell / "predictions.parquet"
    table, rows = tables.read_table(path, "predictions"), split.rows("test")
    found = {name: table[name].to_numpy() for name in ("image", "label", "predicted")}
    if not np.array_equal(found["image"], rows) or not np.array_equal(found["label"], store.labels[rows]):
        raise InputError(f"{cell} was judged on other images than {split.path} has of {store.directory}")
    return found["predicted"], tables.read_provenance(path)["spec"]


def _unpruned(folder: Path, cell: dict[str, Any], store: Store, split: Split) -> np.ndarray | None:
    """What the unpruned network of a cell's seed took the test images for; None where its training diverged."""
    if read_json(folder / "metrics.json")["status"] != "finished":
        return None
    predicted, spec = _predicted(folder, store, split)
    found = {name: spec["cell"][name] for name in ("dataset", "criterion", "init", "seed")}
    expected = {"dataset": cell["dataset"], "criterion": UNPRUNED, "init": "inherited", "seed": cell["seed"]}
    if found != expected:
        raise InputError(f"{folder} is not the unpruned network of {expected}, but of {found}")
    return predicted
