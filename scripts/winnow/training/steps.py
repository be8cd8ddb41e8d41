"""A training step's gradients: kernel by kernel or, on a GPU, recorded once and played back.

Of a small network the host takes longer to start a step's kernels than the device to run them. A recording (a CUDA
graph) starts them all at once. It has the same kernels in the same order and draws the same numbers, so that a training
is bit for bit what it is without. The environment variable :data:`SWITCH`, if it is ``off``, does without.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from winnow.runtime import workers
from winnow.runtime.counting import say
from winnow.runtime.memory import ran_out, release
from winnow.training.distillation import Teacher
from winnow.training.precision import autocast

SWITCH = "WINNOW_RECORDED_STEPS"
# Whole batches that go kernel by kernel before one is recorded: libraries choose and set up what they use in the first.
WARM_UP = 3
# A recording takes about as long as a few steps. For fewer that are left it is not made.
LEAST_STEPS = 30
# What torch calls an operation for which the host waits, and which no recording may have.
_WAITS = "synchronizing CUDA operation"
# What it says of the question.
_NEW = "Synchronization debug mode"


class Steps:
    """The steps of a training: each puts a batch's gradients into the network's parameters.

    Parameters
    ----------
    network
        On the views' device, in training mode as long as there are steps.
    recipe
        The recipe's fields, see :class:`winnow.workflow.config.Recipe`.
    precision
        ``fp32``, or ``bf16`` for autocast.
    teacher
        None to learn from the labels alone.
    least
        How many images a pass needs at least.
    report
        Gets a line where a step that would be worth a recording cannot have one.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: dict[str, Any],
        precision: str,
        teacher: Teacher | None,
        least: int,
        report: Callable[[str], None] = say,
    ) -> None:
        self.network, self.recipe, self.precision, self.teacher, self.least = network, recipe, precision, teacher, least
        self._report = report
        self._recording: Recording | None = None
        self._whole = 0
        # Until something is found that cannot be recorded.
        self._recordable = next(network.parameters()).is_cuda and os.environ.get(SWITCH) != "off"

    def gradients(self, views: torch.Tensor, labels: torch.Tensor, micro_batch: int | None, left: int) -> torch.Tensor:
        """A batch's gradients, cut to ``clip_norm``, in place of those that were there.

        Parameters
        ----------
        views : (N, 3, size, size) float32
        labels : (N,) int64
        micro_batch
            Images a pass at most; None for all at once.
        left
            How many steps there are still to be, this one among them.

        Returns
        -------
        Tensor of () float32
            The loss summed over the images, good until the next call.
        """
        parts = in_passes(micro_batch, self.least, views, labels)
        recorded = self._recording
        if recorded is None and self._worth_recording(len(parts), labels.shape[0], left):
            recorded = self._recording = self._record(views, labels)
        if recorded is not None and len(parts) == 1 and views.shape == recorded.views.shape:
            return recorded.play(views, labels)
        self.network.zero_grad(set_to_none=True)
        whole = len(parts) == 1 and labels.shape[0] == self.recipe["batch_size"]
        self._whole += whole
        if not (self._recordable and whole and self._whole == WARM_UP):
            return self._by_kernel(parts)
        # The first step of all may wait for the device; for what this one waits each of them would.
        with _watched() as waited:
            loss = self._by_kernel(parts)
        if waited:
            self._go_by_kernel("the network lets the host wait for the device amid a step")
        return loss

    def _go_by_kernel(self, reason: str) -> None:
        self._recordable = False
        self._report(f"steps are started kernel by kernel, which is slower for small networks: {reason}")

    def _by_kernel(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        losses = passes(self.network, parts, self.recipe, self.precision, self.teacher)
        loss = next(losses)
        for other in losses:
            loss = loss + other
        if (longest := self.recipe.get("clip_norm")) is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), longest)
        return loss

    def _worth_recording(self, parts: int, images: int, left: int) -> bool:
        if not self._recordable or self._whole < WARM_UP or left < LEAST_STEPS:
            return False
        if parts > 1 or images != self.recipe["batch_size"]:
            return False
        # What steps by kernel have taken stays taken by those that go on that way: the last batch of an epoch.
        if not _room():
            self._go_by_kernel("the device has less than twice as much memory left as they take")
        return self._recordable

    def _record(self, views: torch.Tensor, labels: torch.Tensor) -> Recording | None:
        self.network.zero_grad(set_to_none=True)
        try:
            return Recording(self, views, labels)
        except (MemoryError, RuntimeError) as error:
            if not (ran_out(error) or (error.__context__ is not None and ran_out(error.__context__))):
                # What torch has of the device may go on taking itself for recorded.
                workers.retire()
                raise RuntimeError(
                    f"a training step of {type(self.network).__name__} cannot be recorded: set {SWITCH}=off"
                ) from error
        self.network.zero_grad(set_to_none=True)
        self._go_by_kernel("the device has no memory left for more")
        release()
        return None


class Recording:
    """A step of a batch of this shape, as it is played back for others.

    Attributes
    ----------
    views, labels : Tensor
        Where a batch is put before it is played.
    """

    def __init__(self, steps: Steps, views: torch.Tensor, labels: torch.Tensor) -> None:
        self.views, self.labels = views.clone(memory_format=torch.preserve_format), labels.clone()
        self._parameters = list(steps.network.parameters())
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            # Other threads of the process may go on using the device.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._loss = steps._by_kernel([(self.views, self.labels)])
        finally:
            torch.cuda.set_stream(stream)
        self._gradients = [parameter.grad for parameter in self._parameters]

    def play(self, views: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The gradients of another batch into the network's parameters; returns its summed loss."""
        self.views.copy_(views)
        self.labels.copy_(labels)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss


def in_passes(
    micro_batch: int | None, least: int, views: torch.Tensor, labels: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A batch in as few parts as have at most ``micro_batch`` images each, their sizes as equal as can be.

    Where a part would have fewer than ``least`` there are fewer parts.
    """
    count = labels.shape[0]
    parts = min(math.ceil(count / (micro_batch or count)), max(1, count // least))
    return list(zip(views.tensor_split(parts), labels.tensor_split(parts), strict=True))


def passes(
    network: nn.Module,
    parts: list[tuple[torch.Tensor, torch.Tensor]],
    recipe: dict[str, Any],
    precision: str,
    teacher: Teacher | None,
) -> Iterator[torch.Tensor]:
    """Add a batch's gradients to the network's, a pass a part of its views and labels; yields each's summed loss."""
    count = sum(labels.shape[0] for _, labels in parts)
    for views, labels in parts:
        with autocast(views.device, precision):
            logits = network(views)
        logits = logits.float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=recipe["label_smoothing"], reduction="sum")
        if teacher is not None:
            loss = teacher.loss(loss, logits, teacher.answers(views, precision))
        (loss / count).backward()
        yield loss.detach()


def _room() -> bool:
    """Whether the device has twice as much memory left as this process has taken of it: others may want some, too."""
    return torch.cuda.mem_get_info()[0] >= 2 * torch.cuda.memory_reserved()


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """What the host waited for the device for, once it is over."""
    waited: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waited
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for each in caught:
        if _WAITS in str(each.message):
            waited.append(str(each.message))
        elif _NEW not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
