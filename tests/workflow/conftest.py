"""Finished runs, made once a session however many test processes there are."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

import pytest

from .checkout import Checkout


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[..., Checkout]:
    """Run a workflow once for all test processes: the first that asks for ``name`` runs it, the others wait.

    Not to be changed: take a copy. What the run did is in :meth:`Checkout.account`.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, config: dict[str, Any] | None = None, *arguments: str) -> Checkout:
        place = folder / f"shared-{name}"
        place.mkdir(exist_ok=True)
        with open(place / "lock", "w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            checkout = Checkout(place / "checkout", config)
            if not (place / "ran").exists():
                checkout.run(*arguments)
                (place / "ran").touch()
        return checkout

    return make


@pytest.fixture(scope="session")
def finished(shared) -> Checkout:
    """The small grid, run to its end."""
    return shared("small")


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of the finished small grid to change and run."""
    return finished.copy(tmp_path / "checkout")
