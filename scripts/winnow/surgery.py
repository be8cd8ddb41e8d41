"""Removing units for good: tensors are sliced, modules take their new shapes. Knows no architecture, only the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def slice_state(state: Mapping[str, torch.Tensor], channels: pa.Table, keep: np.ndarray) -> dict[str, torch.Tensor]:
    """A state dict without the removed units' slices.

    Parameters
    ----------
    state
        The unpruned network's tensors; they are not changed, and those that lose nothing are returned as they are.
    channels
        The backbone's channel table.
    keep : (units,) bool
        Which units stay.

    Returns
    -------
    dict of str to Tensor
        Contiguous tensors, in the order of ``state``.
    """
    unit = channels["unit"].to_numpy()
    gone = ~keep[unit]
    tensor = channels["tensor"].combine_chunks().dictionary_encode()
    names, tensor = tensor.dictionary.to_pylist(), tensor.indices.to_numpy()
    dimension, first, length, stride = (
        channels[name].to_numpy().astype(np.int64) for name in ("dimension", "first", "length", "stride")
    )
    sliced = dict(state)
    for number, along in sorted(set(zip(tensor[gone].tolist(), dimension[gone].tolist(), strict=True))):
        rows = gone & (tensor == number) & (dimension == along)
        starts, lengths, strides = first[rows], length[rows], stride[rows]
        name = names[number]
        size = sliced[name].shape[along]
        # Whole blocks are copied, not numbers one by one: a channel's 49 columns of VGG's first linear layer.
        block = int(np.gcd.reduce([size, *starts, *lengths])) if (strides == 1).all() else 1
        starts, lengths = starts // block, lengths // block
        # Each row's blocks, all rows at once: start + stride · (0 … length − 1).
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        stays = np.ones(size // block, dtype=bool)
        stays[np.repeat(starts, lengths) + np.repeat(strides, lengths) * within] = False
        kept = torch.from_numpy(np.flatnonzero(stays))
        blocks = sliced[name].unflatten(along, (-1, block))
        sliced[name] = blocks.index_select(along, kept).flatten(along, along + 1)
    return sliced


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
            # Depthwise: each input channel is a group, and they go together. Other groups all stay, but get narrower.
            if module.groups > 1 and module.groups == module.in_channels:
                module.groups = module.weight.shape[0] // (module.out_channels // module.groups)
            module.out_channels, inputs = module.weight.shape[:2]
            module.in_channels = inputs * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = module.running_mean.shape[0]
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(module.weight.shape)
    return network


def cost(network: nn.Module, image_size: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of a forward pass of one ``image_size`` × ``image_size`` image."""
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in network.state_dict().items()}
    image = torch.empty(1, 3, image_size, image_size, device="meta", dtype=next(iter(meta.values())).dtype)
    training = network.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(network.eval(), meta, (image,))
    network.train(training)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2
