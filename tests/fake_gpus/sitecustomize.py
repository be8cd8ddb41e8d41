"""GPUs that are none: on PYTHONPATH, it lets programs lease what CUDA_VISIBLE_DEVICES names and compute on the CPU.

With FAKE_GPUS_TOGETHER=N jobs that lease one begin to compute N at a time: a run that lets fewer run does not come
through.
"""

import importlib.abc
import importlib.util
import os
import sys
import time

MODULE = "winnow.runtime.devices"
PATIENCE = 120


class Faker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            fake(module)

        spec.loader.exec_module = exec_module
        return spec


def fake(devices):
    def lease(gpu):
        leased = place(gpu)
        if leased.id is not None:
            wait(devices)
        return leased

    place, devices.lease = devices.lease, lease
    devices.require_driver = devices._compute = lambda: None
    devices.Lease.device = "cpu"


def wait(devices):
    together, deadline = int(os.environ.get("FAKE_GPUS_TOGETHER", "1")), time.monotonic() + PATIENCE
    begun = devices.folder() / "begun"
    with open(begun, "a") as file:
        file.write(".")
        file.flush()
        place = file.tell()
    while begun.stat().st_size < -(-place // together) * together:
        if time.monotonic() > deadline:
            raise devices.InputError(f"waited in vain for {together} jobs side by side")
        time.sleep(0.02)


sys.meta_path.insert(0, Faker())
