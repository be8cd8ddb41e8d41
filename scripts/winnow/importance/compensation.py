"""Compensation: what a removed input gave is predicted from those that stay, and folded into the weights.

Of a layer's inputs x the removed ones are predicted from the kept ones, x_R ≈ B x_S + b, by ridge regression on the
training images, from second moments (:mod:`winnow.importance.moments`): W_S += W_R B at every tap, and the bias gets
Σ over taps of W_R b. After Luo, Wu & Lin, *ThiNet* (ICCV 2017), and He, Zhang & Sun, *Channel Pruning for Accelerating
Very Deep Neural Networks* (ICCV 2017), who regress a layer's outputs, which takes another pass a mask. Where the
removed inputs are linear combinations of those that stay, nothing is lost.

At a map's border taps fall on padding, where all inputs are 0 and b is added all the same. So the regression counts
these positions too, as often as taps see them: a constant input is made up for as far as a layer pads no zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn

from winnow.files import InputError
from winnow.importance.moments import GRAM
from winnow.importance.sums import Sums
from winnow.networks.consumers import block, consumers, gone

# Of the mean variance of the inputs that stay; where nothing can take a constant, of their mean square.
RIDGE = 1e-3


def compensated(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    channels: pa.Table,
    moments: Sums,
    keep: np.ndarray,
    kept: np.ndarray | None = None,
    ridge: float = RIDGE,
) -> dict[str, torch.Tensor]:
    """A state dict whose layers do with the inputs that stay; no unit is removed from it yet.

    Parameters
    ----------
    network
        Whose shapes are looked at. Layers without moments, as a backbone's last, are left alone.
    state
        Its tensors; they are not changed, and those of layers that lose no input are returned as they are.
    channels
        The backbone's channel table.
    moments
        Measured on the network with this state.
    keep, kept : (units,) bool
        Which units stay, and which the network still has; None for all.
    ridge
        See :data:`RIDGE`.

    Returns
    -------
    dict of str to Tensor
        In the order of ``state``.

    Raises
    ------
    InputError
        If the moments are of another network.
    """
    result = dict(state)
    maps = {each["layer"]: each["map"] for each in moments.layers if each["kind"] == GRAM}
    solved: dict[tuple[str, bool, float], tuple[torch.Tensor, torch.Tensor]] = {}
    for consumer in consumers(network, channels):
        name = f"{consumer.layer}.weight"
        weight = state[name]
        run = block(channels, consumer.layer, weight.shape[1])
        without = gone(channels, consumer.layer, weight.shape[1], keep, kept)[::run]
        if consumer.step not in maps or not without.any():
            continue
        shifts = consumer.shift is not None
        seen = on_map(network.get_submodule(consumer.layer), maps[consumer.step]) if shifts else 1.0
        key = consumer.step, shifts, seen
        if key not in solved:
            gram = moments.of(consumer.step, GRAM).copy()
            if len(gram) != without.size + 1:
                raise InputError(
                    f"the moments know {len(gram) - 1} inputs of {consumer.layer}, the network has {without.size}: "
                    "they were measured on another one"
                )
            gram[-1, -1] /= seen
            solved[key] = predictor(gram, without, shifts, ridge)
        slope, constant = (each.to(weight) for each in solved[key])
        stays, removed = (torch.from_numpy(np.flatnonzero(w)).to(weight.device) for w in (~without, without))
        # (outputs, channels, taps): the positions of a flattened map are as the taps of a kernel.
        taps = weight.reshape(weight.shape[0], without.size, -1)
        lost = taps.index_select(1, removed)
        # What stays is added to where it lies, which is faster than taking it out and putting it back.
        shares = slope.new_zeros(without.size, removed.numel()).index_copy(0, stays, slope.T)
        result[name] = torch.baddbmm(taps, shares.expand(len(taps), -1, -1), lost).reshape(weight.shape)
        if consumer.shift is not None:
            added = lost.sum(2) @ constant
            result[consumer.shift] = state[consumer.shift] + (added if consumer.shift.endswith(".bias") else -added)
    return result


def on_map(layer: nn.Module, size: Sequence[int]) -> float:
    """The share of a layer's taps, over all positions, that see a map of this height and width and not its padding."""
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros":
        return 1.0
    kernel = torch.ones(1, 1, *layer.kernel_size)
    seen = F.conv2d(torch.ones(1, 1, *size), kernel, None, layer.stride, layer.padding, layer.dilation)
    return seen.mean().item() / kernel.numel()


def predictor(gram: np.ndarray, gone: np.ndarray, constant: bool, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    """B, (removed, kept), and b, (removed,), float64, of the regression x_R ≈ B x_S + b.

    Parameters
    ----------
    gram : (channels + 1, channels + 1) float64
        Sums of products over images and positions, the last row and column being those of the constant 1.
    gone : (channels,) bool
        Which are removed.
    constant
        Whether there may be a b; if not, it is 0 and B the regression through the origin.
    ridge
        The penalty, a share of the mean over the kept channels of their variance (without constant: mean square).
    """
    moments = torch.from_numpy(gram[:-1, :-1] / gram[-1, -1])
    mean = torch.from_numpy(gram[-1, :-1] / gram[-1, -1])
    if constant:
        moments = moments - mean[:, None] * mean
    stays, removed = torch.from_numpy(~gone), torch.from_numpy(gone)
    inner = moments[stays][:, stays]
    # Where all that stays is constant, nothing can be told by it.
    penalty = ridge * inner.diagonal().mean().item() or 1.0
    factor, failed = torch.linalg.cholesky_ex(inner + penalty * torch.eye(len(inner), dtype=inner.dtype))
    while failed:
        # So small a penalty is lost in the sums' last digits.
        penalty *= 10
        factor, failed = torch.linalg.cholesky_ex(inner + penalty * torch.eye(len(inner), dtype=inner.dtype))
    slope = torch.cholesky_solve(moments[stays][:, removed], factor).T
    return slope, (mean[removed] - slope @ mean[stays]) * constant
