"""Multinomial logistic regression on the device where the features are: full batches, their precision, no seed."""

from __future__ import annotations

import warnings

import torch

# The largest entry of the gradient at which the minimum counts as found, divided by the number of images.
TOLERANCE = 1e-7
STEPS = 1000
# Pairs of a step and how it changed the gradient that the next step's direction is made from.
MEMORY = 10
# A step ends where the loss still falls, or rises at no more than this share of the slope at its beginning.
RISE = 0.1


def fit(
    features: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float = 1.0, spread: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer that minimises Σ cross-entropy + ½p‖W‖² over standardised features; it takes the features as they were.

    With two classes the penalty is p‖W‖²: that of the one vector ½p‖w‖², w their difference. Found by L-BFGS from zero
    (Liu and Nocedal, *On the limited memory BFGS method for large scale optimization*, 1989). The loss is convex, so
    that the slope along a step tells whether it went too far; the loss itself, in float32, could not near the minimum.

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

    def gradient(layer: torch.Tensor) -> torch.Tensor:
        """(classes, D + 1): by the weights, and by the bias in the last column."""
        weight, bias = layer[:, :-1], layer[:, -1]
        excess = (features @ weight.T + bias).softmax(1) - wanted
        return torch.cat([excess.T @ features + penalty * weight, excess.sum(0)[:, None]], 1)

    layer = features.new_zeros(classes, width + 1)
    slope = gradient(layer)
    past: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for _ in range(STEPS):
        if slope.abs().max().item() <= TOLERANCE * images:
            break
        direction = _direction(slope, past, 1 / images)
        begun = _dot(slope, direction)
        length = 1.0
        after = gradient(layer + direction)
        while (ended := _dot(after, direction)) > RISE * -begun and length > 1e-6:
            # Where the slope would be 0 if it changed evenly.
            length *= begun / (begun - ended)
            after = gradient(layer + length * direction)
        step, change = length * direction, after - slope
        curvature = _dot(step, change)
        if not curvature > 0:
            # Digits are used up: the past is no guide to what is left, and without it there is nothing left.
            if not past:
                break
            past = []
            continue
        past = [*past, (step, change, curvature)][-MEMORY:]
        layer, slope = layer + step, after
    largest = slope.abs().max().item() / images
    if not largest <= TOLERANCE:
        warnings.warn(
            f"the last layer's fit ended at a gradient of {largest:.1e} an image, not {TOLERANCE:.0e}",
            stacklevel=2,
        )
    weight = layer[:, :-1].double() / scale.double()
    return weight, layer[:, -1].double() - weight @ mean.double()


def _direction(slope: torch.Tensor, past: list[tuple[torch.Tensor, torch.Tensor, float]], first: float) -> torch.Tensor:
    """Minus the slope times what the past says of the curvature's inverse: the two loops of L-BFGS."""
    result, shares = -slope, []
    for step, change, curvature in reversed(past):
        shares.append(_dot(step, result) / curvature)
        result = result - shares[-1] * change
    result = result * (past[-1][2] / _dot(past[-1][1], past[-1][1]) if past else first)
    for (step, change, curvature), share in zip(past, reversed(shares), strict=True):
        result = result + (share - _dot(change, result) / curvature) * step
    return result


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one * other).sum(dtype=torch.float64).item()
