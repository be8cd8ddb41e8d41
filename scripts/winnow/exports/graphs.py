"""A network as an ONNX graph that old runtimes take as well as new ones.

The file has the lowest opset that has all of the network's operators, from :data:`LOWEST` on, and the IR version that
came with it. Batch norms after convolutions are folded into them; what a graph need not have is not in it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import nn
from torch.onnx.errors import OnnxExporterError

from winnow.exports.contents import Interface
from winnow.files import InputError, first_line
from winnow.networks import backbones, descriptions

# Opset 10 is the first whose pools round up. From 11 on Clip has its limits as inputs: OpenCV's dnn 4.6 refuses those.
LOWEST, HIGHEST = 10, 20
INPUT, OUTPUT = "image", "logits"
# timm's layers that pad by the size of the images that they are given.
PADDING = ("Conv2dSame", "MaxPool2dSame", "AvgPool2dSame")


class Pool(nn.Module):
    """An adaptive average pool whose output's sides do not divide its input's, as two products with constants.

    Where one does not divide the other, the windows differ in size, and no operator of ONNX has such ones.

    Parameters
    ----------
    height, width
        Of the input.
    rows, columns
        Of the output.
    """

    down: torch.Tensor
    across: torch.Tensor

    def __init__(self, height: int, width: int, rows: int, columns: int):
        super().__init__()
        self.register_buffer("down", _shares(height, rows))
        self.register_buffer("across", _shares(width, columns))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # The constant is the second factor in both: OpenCV's dnn takes no other.
        return ((images @ self.across).transpose(2, 3) @ self.down).transpose(2, 3)


class Padded(nn.Module):
    """One of timm's layers that pad as TensorFlow does, for images of one size: what it pads is no matter of the batch.

    Parameters
    ----------
    part
        A convolution or a pool, made of torch's, that works out what it pads from the images that it is given.
    sides
        Of its input, height and width.
    """

    def __init__(self, part: nn.Module, sides: tuple[int, int]):
        super().__init__()
        from timm.layers.padding import pad_same_arg  # which takes its time, and few networks are timm's

        window = [nn.modules.utils._pair(getattr(part, name, 1)) for name in ("kernel_size", "stride", "dilation")]
        self.part, self.added = part, pad_same_arg(list(sides), *window)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        part = self.part
        if isinstance(part, nn.AvgPool2d):
            return nn.AvgPool2d.forward(part, nn.functional.pad(images, self.added))
        way = {name: nn.modules.utils._pair(getattr(part, name)) for name in ("kernel_size", "stride", "dilation")}
        if isinstance(part, nn.MaxPool2d):
            return cast("torch.Tensor", _Maximum.apply(images, self.added, way))
        way |= {"groups": part.groups}
        return cast("torch.Tensor", _Convolution.apply(images, part.weight, part.bias, self.added, way))


class _Convolution(torch.autograd.Function):
    """A convolution that pads each side by a number of its own, which is one operator of ONNX, and two of torch's.

    A Pad of its own would be rounded on its own in int8.
    """

    @staticmethod
    def forward(ctx: Any, images: Any, weight: Any, bias: Any, added: Any, way: Any) -> Any:
        way = {name: value for name, value in way.items() if name != "kernel_size"}
        return nn.functional.conv2d(nn.functional.pad(images, added), weight, bias, **way)

    @staticmethod
    def symbolic(g: Any, images: Any, weight: Any, bias: Any, added: Any, way: Any) -> Any:
        tensors = [images, weight] if bias is None else [images, weight, bias]
        return g.op("Conv", *tensors, group_i=way["groups"], **_attributes(added, way))


class _Maximum(torch.autograd.Function):
    """The same of a pool of maxima: none of them is of what was added."""

    @staticmethod
    def forward(ctx: Any, images: Any, added: Any, way: Any) -> Any:
        return nn.functional.max_pool2d(nn.functional.pad(images, added, value=-math.inf), **way)

    @staticmethod
    def symbolic(g: Any, images: Any, added: Any, way: Any) -> Any:
        return g.op("MaxPool", images, **_attributes(added, way))


def _attributes(added: Any, way: Any) -> dict[str, Any]:
    """The window of an operator of ONNX, which has what is added at the top and on the left first."""
    left, right, top, bottom = added
    return {
        "kernel_shape_i": way["kernel_size"],
        "strides_i": way["stride"],
        "dilations_i": way["dilation"],
        "pads_i": [top, left, bottom, right],
    }


def _pads(part: nn.Module) -> bool:
    """Whether a module is one of those that work out what they pad from the images that they are given."""
    return type(part).__module__.startswith("timm.") and type(part).__name__ in PADDING


def _shares(size: int, windows: int) -> torch.Tensor:
    """What each of ``size`` positions is worth in each window's mean, (size, windows)."""
    return nn.functional.adaptive_avg_pool1d(torch.eye(size)[:, None], windows)[:, 0]


def write(path: Path, network: nn.Module, description: Mapping[str, Any], lowest: int = LOWEST) -> None:
    """Write a network as ONNX, for batches of any size, with its description in the file's metadata.

    Parameters
    ----------
    lowest
        Opset to begin with.

    Raises
    ------
    InputError
        If no opset up to :data:`HIGHEST` has the network's operators; the message is the exporter's.
    """
    size, channels = description["image_size"], backbones.input_channels(network)
    # A batch of one would be taken for the one size that there is.
    example = torch.zeros(2, channels, size, size)
    network = _plain(network, example)
    for opset in range(lowest, HIGHEST + 1):
        try:
            with _quiet():
                torch.onnx.export(
                    network,
                    (example,),
                    path,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
                    opset_version=opset,
                    dynamo=False,
                )
            break
        except OnnxExporterError as error:
            reason = first_line(error)
    else:
        raise InputError(f"{path.name}: no opset up to {HIGHEST} of ONNX has all that the network is made of: {reason}")
    model = onnx.load(path)
    _tidy(model.graph)
    model.graph.input[0].doc_string = f"Images, float32 of shape (batch, {channels}, {size}, {size}): " + "; ".join(
        description["preprocessing"]
    )
    model.graph.output[0].doc_string = "One logit a class, in the order of the classes: the softmax is a probability"
    describe(model, description)
    onnx.save(model, path)


def describe(model: onnx.ModelProto, description: Mapping[str, Any]) -> None:
    """Put a network's description into a graph's metadata, in the place of what is there."""
    onnx.helper.set_model_props(
        model,
        {
            descriptions.KEY: descriptions.pack(description),
            "classes": json.dumps(description["classes"], ensure_ascii=False),
            "preprocessing": "\n".join(description["preprocessing"]),
        },
    )


def interface(description: Mapping[str, Any]) -> Interface:
    """The graph's one input and one output."""
    size = description["image_size"]
    return {
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", len(description["mean"]), size, size]},
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", len(description["classes"])]},
    }


def _plain(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """The network, its tensors shared, with other steps to the same answers where runtimes lack those that it takes."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    network = copy.deepcopy(network, shared).eval()
    replaced = {
        name: part for name, part in network.named_modules() if isinstance(part, nn.AdaptiveAvgPool2d) or _pads(part)
    }
    sizes: dict[str, set[tuple[int, int, int, int]]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda part, given, output: sizes.setdefault(name, set()).add((*given[0].shape[2:], *output.shape[2:]))

    hooks = [part.register_forward_hook(note(name)) for name, part in replaced.items()]
    with torch.no_grad():
        network(example)
        for hook in hooks:
            hook.remove()
        for name, seen in sizes.items():
            if len(seen) > 1:
                continue  # It is called with images of several sizes, for which one module can't stand.
            ((height, width, rows, columns),) = seen
            if _pads(replaced[name]):
                network.set_submodule(name, Padded(replaced[name], (height, width)))
            elif height % rows or width % columns:
                network.set_submodule(name, Pool(height, width, rows, columns))
        if getattr(network, "transform_input", False):
            # Inception's and GoogLeNet's own rescaling of their images, which they write down channel by channel.
            function = cast("Callable[[torch.Tensor], torch.Tensor]", network._transform_input)
            network.__dict__["_transform_input"] = _channelwise(function, example.shape[1])
    return network


def _channelwise(function: Callable[[torch.Tensor], torch.Tensor], channels: int) -> nn.Module:
    """A function that is affine channel by channel, as one operator that has a factor and a summand a channel."""
    norm = nn.BatchNorm2d(channels, eps=0).eval().requires_grad_(False)
    norm.bias.copy_(function(torch.zeros(1, channels, 1, 1)).flatten())
    norm.weight.copy_(function(torch.ones(1, channels, 1, 1)).flatten() - norm.bias)
    return norm


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter has to say: that it is not the newest, and that shapes become constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tidy(graph: onnx.GraphProto) -> None:
    """Take out each Identity: OpenCV's dnn before 4.7 fails at one of an initializer."""
    names: dict[str, str] = {}
    kept = []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            names[node.output[0]] = node.input[0]
        else:
            # Where it was called from: this machine's paths are nobody's business.
            node.ClearField("doc_string")
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
