"""Paired timing: two things in turn, A B A B …, so that a machine's drift falls on both, and the ratio pair by pair;
and the network with drawn weights that most of them time."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import winnow.runtime  # noqa: F401 - before torch, as in every stage: it settles where torch has its memory from

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from winnow.networks.backbones import Backbone


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, by the wall or by another clock: ``time.process_time`` counts this process's work only."""
    start = clock()
    function()
    return clock() - start


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two things timed in turn.

    Attributes
    ----------
    name : str
        "first / second".
    pairs : list of (float, float)
        Seconds of the first and of the second.
    """

    name: str
    pairs: list[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        """first / second of each pair, the smallest first."""
        return sorted(one / two for one, two in self.pairs)

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        one, two = (statistics.median(times) for times in zip(*self.pairs, strict=True))
        return (
            f"{self.name}: {one:.4g} s / {two:.4g} s, ratio {self.ratio:.3f} "
            f"({self.ratios[0]:.3f} to {self.ratios[-1]:.3f}, {len(self.pairs)} pairs)"
        )


def compare(
    name: str,
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time ``first`` and ``second`` in turn, print both and the ratio first / second, and return them.

    One round before the counted ones warms both up, unless they are too long for that to matter.
    """
    if warm_up:
        seconds(first), seconds(second)
    comparison = Comparison(name, [(seconds(first, clock), seconds(second, clock)) for _ in range(repeats)])
    print(comparison)
    return comparison


def finish(device: str) -> None:
    """Wait until a device has done what it was given: a GPU's clock stops here, not where its work was asked for."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def backbone(architecture: str, head: str, classes: int) -> tuple[nn.Module, Backbone, np.ndarray, np.ndarray]:
    """A network with drawn weights, a backbone with a copy of them, each unit's layer, and drawn scores."""
    import numpy as np
    from winnow.networks import backbones, channels

    dense = backbones.initialised(architecture, head, classes, 0)
    found = channels.of(dense)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": architecture, "head": head, "classes": classes, "layers": layers}
    state = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    # A unit is of its first member's layer.
    place = {layer["layer"]: position for position, layer in enumerate(layers)}
    units = found.table["unit"].to_numpy()
    first = np.full(units.max() + 1, len(layers))
    np.minimum.at(first, units, [place[name] for name in found.table["layer"].to_pylist()])
    names = np.array(list(place))[first]
    scores = np.random.default_rng(0).random(names.size)
    return dense, backbones.Backbone(manifest, state, found.table), names, scores


def machine(threads: int) -> dict[str, str | int]:
    """What the numbers below were measured on, printed and returned; torch gets its threads."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    from winnow.runtime.devices import Lease

    processor = Lease(None).name
    found = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    print(
        f"{found['device']}, {found['cores']} cores, {threads} threads; Python {found['python']}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    )
    return found
