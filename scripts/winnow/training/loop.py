"""Training one network: a run that can be read from top to bottom.

The images stay where the arithmetic is; a step waits for nothing. What is random in a step is drawn from (seed, epoch,
step), so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, overload

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from winnow.data.augmentation import boxes, crop, normalise, upload
from winnow.data.images import Images
from winnow.data.preprocessing import evaluation_view
from winnow.runtime.counting import duration, say
from winnow.tables import SCHEMAS
from winnow.training.checkpoints import TERMINATED, Checkpoint, Interruption, Run, random_state, seeded_state, state_of
from winnow.training.choice import Chooser
from winnow.training.determinism import reproducible
from winnow.training.distillation import Teacher
from winnow.training.judging import require_finite
from winnow.training.metrics import Epoch
from winnow.training.steps import Steps


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run made.

    Attributes
    ----------
    state : dict of str to Tensor
        The network's tensors after the chosen epoch.
    epoch : int
        The chosen epoch, counted from 1; 0 for the network as it began.
    val_accuracy : float or None
        Of the chosen epoch.
    history : list of dict
        A row an epoch, as in the table of that name.
    evaluation_seconds : float
        What of the history's seconds went into validation.
    resumed : int
        How often the run was taken up again.
    micro_batch : int or None
        The most images a pass, the fewest if memory ran out amid the run; None for whole batches.
    """

    state: dict[str, torch.Tensor]
    epoch: int
    val_accuracy: float | None
    history: list[Epoch]
    evaluation_seconds: float
    resumed: int
    micro_batch: int | None = None


def learning_rate(recipe: dict[str, Any], step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then constant or half a cosine down to 0."""
    total, warmup = recipe["epochs"] * steps_per_epoch, recipe["warmup_epochs"] * steps_per_epoch
    if step < warmup:
        return recipe["learning_rate"] * (step + 1) / (warmup + 1)
    if recipe["schedule"] == "constant":
        return recipe["learning_rate"]
    return recipe["learning_rate"] * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def optimizer_for(network: nn.Module, recipe: dict[str, Any]) -> torch.optim.Optimizer:
    """The recipe's optimizer, in one kernel a step."""
    common = {"lr": recipe["learning_rate"], "weight_decay": recipe["weight_decay"], "fused": True}
    if recipe["optimizer"] == "adamw":
        return torch.optim.AdamW(network.parameters(), betas=(recipe["momentum"], 0.999), **common)
    momentum = recipe["momentum"]
    return torch.optim.SGD(network.parameters(), momentum=momentum, nesterov=momentum > 0, **common)


@reproducible()
def train(
    network: nn.Module,
    images: Images,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    recipe: dict[str, Any],
    seed: int,
    precision: str,
    micro_batch: int | None = None,
    checkpoint: Checkpoint | None = None,
    report: Callable[[str], None] = say,
    *,
    teacher: Teacher | None = None,
    epochs_before: int = 0,
    knows: bool = False,
) -> Training:
    """Train a network; validation chooses the epoch.

    Parameters
    ----------
    network
        On the images' device; trained in place.
    train_rows, val_rows : (n,) int64
        Rows of ``images``. Without validation rows the last epoch is taken, since nothing is left to choose it with.
        A last batch that is not full is trained on too; only under batch norm of any kind, and if it is a single image,
        which has no statistics to normalise with, is it left out. Which image that is differs from epoch to epoch.
    recipe
        The recipe's fields, see :class:`winnow.workflow.config.Recipe`.
    seed
        Of the order, the augmentation and dropout.
    precision
        ``fp32``, or ``bf16`` for autocast.
    micro_batch
        Images a pass at most; a batch's passes are as equal as can be, and their gradients are added up. None for
        whole batches. A run that goes on from a checkpoint has no more than it had. Under batch norm a pass normalises
        with its own statistics, and there are two images in it at least.
    checkpoint
        Where a run that ends early goes on; None to start anew whatever happens.
    report
        Gets a line an evaluated epoch.
    teacher
        None to learn from the labels alone.
    epochs_before
        Of earlier phases of the same training. Epochs are counted on from there, the schedule begins anew.
    knows
        Whether the network tells the classes already, its last layer being fitted: then it is taken, as epoch 0, if
        validation tells that every epoch's is worse.

    Raises
    ------
    Diverged
        If an epoch's loss or validation loss is not finite; the message names the epoch and the learning rate.
    SystemExit
        With status 143 after SIGTERM or Ctrl-C, once the checkpoint is written.
    """
    device = images.labels.device
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = optimizer_for(network, recipe)
    chooser = Chooser(images, val_rows, precision, recipe["epochs"], recipe["evaluate_every"])
    batch_size = recipe["batch_size"]
    count = trained_images(network, train_rows.size, batch_size)
    steps = math.ceil(count / batch_size)
    computing = Steps(network, recipe, precision, teacher, least_images(network), report)
    # A phase of its own has dropout of its own.
    run = Run(generator_state=seeded_state(device, seed + (epochs_before << 32)))
    if checkpoint is not None:
        run = checkpoint.restore(network, optimizer, run)
    run.micro_batch = fewest(micro_batch, run.micro_batch)
    if knows and run.resumed == 0:
        begins = chooser.look(network, 0, 0, 0.0, run.choice)
        if begins is not None:
            report(f"as it begins: val accuracy {begins.accuracy:.4f}")
    began, taken_up, last = time.perf_counter(), run.epoch, epochs_before + recipe["epochs"]

    with random_state(device, run.generator_state), Interruption() as interruption:
        for epoch in range(run.epoch, recipe["epochs"] + 1):
            number = epochs_before + epoch
            order, labels = shuffled(images, train_rows, seed, number, recipe.get("sampling") == "balanced")
            loss_sum = torch.tensor(run.loss_sum, device=device)
            start = time.perf_counter() - run.seconds

            for step in range(run.step, steps):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, (epoch - 1) * steps + step, steps)
                batch = slice(step * batch_size, min((step + 1) * batch_size, count))
                views = training_views(images, order[batch], recipe["augmentation"], seed, number, step)
                to_come = (recipe["epochs"] - epoch + 1) * steps - step
                loss_sum += computing.gradients(views, labels[batch], run.micro_batch, to_come)
                optimizer.step()

                if checkpoint is not None and (interruption.asked or checkpoint.due()):
                    run.epoch, run.step, run.loss_sum = epoch, step + 1, loss_sum.item()
                    run.seconds, run.generator_state = time.perf_counter() - start, state_of(device)
                    checkpoint.write(network, optimizer, run)
                if interruption.asked:
                    report(f"stopped by a signal in epoch {number} after step {step + 1} of {steps}")
                    raise SystemExit(TERMINATED)

            rate = learning_rate(recipe, epoch * steps - 1, steps)
            train_loss = loss_sum.item() / count
            seconds = time.perf_counter() - start
            require_finite(train_loss, "loss", f"in epoch {number} at learning rate {rate:g}")
            judged = chooser.look(network, epoch, number, rate, run.choice)
            val_loss = val_accuracy = None
            if judged is not None:
                val_loss, val_accuracy = judged.loss, judged.accuracy
                line = f"epoch {number} of {last}: train loss {train_loss:.4f}, val accuracy {judged.accuracy:.4f}"
                left = (time.perf_counter() - began) / (epoch + 1 - taken_up) * (last - number)
                report(f"{line}, about {duration(left)} left" if number < last else line)
            run.history.append(
                {
                    "epoch": number,
                    "train_loss": train_loss,
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                    "learning_rate": rate,
                    "seconds": seconds,
                    "images_per_second": count / seconds,
                }
            )
            run.epoch, run.step, run.loss_sum, run.seconds = epoch + 1, 0, 0.0, 0.0
            if interruption.asked:  # while validation was at it
                if checkpoint is not None:
                    run.generator_state = state_of(device)
                    checkpoint.write(network, optimizer, run)
                report(f"stopped by a signal after epoch {number}")
                raise SystemExit(TERMINATED)

    # What a step took of the device is held by its gradients.
    network.zero_grad(set_to_none=True)
    choice = run.choice
    found = choice.state, choice.epoch, choice.val_accuracy, run.history, choice.seconds
    return Training(*found, run.resumed, run.micro_batch)


def table(history: list[Epoch]) -> pa.Table:
    """A history as the table of that name."""
    return pa.Table.from_pylist(history, SCHEMAS["history"])


def normalises(network: nn.Module) -> bool:
    """Whether a network's images are normalised by the statistics of those beside them: batch norm of any kind."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def least_images(network: nn.Module) -> int:
    """How many images a pass needs: one has no statistics to be normalised with."""
    return 2 if normalises(network) else 1


def trained_images(network: nn.Module, count: int, batch_size: int) -> int:
    """How many of ``count`` images an epoch trains on: all, or all but a last one that cannot be normalised alone."""
    return count - 1 if normalises(network) and count > batch_size and count % batch_size == 1 else count


@overload
def fewest(first: int, /, *others: int | None) -> int: ...
@overload
def fewest(first: int | None, /, *others: int | None) -> int | None: ...
def fewest(*sizes: int | None) -> int | None:
    """The least of some numbers of images a pass, of which None stands for whole batches."""
    return min((size for size in sizes if size is not None), default=None)


def shuffled(
    images: Images, rows: np.ndarray, seed: int, epoch: int, by_class: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """An epoch's rows in the order that they are trained on, where the pixels are, and their labels.

    With ``by_class`` there are as many of each class, and as many in all as there were.
    """
    generator = np.random.default_rng((seed, epoch))
    if by_class:
        rows = balanced(rows, images.labels.cpu().numpy()[rows], generator)
    order = torch.from_numpy(generator.permutation(rows))
    labels = images.labels[order.to(images.labels.device)]
    return order.to(images.pixels.device), labels


def balanced(rows: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many rows, (n,), but of each class as many as of any other, to within one.

    Of a class that has more than its share some are drawn, anew in every epoch; those of a rarer one are all there
    before one is there again.
    """
    classes = generator.permutation(np.unique(labels))
    shares = np.bincount(np.arange(rows.size) % classes.size, minlength=classes.size)
    found = []
    for label, share in zip(classes, shares, strict=True):
        own = rows[labels == label]
        rounds = [generator.permutation(own) for _ in range(math.ceil(share / own.size))]
        found.append(np.concatenate([own[:0], *rounds])[:share])
    return np.concatenate(found)


def training_views(
    images: Images, rows: torch.Tensor, augmentation: dict[str, Any] | None, seed: int, epoch: int, step: int
) -> torch.Tensor:
    """A batch as the network sees it in training, (N, 3, size, size) float32, channels last."""
    pixels = images.take(rows)
    if augmentation is None:
        views = evaluation_view(pixels, images.size)
    else:
        # The order of an epoch is drawn from (seed, epoch), which is (seed, epoch, 0) to the generator.
        drawn = boxes(pixels.shape[0], augmentation, np.random.default_rng((seed, epoch, step + 1)))
        views = crop(pixels, upload(torch.from_numpy(drawn), pixels.device), images.size)
    return normalise(views, images.mean, images.std)
