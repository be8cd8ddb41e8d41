"""Stands in for :mod:`winnow.runtime.device_memory` where there is no GPU: the host's memory, shared likewise."""

import ctypes
import mmap
import os

import numpy as np
import torch

FREE = 2**30
alive = []


class Block:
    def __init__(self, size, descriptor=None):
        self.fd = os.memfd_create("block") if descriptor is None else os.dup(descriptor)
        if descriptor is None:
            os.truncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.__array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}
        alive.append(self.fd)

    def tensor(self):
        return torch.from_numpy(np.asarray(self))

    def finish(self):
        pass

    def export(self):
        return os.dup(self.fd)

    def __del__(self):
        alive.remove(self.fd)
        os.close(self.fd)


def free():
    return FREE
