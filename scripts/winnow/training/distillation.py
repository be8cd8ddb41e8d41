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

    The loss of an image is (1 − weight) · cross-entropy + weight · KL(teacher at temperature T ‖ student): labels mixed
    with what the teacher says, softened [after Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*,
    2015]. They compare both networks at T and weigh by T². Then the gradient by the student's logits is
    T (student − teacher), about that of labels where logits are small beside T, and up to T times as large where they
    are not, as those of a fine-tuned network: steps too large for the recipe, towards logits as large as the teacher's.
    Here it is student − teacher, no larger than that of labels, and the student's logits need not be so large.

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
            functional.log_softmax(logits, 1),
            functional.log_softmax(taught / self.temperature, 1),
            reduction="sum",
            log_target=True,
        )
        return (1 - self.weight) * cross_entropy + self.weight * divergence
