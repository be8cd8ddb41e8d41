"""Learning from another network, besides the labels."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from winnow.training.precision import autocast


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network to learn from, besides the labels.

    The loss of an image is (1 − weight) · cross-entropy + weight · T · KL(teacher ‖ student), of the two softmaxes at
    temperature T [Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015]. They weigh it by T²,
    which keeps its gradient where logits are small beside T. Those of a fine-tuned network are not, and there its
    gradient by the logits, T (student − teacher), is up to T times that of cross-entropy: too large a step for the
    recipe. With T it is student − teacher, as large as that of labels at any temperature.

    Attributes
    ----------
    network : Module
        In eval mode, on the images' device. It sees what the student sees.
    temperature, weight : float
    """

    network: nn.Module
    temperature: float
    weight: float

    def answers(self, views: torch.Tensor, precision: str) -> torch.Tensor:
        """The logits that it gives for a batch, (N, classes) float32."""
        with torch.no_grad(), autocast(views.device, precision):
            return self.network(views).float()

    def loss(self, cross_entropy: torch.Tensor, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Summed over the images: ``cross_entropy`` is, logits are (N, classes)."""
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(taught / self.temperature, 1),
            reduction="sum",
            log_target=True,
        )
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature * divergence
