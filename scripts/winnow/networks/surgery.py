"""Removing units for good: from a mask to a network without them. Tensors are sliced, modules take their new shapes.

Knows no architecture, only the channel table of a backbone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from winnow.files import InputError
from winnow.networks import backbones
from winnow.tables import read_provenance, read_table


def read_mask(path: Path | None, backbone: backbones.Backbone) -> tuple[np.ndarray | None, float, float]:
    """Which units stay, the share of units to remove that was asked for, and the one that was achieved.

    Without a path all stay: None, 0 and 0.

    Raises
    ------
    InputError
        If the file is not a mask, or not one of this backbone; the message names it.
    """
    if path is None:
        return None, 0.0, 0.0
    keep = read_table(path, "mask")["keep"].to_numpy(zero_copy_only=False)
    provenance = read_provenance(path)
    if keep.size != backbone.units:
        raise InputError(f"{path} is a mask of {keep.size} filters, the backbone has {backbone.units}")
    return keep, provenance["requested"], provenance["achieved"]


def pruned(backbone: backbones.Backbone, keep: np.ndarray | None, classes: int, init: str, seed: int) -> nn.Module:
    """A cell's network: the backbone less the removed units, with a new last layer.

    Parameters
    ----------
    backbone
        Where widths and, for ``init`` "inherited", weights come from. It is not changed.
    keep : (units,) bool or None
        Which units stay; None for all.
    classes
        Outputs of the new last layer.
    init
        ``inherited``: the surviving filters keep their weights. ``random``: everything is drawn anew at these widths.
    seed
        Of the new last layer, and of everything else that is drawn.
    """
    manifest = backbone.manifest
    state = backbone.state if keep is None else slice_state(backbone.state, backbone.channels, keep)
    network = backbones.build(manifest["architecture"], manifest["head"], classes)
    head = backbones.last_layer(network)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}
    shapes = {name: tensor.shape for name, tensor in body.items()}
    # The new last layer has its classes from the build and its inputs from the sliced old one.
    inputs = state[f"{head}.weight"].shape[1:]
    resize(network, shapes | {f"{head}.weight": (classes, *inputs), f"{head}.bias": (classes,)})

    generator = torch.Generator().manual_seed(seed)
    if init == "random":
        network.to_empty(device="cpu")
        whole = functools.partial(backbones.build, manifest["architecture"], manifest["head"], classes, "cpu")
        backbones.initialise(network, generator, whole)
        return network
    layer = network.get_submodule(head).to_empty(device="cpu")
    backbones.initialise(layer, generator)
    new = {f"{head}.{name}": tensor for name, tensor in layer.state_dict().items()}
    # A tensor that lost nothing is the backbone's own, which serves the next cell too: training must not write into it.
    own = {name: tensor.clone() if tensor is backbone.state[name] else tensor for name, tensor in body.items()}
    network.load_state_dict(own | new, assign=True)
    return network.requires_grad_()


def cut(
    backbone: backbones.Backbone, state: Mapping[str, torch.Tensor], keep: np.ndarray, kept: np.ndarray | None = None
) -> nn.Module:
    """A trained network less further units, its last layer and all other tensors as they are.

    Parameters
    ----------
    state
        The trained network's tensors. Those that lose nothing become the new network's own.
    keep, kept : (units,) bool
        Which of the backbone's units stay, and which there still are; None for all.
    """
    manifest = backbone.manifest
    head = backbones.last_layer(backbones.build(manifest["architecture"], manifest["head"], 2))
    classes = state[f"{head}.weight"].shape[0]
    network = backbones.build(manifest["architecture"], manifest["head"], classes)
    sliced = slice_state(state, backbone.channels, keep, kept)
    resize(network, {name: tensor.shape for name, tensor in sliced.items()})
    network.load_state_dict({name: tensor.contiguous() for name, tensor in sliced.items()}, assign=True)
    return network


def slice_state(
    state: Mapping[str, torch.Tensor], channels: pa.Table, keep: np.ndarray, kept: np.ndarray | None = None
) -> dict[str, torch.Tensor]:
    """A state dict without the removed units' slices.

    Parameters
    ----------
    state
        The network's tensors, on any device; they are not changed, and those that lose nothing are returned as they
        are.
    channels
        The backbone's channel table.
    keep : (units,) bool
        Which units stay.
    kept : (units,) bool
        Which units the network still has: those that stay among them. None for all.

    Returns
    -------
    dict of str to Tensor
        Contiguous tensors, in the order of ``state``.
    """
    unit = channels["unit"].to_numpy()
    gone = ~keep[unit]
    before = np.zeros_like(gone) if kept is None else ~kept[unit]
    tensor = channels["tensor"].combine_chunks().dictionary_encode()
    names, tensor = tensor.dictionary.to_pylist(), tensor.indices.to_numpy()
    dimension, first, length, stride = (
        channels[name].to_numpy().astype(np.int64) for name in ("dimension", "first", "length", "stride")
    )
    sliced = dict(state)
    for number, along in sorted(set(zip(tensor[gone].tolist(), dimension[gone].tolist(), strict=True))):
        rows = gone & (tensor == number) & (dimension == along)
        name = names[number]
        size = sliced[name].shape[along]
        starts, lengths, strides = first[rows], length[rows], stride[rows]
        # Whole blocks are copied, not numbers one by one: a channel's 49 columns of VGG's first linear layer.
        block = int(np.gcd.reduce([size, *starts, *lengths])) if (strides == 1).all() else 1
        removed = _indices(starts // block, lengths // block, strides)
        rows &= before
        absent = np.unique(_indices(first[rows] // block, length[rows] // block, stride[rows]))
        left = np.ones(size // block + absent.size, dtype=bool)
        left[removed] = False
        stays = torch.from_numpy(np.flatnonzero(np.delete(left, absent))).to(sliced[name].device)
        blocks = sliced[name].unflatten(along, (-1, block))
        sliced[name] = blocks.index_select(along, stays).flatten(along, along + 1)
    return sliced


def _indices(first: np.ndarray, length: np.ndarray, stride: np.ndarray) -> np.ndarray:
    """Each row's indices, first + stride · (0 … length − 1), all rows at once."""
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return np.repeat(first, length) + np.repeat(stride, length) * within


def resize(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Give a network's modules the shapes of a state dict's tensors; values are lost where a shape changes.

    Parameters
    ----------
    network
        Changed in place and returned; it may lie on the meta device.
    shapes
        Name of a tensor → its shape, for all of the network's tensors.
    """
    for path, module in network.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            shape = tuple(shapes[f"{path}.{name}" if path else name])
            if shape == tuple(tensor.shape):
                continue
            empty = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
            setattr(module, name, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
        if isinstance(module, nn.Conv2d):
            # Whole groups go, of a depthwise convolution single channels.
            if module.groups > 1:
                module.groups = module.weight.shape[0] // (module.out_channels // module.groups)
            module.out_channels, inputs = module.weight.shape[:2]
            module.in_channels = inputs * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.num_features = module.running_mean.shape[0]
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(module.weight.shape)
    return network


def cost(network: nn.Module, image_size: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of a forward pass of one ``image_size`` × ``image_size`` image."""
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in network.state_dict().items()}
    shape = 1, backbones.input_channels(network), image_size, image_size
    image = torch.empty(shape, device="meta", dtype=next(iter(meta.values())).dtype)
    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(network.eval(), meta, (image,))
    network.train(training)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2
