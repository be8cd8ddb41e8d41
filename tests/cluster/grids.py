"""What the cluster tests share: grids of a few cells, and waiting."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..workflow.checkout import SMALL_GRID

Found = TypeVar("Found")


def grid(seeds: list[int], epochs: int = 2) -> dict[str, Any]:
    """For each seed a cell of the unpruned network and one of a pruned network."""
    config = copy.deepcopy(SMALL_GRID)
    config["recipes"]["quick"]["epochs"] = epochs
    config["experiments"]["small"] |= {"datasets": ["digits"], "criteria": ["average_weight"], "seeds": seeds}
    return config


def wait_for(condition: Callable[[], Found], seconds: float) -> Found:
    """Ask until there is an answer, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {seconds} s"
        time.sleep(0.2)
    return found


@contextmanager
def not_outlived(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """A Snakemake that does not live on where a test fails."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
