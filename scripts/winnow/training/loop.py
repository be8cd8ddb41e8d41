"""Fine-tuning and judging one network: a training run that can be read from top to bottom.

The images stay where the arithmetic is; a step waits for nothing. What is random in a step is drawn from (seed, epoch,
step), so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from winnow.data.augmentation import boxes, crop, normalise, upload
from winnow.data.images import Images
from winnow.data.preprocessing import evaluation_view
from winnow.files import atomic_path
from winnow.training.determinism import reproducible

# Below this, the conversions cost more than bfloat16 saves.
BF16_MACS = 50_000_000
# An evaluation's batch, in pixels: 41 images at 224. More are no faster; VGG-16 takes 14 MB (bf16) for each.
EVALUATION_PIXELS = 2**21
TERMINATED = 128 + signal.SIGTERM


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run made.

    Attributes
    ----------
    state : dict of str to Tensor
        The network's tensors after the chosen epoch.
    epoch : int
        The chosen epoch, counted from 1.
    val_accuracy : float or None
        Of the chosen epoch.
    history : list of dict
        A row an epoch, as in the table of that name.
    evaluation_seconds : float
        What of the history's seconds went into validation.
    resumed : int
        How often the run was taken up again.
    """

    state: dict[str, torch.Tensor]
    epoch: int
    val_accuracy: float | None
    history: list[dict[str, Any]]
    evaluation_seconds: float
    resumed: int


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A network to learn from, besides the labels.

    The loss of an image is (1 − weight) · cross-entropy + weight · T² · KL(teacher ‖ student), of the two softmaxes at
    temperature T [Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015].

    Attributes
    ----------
    network : Module
        In eval mode, on the images' device. It sees what the student sees.
    temperature, weight : float
    """

    network: nn.Module
    temperature: float
    weight: float

    def loss(self, cross_entropy: torch.Tensor, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Summed over the images: ``cross_entropy`` is, logits are (N, classes)."""
        divergence = functional.kl_div(
            functional.log_softmax(logits / self.temperature, 1),
            functional.log_softmax(taught / self.temperature, 1),
            reduction="sum",
            log_target=True,
        )
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * divergence


class Diverged(Exception):
    """The loss is no longer a finite number."""


def require_finite(loss: float, what: str, when: str) -> None:
    """Raise :class:`Diverged` unless a loss is a finite number."""
    if not math.isfinite(loss):
        raise Diverged(f"{what} is {loss} {when}")


def precision_for(wanted: str, device: str, macs: int) -> str:
    """``bf16`` or ``fp32``: what ``auto`` comes to on this device for a network of so many multiply-accumulates."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if macs >= BF16_MACS and _has_bf16_arithmetic() else "fp32"


def _has_bf16_arithmetic() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


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
    report: Callable[[str], None] = print,
    *,
    teacher: Teacher | None = None,
    epochs_before: int = 0,
) -> Training:
    """Train a network; validation chooses the epoch.

    Parameters
    ----------
    network
        On the images' device; trained in place.
    train_rows, val_rows : (n,) int64
        Rows of ``images``. Without validation rows the last epoch is taken, since nothing is left to choose it with.
        A last batch that is not full is trained on too; only under batch norm, and if it is a single image, which has
        no statistics to normalise with, is it left out. Which image that is differs from epoch to epoch.
    recipe
        The recipe's fields, see :class:`winnow.workflow.config.Recipe`.
    seed
        Of the order, the augmentation and dropout.
    precision
        ``fp32``, or ``bf16`` for autocast.
    micro_batch
        Images a pass; gradients of a batch's passes are added up. None for whole batches.
    checkpoint
        Where a run that ends early goes on; None to start anew whatever happens.
    report
        Gets a line an evaluated epoch.
    teacher
        None to learn from the labels alone.
    epochs_before
        Of earlier phases of the same training. Epochs are counted on from there, the schedule begins anew.

    Raises
    ------
    Diverged
        If an epoch's loss or validation loss is not finite; the message names the epoch and the learning rate.
    SystemExit
        With status 143 after SIGTERM, once the checkpoint is written.
    """
    device = images.labels.device
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = optimizer_for(network, recipe)
    batch_size = recipe["batch_size"]
    micro_batch = micro_batch or batch_size
    count = train_rows.size
    normalises = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if normalises and count > batch_size and count % batch_size == 1:
        count -= 1
    steps = math.ceil(count / batch_size)
    # A phase of its own has dropout of its own.
    run = Run(generator_state=seeded_state(device, seed + (epochs_before << 32)))
    if checkpoint is not None:
        run = checkpoint.restore(network, optimizer, run)

    with random_state(device, run.generator_state), Interruption() as interruption:
        for epoch in range(run.epoch, recipe["epochs"] + 1):
            number = epochs_before + epoch
            order = torch.from_numpy(np.random.default_rng((seed, number)).permutation(train_rows))
            labels = images.labels[order.to(device)]
            if images.pixels.device == device:
                order = order.to(device)
            loss_sum = torch.tensor(run.loss_sum, device=device)
            start = time.perf_counter() - run.seconds

            for step in range(run.step, steps):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, (epoch - 1) * steps + step, steps)
                batch = slice(step * batch_size, min((step + 1) * batch_size, count))
                views = training_views(images, order[batch], recipe["augmentation"], seed, number, step)
                wanted = labels[batch]
                optimizer.zero_grad(set_to_none=True)
                for first in range(0, wanted.shape[0], micro_batch):
                    part = slice(first, first + micro_batch)
                    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        logits = network(views[part])
                    logits = logits.float()
                    loss = functional.cross_entropy(
                        logits, wanted[part], label_smoothing=recipe["label_smoothing"], reduction="sum"
                    )
                    if teacher is not None:
                        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                            taught = teacher.network(views[part]).float()
                        loss = teacher.loss(loss, logits, taught)
                    (loss / wanted.shape[0]).backward()
                    loss_sum += loss.detach()
                optimizer.step()

                if checkpoint is not None and (interruption.asked or checkpoint.due()):
                    seconds = time.perf_counter() - start
                    run = dataclasses.replace(
                        run, epoch=epoch, step=step + 1, loss_sum=loss_sum.item(), seconds=seconds
                    )
                    checkpoint.write(network, optimizer, dataclasses.replace(run, generator_state=state_of(device)))
                if interruption.asked:
                    report(f"stopped by a signal in epoch {number} after step {step + 1} of {steps}")
                    raise SystemExit(TERMINATED)

            rate = learning_rate(recipe, epoch * steps - 1, steps)
            train_loss = loss_sum.item() / count
            seconds = time.perf_counter() - start
            require_finite(train_loss, "loss", f"in epoch {number} at learning rate {rate:g}")
            row = {"epoch": number, "train_loss": train_loss, "val_loss": None, "val_accuracy": None}
            row |= {"learning_rate": rate, "seconds": seconds, "images_per_second": count / seconds}
            last = epoch == recipe["epochs"]
            chosen = last and val_rows.size == 0
            if val_rows.size and (last or epoch % recipe["evaluate_every"] == 0):
                judged = evaluate(network, images, val_rows, precision)
                network.train()
                # Weights that the epoch's last step threw away are not in its loss.
                require_finite(judged.loss, "validation loss", f"after epoch {number} at learning rate {rate:g}")
                row |= {"val_loss": judged.loss, "val_accuracy": judged.accuracy}
                report(f"epoch {number}: train loss {train_loss:.4f}, val accuracy {judged.accuracy:.4f}")
                merit = (judged.accuracy, -judged.loss)
                chosen = run.merit is None or merit > run.merit
                run.evaluation_seconds += time.perf_counter() - start - seconds
            if chosen:
                run.best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                run.best_epoch = number
                run.merit = merit if val_rows.size else None
            run.history.append(row)
            run = dataclasses.replace(run, epoch=epoch + 1, step=0, loss_sum=0.0, seconds=0.0)

    return Training(
        run.best,
        run.best_epoch,
        run.merit[0] if run.merit else None,
        run.history,
        run.evaluation_seconds,
        run.resumed,
    )


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
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
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


@dataclasses.dataclass
class Run:
    """Where a training run stands: the next step is ``step`` of ``epoch``."""

    generator_state: dict[str, torch.Tensor]
    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    best_epoch: int = 0
    merit: tuple[float, float] | None = None
    evaluation_seconds: float = 0.0
    resumed: int = 0


class Checkpoint:
    """The file from which an interrupted run goes on.

    Parameters
    ----------
    path
        Written atomically, so that a kill leaves the previous one.
    key
        Of everything that the run's result depends on: a checkpoint with another key is not taken up.
    every : float
        Seconds between two checkpoints.

    Attributes
    ----------
    before : dict
        What a run of several phases has behind it: ``phase``, how many, and whatever the next one begins with (of
        tensors, numbers and containers). Each phase's beginning is written, so that nothing of that is lost.
    """

    def __init__(self, path: Path, key: str, every: float, report: Callable[[str], None] = print):
        self.path, self.key, self.every, self.report = path, key, every, report
        self.last = time.monotonic()
        self.before: dict[str, Any] = {}

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def write(self, network: nn.Module, optimizer: torch.optim.Optimizer, run: Run) -> None:
        content = {
            "key": self.key,
            "before": self.before,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "run": {field.name: getattr(run, field.name) for field in dataclasses.fields(run)},
        }
        with atomic_path(self.path) as temporary:
            torch.save(content, temporary)
        self.last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was written, if it is of the same run."""
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["key"] == self.key:
                return content
            self.report(f"{self.path} is of another configuration: starting anew")
        except Exception as error:  # Whatever is wrong with the file, the run is not lost, only the time.
            self.report(f"{self.path} cannot be read ({type(error).__name__}): starting anew")
        return None

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer, new: Run) -> Run:
        """Put a run's state back and return where it stands; ``new`` if there is nothing of this phase to take up."""
        content = self.read()
        if content is None or content["before"].get("phase") != self.before.get("phase"):
            if self.before:
                self.write(network, optimizer, new)
            return new
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        run = Run(**content["run"])
        # A run that began on a CPU may go on on a GPU, whose generator it knows nothing of.
        run.generator_state = new.generator_state | run.generator_state
        run.resumed += 1
        device = next(network.parameters()).device
        run.best = {name: tensor.to(device) for name, tensor in run.best.items()}
        run.merit = tuple(run.merit) if run.merit else None
        self.report(f"going on in epoch {run.epoch} after step {run.step}")
        return run


class Interruption:
    """Turns SIGTERM into a question that the training loop asks after every step."""

    def __enter__(self) -> Interruption:
        self.asked = False
        self.previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def __exit__(self, *exception: Any) -> None:
        signal.signal(signal.SIGTERM, self.previous)


def seeded_state(device: torch.device, seed: int) -> dict[str, torch.Tensor]:
    """The state of torch's generators after seeding them."""
    state = {"cpu": torch.Generator().manual_seed(seed).get_state()}
    if device.type == "cuda":
        state["cuda"] = torch.Generator(device).manual_seed(seed).get_state()
    return state


def state_of(device: torch.device) -> dict[str, torch.Tensor]:
    """The present state of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


@contextlib.contextmanager
def random_state(device: torch.device, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Run with torch's generators in ``state`` and leave them as they were found."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(state["cpu"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], device)
        yield
