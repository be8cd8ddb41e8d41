"""Biases of an int8 graph that make up for its rounded weights.

What rounding its weights adds to a layer's output is not 0 on average, the less so the fewer weights an output has:
after depthwise layers all that follows is moved, and with it answers. So that mean, over the images that calibrate, is
taken off the layer's bias [Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*,
2019].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional


def centre(graph: onnx.GraphProto, source: onnx.ModelProto, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Take off a quantized graph's biases what its rounded weights add to each output, on average.

    Layers without a bias, or that are not quantized, stay as they are.

    Parameters
    ----------
    graph
        With a DequantizeLinear behind each constant, as onnxruntime's static quantization leaves it; changed.
    source
        What was quantized: its layers have the same names. What they hear is made an output.
    batches
        Its inputs; a layer's mean is over all of them and the positions of its output.
    """
    constants, originals = ({each.name: each for each in of.initializer} for of in (graph, source.graph))
    made_by = {name: node for node in graph.node for name in node.output}
    layers = {node.name: node for node in source.graph.node}
    # By the bias's dequantization: the layer as it was, and what rounding adds to its weights.
    rounded: dict[str, tuple[onnx.NodeProto, torch.Tensor]] = {}
    for node in graph.node:
        parts = [made_by[name] for name in node.input[1:] if name in made_by]
        if node.op_type in ("Conv", "Gemm") and [part.op_type for part in parts] == 2 * ["DequantizeLinear"]:
            layer = layers[node.name]
            weight = onnx.numpy_helper.to_array(originals[layer.input[1]])
            rounded[parts[1].output[0]] = layer, torch.from_numpy(_value(parts[0], constants) - weight)

    given = {each.name for each in source.graph.input}
    asked = list(dict.fromkeys(layer.input[0] for layer, _ in rounded.values() if layer.input[0] not in given))
    del source.graph.output[:]
    source.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, asked or given))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: dict[str, torch.Tensor] = {}
    images = 0
    for batch in batches:
        values = batch | dict(zip(asked or given, session.run(None, batch), strict=True))
        images += len(next(iter(batch.values())))
        for name, (layer, error) in rounded.items():
            added = _applied(layer, error, torch.from_numpy(values[layer.input[0]])).double().sum(0)
            sums[name] = sums[name] + added if name in sums else added
    for name, total in sums.items():
        bias, scale = made_by[name].input[:2]
        steps = (total / images).numpy() / onnx.numpy_helper.to_array(constants[scale])
        kept = onnx.numpy_helper.to_array(constants[bias]) - np.rint(steps).astype(np.int32)
        constants[bias].CopyFrom(onnx.numpy_helper.from_array(kept, bias))


def _value(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> np.ndarray:
    """What a constant's dequantization gives, in float32."""
    stored, scale, zero = (onnx.numpy_helper.to_array(constants[name]) for name in node.input)
    axis = _attributes(node).get("axis", 1)
    shape = [-1 if place == axis and scale.ndim else 1 for place in range(stored.ndim)]
    return (stored.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)


def _applied(layer: onnx.NodeProto, weight: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """What a layer gives with other weights and no bias, (N, outputs): a mean over positions."""
    attributes = _attributes(layer)
    if layer.op_type == "Gemm":
        return images @ (weight.T if attributes.get("transB") else weight)
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padded = functional.pad(images, (left, right, top, bottom))
    strides, dilations = attributes.get("strides", 1), attributes.get("dilations", 1)
    outputs = functional.conv2d(padded, weight, None, strides, 0, dilations, attributes.get("group", 1))
    return outputs.mean((2, 3))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
