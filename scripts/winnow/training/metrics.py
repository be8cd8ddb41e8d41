"""What is told of a training: the rows of its history, and a cell's ``metrics.json``, key by key. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class Epoch(TypedDict):
    """A row of the table ``history``, see :data:`winnow.tables.SCHEMAS`."""

    epoch: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float


class Surroundings(TypedDict):
    """Where and with what a network was trained.

    ``device`` is its name, ``lease`` what ``CUDA_VISIBLE_DEVICES`` calls it, None for the CPU. ``peak_mb``: the most
    memory that the job had. ``versions``: of the libraries that change numbers, and of Winnow.
    """

    device: str
    lease: str | None
    precision: str
    threads: int
    peak_mb: dict[str, int | None]
    versions: dict[str, str]


class Judged(TypedDict):
    """What came of a training: of one that diverged the reason, and none of what is known of a network.

    ``class_accuracy`` is the mean of ``per_class``, class → accuracy; ``epoch`` the one whose weights were judged;
    ``resumed`` how often it went on from a checkpoint.
    """

    status: Literal["finished", "diverged"]
    reason: str | None
    accuracy: float | None
    class_accuracy: float | None
    test_loss: float | None
    val_accuracy: float | None
    epoch: int | None
    weights_sha256: str | None
    per_class: dict[str, float]
    resumed: int
    images_per_second: float | None


class Described(Judged):
    """The same, and what the network is: parameters, multiply-accumulates of an image, bytes of its weights."""

    split: str
    learning_rate: float
    params: int
    macs: int
    bytes: int
    requested_ratio: float
    achieved_ratio: float


class Metrics(Described, Surroundings):
    """A cell's ``metrics.json``.

    ``micro_batch``: the most images that went through the network at once. ``batch_norm``: whether that makes a
    difference. ``files``: digests of the cell's other files. ``seconds``: part of the job → how long it took.
    """

    micro_batch: int
    batch_norm: bool
    files: dict[str, str]
    seconds: dict[str, float]
    spec: dict[str, Any]
