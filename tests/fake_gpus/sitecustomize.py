"""GPUs that are none: on PYTHONPATH, it lets programs lease what CUDA_VISIBLE_DEVICES names and compute on the CPU."""

import importlib.abc
import importlib.util
import sys

MODULE = "winnow.runtime.devices"


class Faker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.require_driver = module._compute = lambda: None
            module.Lease.device = "cpu"

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Faker())
