"""Linear layers over the channels of maps as the convolutions of 1 × 1 that they are: what they give are filters."""

from __future__ import annotations

import collections

import torch
from torch import nn


class Pointwise(nn.Sequential):
    """Convolutions of 1 × 1, and what is between them, over the last axis of (N, ..., channels).

    Positions become one axis, so that it is the same for maps (N, H, W, C) and for rows of patches (N, patches, C);
    in memory nothing is moved.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        maps = input.flatten(1, -2).transpose(1, 2).unsqueeze(-1)  # (N, C, positions, 1)
        for step in self:
            maps = step(maps)
        return maps.squeeze(-1).transpose(1, 2).reshape(input.shape)


def convolve(network: nn.Module, kind: type[nn.Module]) -> None:
    """Make each part of a kind that is linear layers, one after the other with what is between them, a
    :class:`Pointwise`.

    Its parts are taken in their order and keep their names; it gives as many channels as it gets.
    """
    for path, part in [*network.named_modules()]:
        if type(part) is not kind:
            continue
        steps = collections.OrderedDict((name, _convolution(step)) for name, step in part.named_children())
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, Pointwise(steps))


def _convolution(step: nn.Module) -> nn.Module:
    if not isinstance(step, nn.Linear):
        return step
    return nn.Conv2d(step.in_features, step.out_features, 1, bias=step.bias is not None)
