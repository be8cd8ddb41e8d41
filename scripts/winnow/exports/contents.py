"""What the ``model.json`` of an exported network says, key by key. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from winnow.networks.descriptions import Written

if TYPE_CHECKING:
    from winnow.exports.certificates import Certificate
    from winnow.exports.quantization import Quantized


class Size(TypedDict):
    """What a network takes: parameters, multiply-accumulates of an image, bytes of its weights."""

    params: int
    macs: int
    bytes: int


class Layer(TypedDict):
    """A layer that has weights: its widths, the outputs that it had ``unpruned``, and a convolution's ``kernel``."""

    layer: str
    kind: str
    inputs: int
    outputs: int
    unpruned: int
    kernel: NotRequired[list[int]]


class Provenance(TypedDict):
    """What made it: the specs of its cell and of the export, and where and with what it was trained."""

    cell: dict[str, Any]
    export: dict[str, Any]
    versions: dict[str, str]
    device: str
    precision: str


class Tensor(TypedDict):
    """The graph's input or output; in its shape a side of any length is a word."""

    name: str
    type: str
    shape: list[str | int]


class Interface(TypedDict):
    """The graph's one input and one output."""

    input: Tensor
    output: Tensor


class Graph(Written, Interface):
    """The ONNX file. ``not_by``: of a runtime that only an extra has, why there is no certificate by it."""

    not_by: NotRequired[dict[str, str]]


class Network(TypedDict):
    """All that is to be known of a network, less what is known of its files.

    ``reading``, ``preprocessing``: how a file becomes what the network sees, for programs and in words. ``images``:
    part → how many; ``skipped``: files that were none. ``answer``: of the experiment that chose it, None where none
    did. The rest is what a cell's ``metrics.json`` says, see :class:`winnow.training.metrics.Described`.
    """

    architecture: str
    head: str
    classes: list[str]
    image_size: int
    store_size: int
    reading: dict[str, Any]
    mean: list[float]
    std: list[float]
    params: int
    macs: int
    bytes: int
    unpruned: Size
    accuracy: float
    class_accuracy: float
    per_class: dict[str, float]
    val_accuracy: float | None
    epoch: int
    requested_ratio: float
    achieved_ratio: float
    learning_rate: float
    weights_sha256: str
    layers: list[Layer]
    images: dict[str, int]
    skipped: int
    preprocessing: list[str]
    provenance: Provenance
    answer: dict[str, Any] | None


class Exported(Network):
    """The same, and its files: what each is, what they are worth, and what they lose on corrupted images.

    Certificates say more of an ONNX file: :class:`winnow.exports.certificates.OfOnnx` and ``OfInt8``.
    """

    weights: Written
    onnx: Graph
    int8: Quantized
    certificates: list[Certificate]
    corruptions: dict[str, Any] | None
