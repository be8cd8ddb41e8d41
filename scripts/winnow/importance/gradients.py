"""The gradient pass: how much the loss would change, to first order, if a filter's output were set to zero.

The loss is the cross-entropy of the backbone with a last layer for the data set's own classes, fitted to the features
that the backbone gives on the training images; everything else is as it was pretrained. That is a stand-in for the
fine-tuned network, which does not exist yet when filters are chosen, and has limits: the features below the last layer
are not adapted to the data set, and images that the fitted layer is sure of hardly count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from winnow.files import InputError
from winnow.importance import heads, regression
from winnow.importance.heads import Batches
from winnow.importance.passes import Tally, full_float32
from winnow.importance.sums import Sums
from winnow.networks.backbones import last_layer
from winnow.networks.tracing import Watch

# Bytes of the largest activation map of a batch: a backward pass keeps all of them, some ten times as much.
BATCH_BYTES = 2**26


def fit_head(
    network: nn.Module, batches: Batches, classes: int, progress: Callable[[int], None] = lambda images: None
) -> None:
    """Put a last layer for the data set's classes into the network, fitted on the inputs of its old one.

    It is the multinomial logistic regression of :func:`winnow.importance.regression.fit`, on the network's device. A
    class without images has probability 0. Where the last layer is a convolution, its features are the means over the
    positions, and its bias is raised alike for all classes until no output is negative: probabilities stay the same,
    and a ReLU behind it, as in SqueezeNet, does nothing.

    Parameters
    ----------
    network
        In eval mode, float32, on the batches' device.
    batches
        Gives pairs of normalised images (N, 3, H, W) and labels (N,).
    classes
        Number of classes.
    progress
        Called with the number of images after each batch.

    Raises
    ------
    InputError
        If there are images of fewer than two classes, or features are not finite.
    """
    found = heads.features(network, batches, progress)
    weight, bias = regression.fit(found.x, found.y, found.known.numel())
    if isinstance(network.get_submodule(last_layer(network)), nn.Conv2d):
        # By Cauchy and Schwarz no output at any position is further below 0.
        bias = bias + weight.norm(dim=1).max() * found.longest + bias.abs().max()
    heads.put(network, found.known, weight, bias, classes, -torch.inf)


def measure(
    network: nn.Module,
    layers: Sequence[Mapping[str, Any]],
    batches: Batches,
    classes: int,
    progress: Callable[[int], None] = lambda images: None,
) -> Sums:
    """Run the network forwards and backwards over all images and add up, a class, what filters contribute to the loss.

    With a the output of a filter after the ReLU and L the image's cross-entropy, an image adds |Σ a · ∂L/∂a|, the sum
    over the positions of the filter's map.

    Parameters
    ----------
    network
        In eval mode, float32, on the batches' device, its last layer fitted by :func:`fit_head`.
    layers
        The manifest's prunable layers in network order: ``layer``, ``filters`` and ``activation``, the name of the step
        whose output is measured. Layers may share a step.
    batches
        As for :func:`fit_head`. Results do not depend on sizes, beyond last bits.
    classes
        Number of classes. Of one that has no image all sums are 0.
    progress
        Called with the number of images after each batch.

    Returns
    -------
    Sums
        Of the kind "gradients".

    Raises
    ------
    InputError
        If a layer's gradients are not finite; the message names the first.
    """
    tally = Tally(layers, classes, 1, next(network.parameters()).device)

    def look(step: str, output: torch.Tensor) -> None:
        positions = output.shape[2] * output.shape[3]
        maps = output.detach()
        version = maps._version

        def backwards(gradient: torch.Tensor) -> None:
            if maps._version != version:
                raise InputError(f"the network writes into the output of {step}, which is lost for its gradient")
            effect = (maps * gradient).flatten(2).sum(2, dtype=torch.float64)
            tally.add(step, effect.abs()[None], positions)

        output.register_hook(backwards)

    network.requires_grad_(False)
    watch = Watch(network, tally.layers, look, whole=True)
    with full_float32():
        for images, labels in batches():
            tally.begin(labels)
            # No parameter is trained: it is through the images that there is something to differentiate by.
            logits = watch(images.requires_grad_())
            assert logits is not None  # of a network that is watched as a whole
            nn.functional.cross_entropy(logits, labels.long(), reduction="sum").backward()
            progress(images.shape[0])

    def of_layer(layer: Mapping[str, Any], sums: np.ndarray, *_: Any) -> dict[str, np.ndarray]:
        if not np.isfinite(sums).all():
            raise InputError(f"gradients at {layer['activation']}, after {layer['layer']}, are not finite numbers")
        return {"sum": sums[0]}

    return tally.result("gradients", of_layer)
