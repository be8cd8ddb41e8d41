"""Exported networks that nobody trained: ONNX files made in milliseconds, which tell images by their colors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from winnow.data.preprocessing import Form
from winnow.networks import descriptions

CLASSES = ("blue", "green", "red")
# Of a class (row) to the mean of each channel, red first.
BY_COLOR = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=np.float32)


def write(
    path: Path, classes: Sequence[str] = CLASSES, weights: np.ndarray = BY_COLOR, size: int = 12, store_size: int = 16
) -> Path:
    """An ONNX file whose logits are the channels' means times weights (classes, 3)."""
    form = Form(store_size)
    described = {
        "classes": list(classes),
        "store_size": store_size,
        "reading": form.reading,
        "image_size": size,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(classes)])],
        [numpy_helper.from_array(np.ascontiguousarray(10 * weights.T, dtype=np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {descriptions.KEY: descriptions.pack(described)})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
