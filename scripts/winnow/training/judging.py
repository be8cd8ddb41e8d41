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
from winnow.networks.logits import float32_logits
from winnow.runtime.memory import in_smaller_parts
from winnow.training.determinism import reproducible
from winnow.training.precision import autocast

# An evaluation's batch, in pixels, by the kind of device: 10 and 41 images at 224. On a CPU larger ones are slower by a
# third: their activations are of memory that the kernel hands out anew each time.
EVALUATION_PIXELS = {"cpu": 2**19, "cuda": 2**21}


class Diverged(Exception):
    """The loss is no longer a finite number."""


def require_finite(loss: float, what: str, when: str) -> None:
    """Raise :class:`Diverged` unless a loss is a finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"{what} is {loss} {when}")


def evaluation_batch(device: str, size: int) -> int:
    """How many images are judged at a time, of ``size`` × ``size`` pixels on ``cpu`` or ``cuda``."""
    return max(1, EVALUATION_PIXELS[device] // size**2)


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
    """Judge a network on rows of images, under the evaluation transform, by logits in float32.

    Where memory runs out it is judged in smaller batches.
    """
    device = images.labels.device
    network.eval()
    order = torch.from_numpy(rows)
    wanted = images.labels[order.to(device)]
    if images.pixels.device == device:
        order = order.to(device)

    def answers(batch: int) -> torch.Tensor:
        logits = []
        with torch.inference_mode(), autocast(device, precision), float32_logits(network):
            for rows in order.split(batch):
                views = evaluation_view(images.take(rows), images.size)
                logits.append(network(normalise(views, images.mean, images.std)).float())
        return torch.cat(logits)

    logits, _ = in_smaller_parts(evaluation_batch(device.type, images.size), answers)
    log_probabilities = functional.log_softmax(logits, 1)
    predicted = log_probabilities.argmax(1)
    of_label = log_probabilities.gather(1, wanted[:, None])[:, 0]
    return Judgement(
        -of_label.double().mean().item(),
        (predicted == wanted).double().mean().item(),
        predicted.cpu().numpy(),
        of_label.exp().cpu().numpy(),
    )
