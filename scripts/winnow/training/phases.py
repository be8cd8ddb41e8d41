"""Training in phases, each of which begins with pruning what the phase before has trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from winnow.importance import gradients, masks, passes, scores, statistics
from winnow.importance.criteria import CRITERIA
from winnow.training import cells, loop


@dataclasses.dataclass(frozen=True)
class Before:
    """What a phase has behind it, as a checkpoint can hold it.

    Attributes
    ----------
    phase : int
        How many phases.
    history, evaluation_seconds, resumed
        Theirs, as a :class:`winnow.training.loop.Training` has them.
    keep, rank : (units,) Tensor
        The mask that the phase begins with; None for none.
    """

    phase: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluation_seconds: float = 0.0
    resumed: int = 0
    keep: torch.Tensor | None = None
    rank: torch.Tensor | None = None

    @property
    def kept(self) -> np.ndarray | None:
        return None if self.keep is None else self.keep.numpy()

    def pruned(self, mask: masks.Mask) -> Before:
        return dataclasses.replace(self, keep=torch.from_numpy(mask.keep), rank=torch.from_numpy(mask.rank))

    def added_to(self, trained: loop.Training) -> loop.Training:
        return dataclasses.replace(
            trained,
            history=self.history + trained.history,
            evaluation_seconds=self.evaluation_seconds + trained.evaluation_seconds,
            resumed=self.resumed + trained.resumed,
        )


def measured(network: torch.nn.Module, keep: np.ndarray | None, bench: cells.Bench) -> np.ndarray:
    """Every unit's score on a network in training, (units,); 0 for those that are gone.

    The network is measured as a backbone is (float32, evaluation transform, training images), its last layer being its
    own. It is not to be trained any further.
    """
    cell, manifest, store = bench.arguments.spec["cell"], bench.backbone.manifest, bench.store
    channels, device = bench.backbone.channels, bench.lease.device
    layers = scores.remaining(manifest["layers"], channels, keep)
    needs = CRITERIA[cell["criterion"]].needs
    classes = len(store.classes)

    def batches(limit: int) -> Iterator[passes.Batch]:
        return passes.batches_of(store, store.rows("train"), manifest, device, limit)

    network.eval()
    found = None
    if needs == "activations":
        found = statistics.measure(network, layers, batches(statistics.BATCH_BYTES[device]), classes)
    elif needs == "gradients":
        found = gradients.measure(network, layers, lambda: batches(gradients.BATCH_BYTES), classes)
    state = network.state_dict()
    _, score = scores.score(
        cell["criterion"],
        manifest["layers"],
        channels,
        lambda names: [state[name].cpu().numpy() for name in names],
        found,
        cell["seed"],
        keep,
    )
    return np.nan_to_num(score)
