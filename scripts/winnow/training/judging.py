"""Judging one network: its answers on images that it was not trained on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from winnow.data.augmentation import normalise
from winnow.data.images import Images
from winnow.data.preprocessing import evaluation_view
from winnow.training.determinism import reproducible
from winnow.training.precision import autocast

# An evaluation's batch, in pixels: 41 images at 224. More are no faster; VGG-16 takes 14 MB (bf16) for each.
EVALUATION_PIXELS = 2**21


class Diverged(Exception):
    """The loss is no longer a finite number."""


def require_finite(loss: float, what: str, when: str) -> None:
    """Raise :class:`Diverged` unless a loss is a finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"{what} is {loss} {when}")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A network's answers.

    Attributes
    ----------
    loss, accuracy : float
        Mean cross-entropy, and share of images whose label got the largest logit.
    predicted : (n,) int64
    probability : (n,) float32
        Of the label.
    """

    loss: float
    accuracy: float
    predicted: np.ndarray
    probability: np.ndarray


@reproducible()
def evaluate(network: nn.Module, images: Images, rows: np.ndarray, precision: str) -> Judgement:
    """Judge a network on rows of images, under the evaluation transform."""
    device = images.labels.device
    network.eval()
    batch = max(1, EVALUATION_PIXELS // images.size**2)
    order = torch.from_numpy(rows)
    wanted = images.labels[order.to(device)]
    if images.pixels.device == device:
        order = order.to(device)
    logits = []
    with torch.inference_mode(), autocast(device, precision):
        for start in range(0, rows.size, batch):
            views = evaluation_view(images.take(order[start : start + batch]), images.size)
            logits.append(network(normalise(views, images.mean, images.std)).float())
    log_probabilities = functional.log_softmax(torch.cat(logits), 1)
    predicted = log_probabilities.argmax(1)
    of_label = log_probabilities.gather(1, wanted[:, None])[:, 0]
    return Judgement(
        -of_label.double().mean().item(),
        (predicted == wanted).double().mean().item(),
        predicted.cpu().numpy(),
        of_label.exp().cpu().numpy(),
    )
