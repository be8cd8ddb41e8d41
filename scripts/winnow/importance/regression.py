"""Multinomial logistic regression on the device where the features are: full batches, their precision, no seed."""

from __future__ import annotations

import warnings

import numpy as np
import torch

# The largest entry of the gradient at which the minimum counts as found, divided by the number of images.
TOLERANCE = 1e-7
STEPS = 1000
# Pairs of a step and how it changed the gradient that the next step's direction is made from.
MEMORY = 10
# A step ends where the loss still falls, or rises at no more than this share of the slope at its beginning.
RISE = 0.1
# Having gone too far, a step does not go back to where it falls at more than this share of it: next to nothing would be
# learnt of the curvature, and the next step would go as far too far.
FALL = 0.9

# Weights (classes, D) and biases (classes,).
Layer = tuple[torch.Tensor, torch.Tensor]


def fit(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    penalty: float = 1.0,
    spread: torch.Tensor | None = None,
    begin: Layer | None = None,
) -> Layer:
    """The layer that minimises Σ cross-entropy + ½p‖W‖² over standardised features; it takes the features as they were.

    With two classes the penalty is p‖W‖²: that of the one vector ½p‖w‖², w their difference. Found by L-BFGS
    (Liu and Nocedal, *On the limited memory BFGS method for large scale optimization*, 1989). The loss is convex, so
    that the slope along a step tells whether it went too far; the loss itself, in float32, could not near the minimum.
    The device is waited for once a gradient: its dot products with those before it and the steps between them, in
    float64, are all that the next direction and the line search need (Byrd, Nocedal and Schnabel, *Representations of
    quasi-Newton matrices and their use in limited memory methods*, 1994).

    Parameters
    ----------
    features : (N, D) float
        Standardised in place. A feature that is the same for all images, up to float32's digits, tells them apart in
        nothing and is only centred.
    labels : (N,) int64
        On the features' device, in [0, classes), each of them at least once.
    classes
        At least two.
    penalty
        p.
    spread : (D,) or None
        What each feature is divided by; None for its standard deviation.
    begin : (weight, bias) or None
        A layer near the minimum, as a fit to like features returns it; None for zero.

    Returns
    -------
    (weight, bias)
        (classes, D) and (classes,), float64, on the features' device.
    """
    images, width = features.shape
    mean = features.mean(0, dtype=torch.float64).to(features.dtype)
    features -= mean
    scale = torch.linalg.vector_norm(features, dim=0, dtype=torch.float64) / images**0.5 if spread is None else spread
    scale = torch.where(scale > 1e-6 * mean.abs(), scale, 1.0).to(features.dtype)
    features /= scale
    wanted = torch.nn.functional.one_hot(labels, classes).to(features.dtype)
    penalty *= 2.0 if classes == 2 else 1.0

    slots = MEMORY + 1
    # In a slot the way that was gone and the gradient where it ended, in float64; the oldest makes room for the next.
    rows = features.new_zeros(2, slots, classes * (width + 1), dtype=torch.float64)
    ways, slopes = rows
    # Dot products, on the host: of ways with slopes, and of slopes with slopes.
    crossed, squared = np.zeros((2, slots, slots))

    def look(layer: torch.Tensor, slot: int) -> float:
        """Put the gradient and its dot products into a slot; its largest entry. All that waits for the device."""
        weight, bias = layer[:, :-1], layer[:, -1]
        excess = torch.addmm(bias, features, weight.T).softmax(1).sub_(wanted)
        slope = torch.cat([torch.addmm(weight, excess.T, features, beta=penalty), excess.sum(0)[:, None]], 1).flatten()
        slopes[slot] = slope
        largest = torch.linalg.vector_norm(slope, torch.inf, dtype=torch.float64)
        found = torch.cat([rows.flatten(0, 1) @ slopes[slot], largest[None]]).cpu().numpy()
        crossed[:, slot], squared[slot] = found[:slots], found[slots:-1]
        squared[:, slot] = squared[slot]
        return float(found[-1])

    layer = features.new_zeros(classes, width + 1)
    if begin is not None:
        weight, bias = (part.double() for part in begin)
        layer[:, :-1], layer[:, -1] = weight * scale, bias + weight @ mean.double()
    largest = look(layer, 0)
    # The slots in use, the newest last; of the first one there is only the gradient.
    past = [0]
    for _ in range(STEPS):
        if largest <= TOLERANCE * images:
            break
        shares, begun = _direction(crossed[past][:, past], squared[past][:, past], 1 / images)
        if not begun < 0 and len(past) > 1:
            # By the last digits of what is there it would go up.
            past = past[-1:]
            continue
        weights = np.zeros((2, slots))
        weights[:, past] = shares
        now, slot = past[-1], (past[-1] + 1) % slots
        ways[slot] = torch.from_numpy(weights.ravel()).to(rows.device, non_blocking=True) @ rows.flatten(0, 1)
        direction = ways[slot].to(features.dtype).view_as(layer)
        length = 1.0
        after = layer + direction
        ahead = look(after, slot)
        # The last length that was too short, and the last that was too long, with the slopes there.
        short, long = (0.0, begun), None
        while True:
            ended = crossed[slot, slot]
            if ended > RISE * -begun and length - short[0] > 1e-3 * short[0] + 1e-6:
                long = length, ended
            elif long is not None and ended < FALL * begun and long[0] - length > 1e-3 * long[0]:
                short = length, ended
            else:
                break
            # Where the slope would be 0 if it changed evenly, but not at either end.
            share = min(max(short[1] / (short[1] - long[1]), 0.1), 0.9)
            length = short[0] + share * (long[0] - short[0])
            after = layer + length * direction
            ahead = look(after, slot)
        curvature = length * ended - length * begun
        change = squared[slot, slot] - 2 * squared[slot, now] + squared[now, now]
        if not (curvature > 0 and change > 0):
            # Digits are used up: the past is no guide to what is left, and without it there is nothing left.
            if len(past) == 1:
                break
            past = [now]
            # Slots that are not in use get a share of 0, which makes NaN of what overflowed.
            rows[:, slot] = 0
            continue
        if length != 1:
            ways[slot] *= length
        crossed[slot, [now, slot]] = length * begun, length * ended
        past = [*past, slot][-slots:]
        layer, largest = after, ahead
    if not largest <= TOLERANCE * images:
        warnings.warn(
            f"the last layer's fit ended at a gradient of {largest / images:.1e} an image, not {TOLERANCE:.0e}",
            stacklevel=2,
        )
    weight = layer[:, :-1].double() / scale.double()
    return weight, layer[:, -1].double() - weight @ mean.double()


def _direction(crossed: np.ndarray, squared: np.ndarray, first: float) -> tuple[np.ndarray, float]:
    """Minus the slope times what the past says of the curvature's inverse, from dot products alone.

    That is the inverse in its compact form, γI + [S γY] M [S γY]ᵀ, with the steps as columns of S and the changes of
    the slope as columns of Y.

    Parameters
    ----------
    crossed : (n + 1, n + 1)
        Dot products of ways, by rows, with slopes, the newest last: the first way and what is left of the diagonal by
        more than one column are not looked at.
    squared : (n + 1, n + 1)
        Of slopes with slopes.
    first
        γ where there are no steps yet, n = 0.

    Returns
    -------
    (shares, slope)
        Of each way and each slope in the direction, (2, n + 1), and the direction's dot product with the newest slope.
    """
    shares = np.zeros((2, len(squared)))
    if len(squared) == 1:
        shares[1] = -first
    else:
        # SᵀY, of which a triangle is needed, and YᵀY.
        upper, changes = np.triu(np.diff(crossed[1:])), np.diff(np.diff(squared, axis=0))
        curvatures = upper.diagonal()
        scale = curvatures[-1] / changes[-1, -1]
        of_changes = np.linalg.solve(upper, crossed[1:, -1])
        of_steps = curvatures * of_changes + scale * (changes @ of_changes - np.diff(squared[-1]))
        shares[0, 1:] = -np.linalg.solve(upper.T, of_steps)
        shares[1, 1:] = scale * of_changes
        shares[1, :-1] -= scale * of_changes
        shares[1, -1] -= scale
    return shares, float(shares[0, 1:] @ crossed[1:, -1] + shares[1] @ squared[-1])
