from __future__ import annotations

import os
import signal

import pytest

from . import nursery
from .slowest import KEY


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how many runs to kill at a random moment (default: 3)")
    parser.addoption("--kill-demo", action="store_true", help="kill the demo's runs instead of a small grid's")


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("slow"):
            if not mark.args:
                raise pytest.UsageError(f"{item.nodeid} is marked slow and does not say why: pytest.mark.slow('...')")


class Seconds:
    """How long each test took, its fixtures included, for tests/slowest.py."""

    def __init__(self, cache: pytest.Cache):
        self.cache = cache
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self):
        self.cache.set(KEY, (self.cache.get(KEY, None) or {}) | self.seconds)


def pytest_configure(config):
    # Where a shell has put the tests into the background, they and all that they start would hear of no Ctrl-C.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A process of several has its own part only; the first one hears of all.
    if not hasattr(config, "workerinput"):
        if hasattr(config, "cache"):
            config.pluginmanager.register(Seconds(config.cache))
        process, os.environ[nursery.ADDRESS] = nursery.start()
        config.add_cleanup(lambda: (process.stdin.close(), process.wait()))
