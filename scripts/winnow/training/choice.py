"""Which epoch's weights are taken: validation chooses, by accuracy, then by loss, then the earliest.

Those that a network began with, where they are asked about, are no epoch's: they stay only if validation tells that
every epoch's are worse. Where it can't tell, training is expected to have helped.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from torch import nn

from winnow.data.images import Images
from winnow.training.judging import Judgement, evaluate, require_finite
from winnow.training.rates import indistinct


@dataclasses.dataclass
class Choice:
    """The best epoch so far.

    Attributes
    ----------
    state : dict of str to Tensor
        The network's tensors after it.
    epoch : int
        Counted from 1; 0 before the first is chosen, and for the network as it began.
    merit : (float, float) or None
        Its accuracy and negative loss on the validation images; None without such images.
    seconds : float
        What validation has taken.
    """

    state: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    merit: tuple[float, float] | None = None
    seconds: float = 0.0

    @property
    def val_accuracy(self) -> float | None:
        return self.merit[0] if self.merit else None

    def take(self, network: nn.Module, epoch: int, judged: Judgement | None, images: int) -> None:
        """Take an epoch's weights if they are the best so far, by so many images; those that nobody judged are."""
        merit = (judged.accuracy, -judged.loss) if judged else None
        if merit is None or self.merit is None or self._gives_way(self.merit, merit, images):
            self.state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
            self.epoch, self.merit = epoch, merit

    def _gives_way(self, best: tuple[float, float], merit: tuple[float, float], images: int) -> bool:
        if self.epoch:
            return merit > best
        # Counts, since a mean over images is off by its last bit.
        right = round(best[0] * images)
        return round(merit[0] * images) >= right - indistinct(right, images)


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Looks at a network after its epochs.

    Attributes
    ----------
    rows : (n,) int64
        Validation images. Without any the last epoch is taken, since nothing is left to choose it with.
    epochs, every : int
        How many epochs there are; validation comes after each ``every``-th and after the last.
    """

    images: Images
    rows: np.ndarray
    precision: str
    epochs: int
    every: int

    def look(self, network: nn.Module, epoch: int, number: int, rate: float, choice: Choice) -> Judgement | None:
        """Judge the network where it is due, and take its weights into ``choice`` where they are the best.

        Parameters
        ----------
        epoch, number : int
            The epoch of these ``epochs``, and as it is counted through all phases.
        rate
            The learning rate that it ended with.

        Raises
        ------
        Diverged
            If the validation loss is not finite; the message names the epoch and the learning rate.
        """
        last = epoch == self.epochs
        if not self.rows.size:
            if last:
                choice.take(network, number, None, 0)
            return None
        if not last and epoch % self.every:
            return None
        start = time.perf_counter()
        judged = evaluate(network, self.images, self.rows, self.precision)
        network.train()
        # Weights that the epoch's last step threw away are not in its loss.
        require_finite(judged.loss, "validation loss", f"after epoch {number} at learning rate {rate:g}")
        choice.seconds += time.perf_counter() - start
        choice.take(network, number, judged, self.rows.size)
        return judged
