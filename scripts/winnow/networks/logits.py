"""Logits in float32, where the rest of a network computes in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from winnow.networks.backbones import last_layer


@contextlib.contextmanager
def float32_logits(network: nn.Module) -> Iterator[None]:
    """Let a network's last layer compute in float32, whatever autocast makes of the others.

    bfloat16 has eight significant bits: among many classes the two largest logits are often the same number, and which
    of them is the answer is then a matter of their order. In float32 nothing changes.
    """
    layer = network.get_submodule(last_layer(network))
    plain = layer.forward

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return plain(inputs.float())

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
