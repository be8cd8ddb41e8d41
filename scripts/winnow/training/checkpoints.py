"""Where an interrupted training goes on: the file, what it is of, and the signal that asks for it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from winnow.files import atomic_path
from winnow.training.choice import Choice
from winnow.training.metrics import Epoch

TERMINATED = 128 + signal.SIGTERM


@dataclasses.dataclass
class Run:
    """Where a training run stands: the next step is ``step`` of ``epoch``."""

    generator_state: dict[str, torch.Tensor]
    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[Epoch] = dataclasses.field(default_factory=list)
    choice: Choice = dataclasses.field(default_factory=Choice)
    resumed: int = 0
    # The fewest images a pass so far; None for whole batches.
    micro_batch: int | None = None


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
            "run": vars(run) | {"choice": vars(run.choice)},
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
        run = Run(**content["run"] | {"choice": Choice(**content["run"]["choice"])})
        # A run that began on a CPU may go on on a GPU, whose generator it knows nothing of.
        run.generator_state = new.generator_state | run.generator_state
        run.resumed += 1
        device = next(network.parameters()).device
        run.choice.state = {name: tensor.to(device) for name, tensor in run.choice.state.items()}
        self.report(f"going on in epoch {run.epoch} after step {run.step}")
        return run


class Interruption:
    """Turns SIGTERM and Ctrl-C into a question that the training loop asks after every step.

    Whoever presses Ctrl-C a second time does not wait for the answer.
    """

    def __enter__(self) -> Interruption:
        self.asked = self.interrupted = False
        # What is ignored, as Ctrl-C is in the background, stays so.
        numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
        self.previous = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked, self.interrupted = True, self.interrupted or number == signal.SIGINT

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


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
