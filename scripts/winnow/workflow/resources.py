"""What jobs ask of a machine: threads, GPUs and memory, estimated before anything runs and without torch.

Threads are a share of the run's cores. On a GPU the share is the same for all: what is left of the cores for each GPU
job, up to what keeps a GPU busy. On a CPU it follows from the work of a step: a small network cannot share its steps
among many threads, so that many cells run side by side; a large one gets all cores.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from winnow.workflow import costs, disk, grid
from winnow.workflow.config import Config, Recipe

# One thread puts a network's kernels on the GPU's queue, one those of the backward pass; two gather the images of the
# next batch where these do not fit on the device. The rest (crops, normalisation) is done there.
GPU_THREADS = 4
# What of a step more threads do not shorten takes one thread as long as some 0.4·10⁹ multiply-accumulates of a forward
# pass, its backward pass included: two cells of one thread train SqueezeNet 1.4 to 1.7 times as fast as one of two with
# 0.5·10⁹ a step, 1.15 times with 1.8·10⁹ (benchmarks/side_by_side.py). With ten times that for each thread, a cell of
# many threads is at most a tenth slower than its share of cells of one.
MACS_A_THREAD = 4e9
# Below it, a pass over a thousand images is a second's work of one thread.
SMALL_MACS = 1e7

# Megabytes of a process that has torch and its libraries loaded; with CUDA's the more.
BASE_MB = 880
GPU_BASE_MB = 3000
# Copies of the weights: the backbone's, the network's, their gradients, the best epoch's; the optimizer's come on top.
COPIES = 4
OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}
# What a step takes over what it keeps for the backward pass: gradients of activations, the libraries' own workspace.
WORKSPACE = 1.7
# An evaluation's batch on a CPU, in pixels, as winnow.training.judging has it; it keeps a layer's activations, not
# those of all.
EVALUATION_PIXELS = 2**19
EVALUATION_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class Load:
    """What a training is estimated by.

    Attributes
    ----------
    architecture
        Its name; a factory's counts as unknown.
    head
        ``classifier`` or ``gap``.
    image_size
        Side of what the network sees, in pixels.
    batch_size
        Images a step.
    optimizer
        ``sgd`` or ``adamw``.
    """

    architecture: str
    head: str
    image_size: int
    batch_size: int
    optimizer: str

    @property
    def step_macs(self) -> float:
        """Multiply-accumulates of a step's forward pass, of the unpruned network: arms of a comparison run alike."""
        return self.batch_size * costs.macs(self.architecture, self.image_size)

    def memory_mb(self, gpu: bool) -> int:
        """Megabytes of the host's memory that a training takes at most, the mapped images left out."""
        weights = disk.model_bytes(self.architecture, self.head, 0.0) / 1e6
        if gpu:
            return round(GPU_BASE_MB + 2 * weights)
        evaluated = EVALUATION_SHARE * EVALUATION_PIXELS / self.image_size**2
        numbers = costs.activations(self.architecture, self.image_size)
        activations = 4e-6 * numbers * max(WORKSPACE * self.batch_size, evaluated)
        return round(BASE_MB + (COPIES + OPTIMIZER_COPIES[self.optimizer]) * weights + activations)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a run's jobs share.

    Attributes
    ----------
    cores
        Of the run; of each job where it has a machine of its own.
    gpus
        How many GPU jobs run at a time; 0: none, all run on CPUs.
    memory_mb
        Of the machine; None where each job has a machine of its own.
    """

    cores: int
    gpus: int
    memory_mb: int | None

    def cell_threads(self, load: Load) -> int:
        """Threads of a cell.

        On a CPU one for each ``MACS_A_THREAD`` of a step's forward pass; more where the memory holds fewer cells than
        would fill the cores; and what is left when no further cell fits is shared among those that do.
        """
        if self.gpus:
            return self._gpu_threads()
        wanted = 1 + int(load.step_macs / MACS_A_THREAD)
        side_by_side = max(1, self.cores // wanted)
        if self.memory_mb is not None:
            side_by_side = max(1, min(side_by_side, self.memory_mb // load.memory_mb(gpu=False)))
        return self.cores // side_by_side

    def pass_threads(self, architecture: str, image_size: int) -> int:
        """Threads of a job that a grid waits for, such as the statistics: all cores, unless it is over at once."""
        if self.gpus:
            return self._gpu_threads()
        return 1 if costs.macs(architecture, image_size) < SMALL_MACS else self.cores

    def memory_of(self, load: Load) -> int:
        """Megabytes of a cell."""
        return load.memory_mb(gpu=self.gpus > 0)

    def _gpu_threads(self) -> int:
        return max(1, min(GPU_THREADS, self.cores // self.gpus))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the jobs of a configuration ask for, by their rule's wildcards."""

    config: Config
    machine: Machine

    def cell_threads(self, wildcards: Any) -> int:
        return self.machine.cell_threads(self._cell(wildcards))

    def cell_mb(self, wildcards: Any, attempt: int) -> int:
        """More each time that it failed."""
        return attempt * self.machine.memory_of(self._cell(wildcards))

    def pass_threads(self, wildcards: Any) -> int:
        """Of a job that goes over a data set's images with a backbone."""
        return self._pass_threads(grid.parse_images(wildcards.dataset)[0], wildcards.backbone)

    def pretraining_threads(self, wildcards: Any) -> int:
        return self._pass_threads(self.config.pretraining(wildcards.backbone).dataset, wildcards.backbone)

    def pretraining_mb(self, wildcards: Any, attempt: int) -> int:
        pretraining = self.config.pretraining(wildcards.backbone)
        load = self._load(pretraining.dataset, wildcards.backbone, self.config.recipes[pretraining.recipe])
        return attempt * self.machine.memory_of(load)

    def decoding_threads(self, wildcards: Any) -> int:
        """Files are decoded side by side; the digits are there as numbers."""
        return 1 if self.config.datasets[wildcards.dataset].source == "digits" else self.machine.cores

    def export_threads(self, wildcards: Any) -> int:
        """Of a job that exports the best of each data set and backbone of an experiment."""
        experiment = self.config.experiments[wildcards.experiment]
        return max(self._pass_threads(*pair) for pair in itertools.product(experiment.datasets, experiment.networks))

    def _cell(self, wildcards: Any) -> Load:
        dataset = grid.parse_images(wildcards.dataset)[0]
        return self._load(dataset, wildcards.backbone, self.config.recipe(dataset, wildcards.backbone))

    def _load(self, dataset: str, backbone: str, recipe: Recipe) -> Load:
        size, head = self.config.datasets[dataset].image_size, self.config.backbones[backbone].head
        return Load(self.config.backbones[backbone].network, head, size, recipe.batch_size, recipe.optimizer)

    def _pass_threads(self, dataset: str, backbone: str) -> int:
        size = self.config.datasets[dataset].image_size
        return self.machine.pass_threads(self.config.backbones[backbone].network, size)


def gpus(granted: int | None, seen: Callable[[], list[str]], submits: bool) -> int:
    """How many GPU jobs run at a time.

    Parameters
    ----------
    granted
        What the user gave with ``--resources gpu=N``; None if nothing.
    seen
        Lists the devices that the run may use; is asked only where that matters.
    submits
        Whether each job has a machine of its own, with one GPU unless none is granted.
    """
    if granted == 0:
        return 0
    if submits:
        return 1
    devices = len(seen())
    return min(devices, 1) * (granted or devices)


def memory_mb() -> int:
    """Megabytes that this machine has for the run: the least of what kernel, container and SLURM allocation say."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()) / 1e6)
        except (OSError, ValueError):
            continue  # no such container, or one without a limit: "max"
    if allocated := os.environ.get("SLURM_MEM_PER_NODE"):
        limits.append(int(allocated) * 2**20 / 1e6)
    return int(min(limits))
