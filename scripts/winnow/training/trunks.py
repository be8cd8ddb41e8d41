"""A trunk: what cells that prune while they train begin with, trained once for all that share it.

Of ``fine_tune_first`` it is the unpruned network after half of the epochs, whatever the criterion, scope and ratio; of
``iterative_3`` the network after the first of its three steps, which those share that begin with the same mask.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from winnow import tables
from winnow.files import InputError, atomic_path, file_digest, read_json, write_json
from winnow.training.loop import Training, table
from winnow.training.metrics import Surroundings

WEIGHTS, HISTORY, MASK, MANIFEST = FILES = ("trunk.safetensors", "history.parquet", "mask.parquet", "trunk.json")


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A trunk as its cells take it up.

    Attributes
    ----------
    keep, rank : (units,) array or None
        Its mask; None where it is not pruned.
    trained : Training or None
        None where it diverged; then ``reason`` says why, and its cells have diverged as it did.
    micro_batch : int
        Images a pass that its memory had room for.
    seconds : dict of str to float
        What it took, by part.
    """

    keep: np.ndarray | None
    rank: np.ndarray | None
    trained: Training | None
    reason: str | None
    micro_batch: int
    seconds: dict[str, float]


class _Told(TypedDict, total=False):
    """What a trunk's manifest says of a training that came to its end."""

    epoch: int
    val_accuracy: float | None
    evaluation_seconds: float
    resumed: int


class Manifest(_Told, Surroundings):
    """A trunk's ``trunk.json``: ``pruned`` is whether it lacks units, the rest as in a cell's metrics."""

    status: Literal["finished", "diverged"]
    reason: str | None
    pruned: bool
    micro_batch: int
    seconds: dict[str, float]
    files: dict[str, str]
    spec: dict[str, Any]


def write(
    output: dict[str, Path], trunk: Trunk, mask: dict[str, Any], surroundings: Surroundings, spec: dict[str, Any]
) -> None:
    """Write a trunk's files.

    Parameters
    ----------
    output
        Name, one of :data:`FILES` → path.
    mask
        The columns of its mask, which has all units where it is not pruned.
    surroundings
        Where and with what it was trained.
    """
    trained = trunk.trained
    state = {name: tensor.cpu().contiguous() for name, tensor in trained.state.items()} if trained else {}
    with atomic_path(output[WEIGHTS]) as temporary:
        save_file(state, temporary)
    tables.write_table(output[HISTORY], table(trained.history if trained else []), "history", {"spec": spec})
    tables.write_table(output[MASK], mask, "mask", {"spec": spec})
    told: _Told = {}
    if trained is not None:
        told = {
            "epoch": trained.epoch,
            "val_accuracy": trained.val_accuracy,
            "evaluation_seconds": trained.evaluation_seconds,
            "resumed": trained.resumed,
        }
    manifest: Manifest = {
        **surroundings,
        **told,
        "status": "finished" if trained else "diverged",
        "reason": trunk.reason,
        "pruned": trunk.keep is not None,
        "micro_batch": trunk.micro_batch,
        "seconds": trunk.seconds,
        "files": {name: file_digest(output[name]) for name in (WEIGHTS, HISTORY, MASK)},
        "spec": spec,
    }
    # The last file: a trunk that has its manifest is finished.
    write_json(output[MANIFEST], manifest)


def read(folder: Path, device: str) -> Trunk:
    """Read a trunk's folder, its weights to a device.

    Raises
    ------
    InputError
        If a file is missing, or not the one that the manifest was written for; the message names it.
    """
    manifest: Manifest = read_json(folder / MANIFEST)
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if file_digest(path) != digest:
            raise InputError(
                f"{path} is not the file that {folder / MANIFEST} describes: it was changed or cut short;"
                " delete it and run again to make it anew"
            )
    keep = rank = trained = None
    if manifest["pruned"]:
        mask = tables.read_table(folder / MASK, "mask")
        keep, rank = mask["keep"].to_numpy(zero_copy_only=False), mask["rank"].to_numpy().astype(np.int64)
    if manifest["status"] == "finished":
        try:
            state = load_file(folder / WEIGHTS, device)
        except SafetensorError as error:
            raise InputError(f"{folder / WEIGHTS} cannot be read ({error})") from None
        history = tables.read_table(folder / HISTORY, "history").to_pylist()
        trained = Training(
            state,
            manifest["epoch"],
            manifest["val_accuracy"],
            history,
            manifest["evaluation_seconds"],
            manifest["resumed"],
        )
    return Trunk(keep, rank, trained, manifest["reason"], manifest["micro_batch"], manifest["seconds"])
