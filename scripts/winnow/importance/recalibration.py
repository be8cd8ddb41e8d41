"""Recalibration: what follows a layer finds its outputs as large, and as spread, as before the cut.

Batch norms get the statistics of the pruned network's own outputs. Where a layer has no batch norm, its outputs are
scaled and shifted to the mean and variance that they had, as Jordan et al. do, *REPAIR: REnormalizing Permuted
Activations for Interpolation Repair* (ICLR 2023). All layers are measured in one pass, in which each output is
normalised by its batch, so that a layer hears what it will hear once those before it are repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from winnow.importance.moments import OUTPUTS
from winnow.importance.passes import Batch, full_float32
from winnow.importance.sums import Sums
from winnow.networks import surgery

# A filter that hardly speaks any more is not made to shout.
LARGEST_SCALE = 10.0

Targets = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def targets(moments: Sums, channels: pa.Table, keep: np.ndarray, kept: np.ndarray | None = None) -> Targets:
    """Mean and variance, (outputs,) float64 each, that outputs of layers without batch norm had, of those that stay.

    Parameters
    ----------
    moments
        Of the network before the cut.
    channels
        The backbone's channel table.
    keep, kept : (units,) bool
        Which units stay, and which there were when ``moments`` were measured; None for all.
    """
    names = [each["layer"] for each in moments.layers if each["kind"] == OUTPUTS]
    sums = {f"{name}.bias": torch.from_numpy(moments.of(name, OUTPUTS)).T for name in names}
    rows = channels.filter(pc.is_in(channels["tensor"], pa.array(list(sums), channels["tensor"].type)))
    found = {}
    for tensor, of_outputs in surgery.slice_state(sums, rows, keep, kept).items():
        total, squares, count = of_outputs.T
        mean = total / count
        found[tensor.removesuffix(".bias")] = mean, (squares / count - mean**2).clamp(min=0)
    return found


class _Normalised:
    """A hook that normalises a layer's outputs by their batch, and adds up what they were."""

    def __init__(self, scale: torch.Tensor | None, shift: torch.Tensor | None, eps: float = 0.0) -> None:
        self.scale, self.shift, self.eps = scale, shift, eps
        self.total = torch.zeros(())
        self.count = 0

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        raw = inputs[0] if isinstance(module, _BatchNorm) else output
        # (outputs, 1, 1) beside maps, (outputs,) beside a linear layer's vectors.
        maps = not isinstance(module, nn.Linear) and raw.dim() == 4
        over = [0, 2, 3] if maps else list(range(raw.dim() - 1))
        sums = torch.stack([raw.sum(over), raw.square().sum(over)]).double()
        count = raw.numel() // sums.shape[1]
        self.total, self.count = self.total + sums, self.count + count
        mean, scale = self._of(sums / count)
        shift = -mean * scale if self.shift is None else self.shift - mean * scale
        scale, shift = (each.to(raw)[:, None, None] if maps else each.to(raw) for each in (scale, shift))
        return raw * scale + shift

    def _of(self, means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, variance = means[0], (means[1] - means[0] ** 2).clamp(min=0)
        if self.eps or self.scale is None:
            scale = (variance + self.eps).rsqrt()
            return mean, scale if self.scale is None else scale * self.scale
        scale = self.scale / variance.sqrt()
        # Of outputs that are, or were, all alike the scale says nothing.
        return mean, torch.where(scale.isfinite() & (scale > 0), scale.clamp(max=LARGEST_SCALE), 1.0)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance over all batches."""
        mean, square = self.total / self.count
        return mean, (square - mean**2).clamp(min=0)

    def change(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean over all batches, and what outputs are multiplied by."""
        return self._of(self.total / self.count)


def recalibrate(network: nn.Module, targets: Targets, batches: Iterable[Batch]) -> None:
    """Measure batch norms anew, and repair mean and variance where there are none.

    Parameters
    ----------
    network
        In eval mode, float32, on the batches' device; changed in place.
    targets
        Of the layers without batch norm that are repaired; empty for none.
    batches
        Pairs of normalised images and labels, images of all classes in each, as in training.
    """
    hooks, norms, plain = [], [], {}
    device = next(network.parameters()).device
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            weight, bias = (part if part is None else part.detach().double() for part in (module.weight, module.bias))
            hook = _Normalised(weight, bias, module.eps)
            norms.append((hook, module.running_mean, module.running_var))
        elif name in targets:
            mean, variance = (each.to(device) for each in targets[name])
            plain[module] = hook = _Normalised(variance.sqrt(), mean)
        else:
            continue
        hooks.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad(), full_float32():
            for images, _ in batches:
                network(images)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for hook, running_mean, running_var in norms:
            mean, variance = hook.moments()
            running_mean.copy_(mean)
            running_var.copy_(variance)
        for module, hook in plain.items():
            mean, scale = hook.change()
            bias = (module.bias.double() - mean) * scale + hook.shift
            module.weight.mul_(scale.to(module.weight).view(-1, *[1] * (module.weight.dim() - 1)))
            module.bias.copy_(bias)
