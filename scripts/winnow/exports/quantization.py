"""int8: a network as an ONNX file whose weights and activations have eight bits, by onnxruntime's static quantization.

A QuantizeLinear and a DequantizeLinear stand around each operator (QDQ). Weights are signed, symmetric, with a scale a
channel; activations unsigned with a zero point a tensor, so that what a ReLU or ReLU6 cuts off is cut off by the range
and takes none of the 256 steps. The ranges are those of training images, as the network gets them. What rounding adds
to a layer's outputs on average is taken off its bias (:mod:`winnow.exports.centring`).

The file is made in the first of :data:`SCHEMES` that loses no more than :data:`ALLOWED` on the validation images
against the file in floating point. Where none does it is, of those whose loss may be chance, as few images tell little,
the one whose answers are nearest to that file's; where there is no such one either, there is none. Per tensor is no
scheme: it is coarser, and every runtime from onnxruntime 1.16 on takes a scale a channel.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import onnx
import scipy.special
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from winnow.data.preprocessing import network_input
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import centring, certificates, graphs, prediction
from winnow.networks import descriptions, latency

# So many training images say which ranges activations have, a batch at a time.
CALIBRATED = 256
BATCH = 8
# Share of the images on which int8 may be wrong where floating point is right, less those where it is the other way.
ALLOWED = 0.005
# A loss that is larger may be chance where no more than this share of the images changes sides.
CHANGED = 0.05
# The lowest opset with a scale a channel.
OPSET = 13


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A way to quantize.

    Attributes
    ----------
    averaged : bool
        A tensor's range is the mean of its extremes over batches, not the extremes over all: outliers are cut off.
    whole : bool
        Weights have all 8 bits. Otherwise 7 (reduced range): x86 processors without VNNI add two products of 8 bits up
        in 16, where they may not fit, so that such a file answers otherwise there than where it was judged.
    ends : bool
        The first layer and the last one are quantized.
    """

    averaged: bool
    whole: bool
    ends: bool

    @property
    def name(self) -> str:
        """As people read it."""
        parts = ["a scale a channel", f"{'all 8' if self.whole else '7'} bits of each weight"]
        if self.averaged:
            parts.append("ranges that cut off outliers")
        if not self.ends:
            parts.append("the first and the last layer in floating point")
        return ", ".join(parts)


SCHEMES = (
    Scheme(averaged=False, whole=False, ends=True),
    Scheme(averaged=True, whole=False, ends=True),
    Scheme(averaged=True, whole=False, ends=False),
    Scheme(averaged=True, whole=True, ends=False),
    Scheme(averaged=False, whole=True, ends=False),
)


class Tried(TypedDict):
    """A scheme, how many images it lost of those that decide, and on how many one of both files alone was right."""

    scheme: str
    lost: int
    changed: int


class DecidedOn(TypedDict):
    """So many images of a part decide."""

    part: str
    images: int


class Quantized(TypedDict):
    """What ``model.json`` says of the int8 file: see :func:`write`."""

    calibration: int
    decided_on: DecidedOn
    tried: list[Tried]
    left_out: NotRequired[str]
    scheme: NotRequired[str]
    weight_bits: NotRequired[int]
    file: NotRequired[str]
    sha256: NotRequired[str]
    bytes: NotRequired[int]
    latency: NotRequired[list[Timed]]
    not_by: NotRequired[dict[str, str]]


class Timed(TypedDict):
    """How long both files take for a batch: see :func:`timed`."""

    images: int
    pairs: int
    threads: int
    fp32_ms: dict[str, float]
    int8_ms: dict[str, float]
    speedup: dict[str, float]


def write(
    folder: Path, network: nn.Module, description: Mapping[str, Any], store: Store, split: Split, threads: int
) -> Quantized:
    """Put a network's int8 file into a folder that has its ONNX file, or none.

    Parameters
    ----------
    network, description
        As they were written into the folder.
    store, split
        Whose training images calibrate and whose validation images decide; without such, training images.
    threads
        That onnxruntime may use.

    Returns
    -------
    dict
        ``tried``, an object a scheme in the order of trial: its ``scheme``, how many images it ``lost`` of those that
        decide, ``decided_on`` ``images`` of this ``part``, and on how many one of both files alone was right
        (``changed``); ``calibration``, how many images; and either the file's own, see
        :func:`winnow.networks.descriptions.written`, and the ``scheme`` and ``weight_bits`` that it was made with, or
        ``left_out``, why there is none.
    """
    fp32 = folder / descriptions.FILES["onnx"]
    part = "val" if split.counts["val"] else "train"
    rows, labels = split.rows(part), store.labels[split.rows(part)]
    reference = certificates.answers(prediction.load(fp32, threads=threads), store, rows)
    right = reference.argmax(1) == labels
    images = spread(split.rows("train"), CALIBRATED)
    record: Quantized = {
        "calibration": len(images),
        "decided_on": {"part": part, "images": len(rows)},
        "tried": [],
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        base, made, taken = (Path(scratch) / name for name in ("base.onnx", "made.onnx", "taken.onnx"))
        graphs.write(base, network, description, OPSET)
        nearest = math.inf
        for scheme in SCHEMES:
            quantize(base, made, scheme, _Reader(store, images, description), description)
            found = certificates.answers(prediction.load(made, threads=threads), store, rows)
            correct = found.argmax(1) == labels
            lost, changed = int(right.sum()) - int(correct.sum()), int((right != correct).sum())
            record["tried"].append({"scheme": scheme.name, "lost": lost, "changed": changed})
            passed = lost <= allowed(len(rows))
            distance = divergence(reference, found)
            if passed or (may_be_chance(lost, changed, len(rows)) and distance < nearest):
                record["scheme"], record["weight_bits"], nearest = scheme.name, 7 + scheme.whole, distance
                made.replace(taken)
            if passed:
                break
        if "scheme" not in record:
            reason = f"it loses more than {100 * ALLOWED:g} points on the images that decide, whichever way it is made"
            return {**record, "left_out": reason}
        if taken.stat().st_size >= fp32.stat().st_size:
            return left_out(taken, record, f"it is no smaller than {fp32.name}")
        path = taken.rename(folder / descriptions.FILES["int8"])
    return {**record, **descriptions.written(path)}


def timed(folder: Path, threads: int) -> list[Timed]:
    """How long both ONNX files take for a batch of noise on this machine, in turns.

    Returns
    -------
    list of dict
        One a size of batch: ``images``, ``fp32_ms`` and ``int8_ms``, milliseconds a batch, and ``speedup``, pair by
        pair, each with median and quartiles; ``pairs`` and ``threads``.
    """
    both = [prediction.load(folder / descriptions.FILES[kind], threads=threads) for kind in ("onnx", "int8")]
    size, channels = both[0].image_size, len(both[0].mean)
    found: list[Timed] = []
    for images in latency.BATCHES:
        noise = np.random.default_rng(0).standard_normal((images, channels, size, size), dtype=np.float32)
        seconds = latency.in_turn(*(functools.partial(_seconds, model, noise) for model in both))
        found.append(
            {
                "images": images,
                "pairs": len(seconds),
                "threads": threads,
                "fp32_ms": latency.quartiles(1000 * seconds[:, 0]),
                "int8_ms": latency.quartiles(1000 * seconds[:, 1]),
                "speedup": latency.quartiles(seconds[:, 0] / seconds[:, 1]),
            }
        )
    return found


def _seconds(model: prediction.Model, images: np.ndarray) -> float:
    start = time.perf_counter()
    model.logits(images)
    return time.perf_counter() - start


def left_out(path: Path, made: Quantized, reason: str) -> Quantized:
    """Take a file away again; returns what is to be said in the place of what was: nothing of the file, and why."""
    path.unlink(missing_ok=True)
    kept = {"calibration": made["calibration"], "decided_on": made["decided_on"], "tried": made["tried"]}
    return cast("Quantized", {**kept, "left_out": reason})


def allowed(images: int) -> float:
    """How many of so many images int8 may lose. Of a few images one alone is more than any share."""
    return max(1.0, ALLOWED * images)


def may_be_chance(lost: int, changed: int, images: int) -> bool:
    """Whether a loss is within a standard error of what is allowed, and few of the images that decide changed sides.

    Where int8 is worth as much, each of those that changed is lost or won as a coin falls.
    """
    return lost <= allowed(images) + math.sqrt(changed) and changed <= max(1.0, CHANGED * images)


def divergence(reference: np.ndarray, answers: np.ndarray) -> float:
    """How far answers are from others, both logits (n, classes): Kullback and Leibler's of their probabilities, a mean.

    How many images are lost is a count of few; this changes a little with each of them.
    """
    sure, other = (scipy.special.log_softmax(each.astype(np.float64), axis=1) for each in (reference, answers))
    return float((np.exp(sure) * (sure - other)).sum(1).mean())


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly from all over: a store has its classes one after the other."""
    return rows[np.linspace(0, rows.size - 1, min(most, rows.size)).astype(int)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Images of a store, as a network gets them, batch by batch."""

    def __init__(self, store: Store, rows: np.ndarray, description: Mapping[str, Any]):
        self._of = store, rows, description
        self.begin()

    @staticmethod
    def _read(store: Store, rows: np.ndarray, description: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
        # Batches that are as mixed as all are: their extremes are averaged.
        parts = max(1, len(rows) // BATCH)
        for first in range(parts):
            squares = store.read(rows[first::parts])
            form = description["image_size"], description["mean"], description["std"]
            yield {graphs.INPUT: network_input(squares, *form)}

    def begin(self) -> None:
        """Begin anew."""
        self._batches = self._read(*self._of)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(source: Path, target: Path, scheme: Scheme, reader: _Reader, description: Mapping[str, Any]) -> None:
    """Quantize a file in floating point of at least :data:`OPSET`."""
    model = onnx.load(source)
    layers = [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    # What is worked out without the image is exact: how much a pool pads, for one.
    left_alone = _without(model.graph, graphs.INPUT)
    # It advises on what has been done: nothing is left to fold or to infer.
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quantize_static(
            source,
            target,
            reader,
            QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not scheme.whole,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_alone if scheme.ends else [*left_alone, layers[0], layers[-1]],
            extra_options={"CalibMovingAverage": scheme.averaged},
        )
    finally:
        logger.setLevel(level)
    model = onnx.load(target)
    reader.begin()
    centring.centre(model.graph, onnx.load(source), iter(reader.get_next, None))
    _multiply(model.graph)
    _share(model.graph)
    _shorten(model.graph)
    graphs.describe(model, description)
    onnx.save(model, target)


def _without(graph: onnx.GraphProto, name: str) -> list[str]:
    """The names of nodes to which nothing comes of an input."""
    reached, others = {name}, []
    for node in graph.node:
        if reached.isdisjoint(node.input):
            others.append(node.name)
        else:
            reached.update(node.output)
    return others


def _multiply(graph: onnx.GraphProto) -> None:
    """Let a bias's scales be the product that they are, of those of images and weights: runtimes multiply constants."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    products, replaced = [], []
    for layer in graph.node:
        parts = [made_by[name] for name in layer.input[:3] if name in made_by]
        if len(parts) < 3 or any(part.op_type != "DequantizeLinear" for part in parts):
            continue
        images, weights, scale = (part.input[1] for part in parts)
        by_hand = onnx.numpy_helper.to_array(constants[images]) * onnx.numpy_helper.to_array(constants[weights])
        if scale in constants and np.array_equal(by_hand, onnx.numpy_helper.to_array(constants[scale])):
            products.append(onnx.helper.make_node("Mul", [images, weights], [scale]))
            replaced.append(constants.pop(scale))
    for tensor in replaced:
        graph.initializer.remove(tensor)
    # The limits of what was a Clip are nobody's.
    used = {name for node in graph.node for name in node.input}
    nodes = [*products, *(node for node in graph.node if node.op_type != "Constant" or node.output[0] in used)]
    del graph.node[:]
    graph.node.extend(nodes)


def _share(graph: onnx.GraphProto) -> None:
    """Let equal constants be one: zero points, of which there is one a channel, are all zero."""
    first: dict[bytes, str] = {}
    names, kept = {}, []
    for tensor in graph.initializer:
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        names[tensor.name] = first.setdefault(hashlib.sha256(nameless.SerializeToString()).digest(), tensor.name)
        if names[tensor.name] == tensor.name:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _shorten(graph: onnx.GraphProto) -> None:
    """Let tensors have numbers for names: most are new, and their names would be a tenth of a small file."""
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept else names.setdefault(name, str(len(names)))

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
        node.ClearField("name")
    del graph.value_info[:]
