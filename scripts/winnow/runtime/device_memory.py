"""Memory of the GPU that processes share: made by one, seen by many, gone when the last one lets go of it.

To CUDA's virtual memory management, memory and the addresses at which a process sees it are two things, and a file
descriptor may stand for the former. It lasts as long as a process has such a descriptor open or sees the memory, and
the one that made it may end, or be killed. What torch itself shares memory by, cudaIpcMemHandle, leaves the others with
addresses of which nothing is said once that process is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any

# Of cuda.h.
_OUT_OF_MEMORY = 2
_PINNED = 1
_FILE_DESCRIPTOR = 1
_DEVICE = 1
_READ_AND_WRITE = 3
_MINIMUM = 0


class Location(ctypes.Structure):
    """CUmemLocation."""

    _fields_ = (("type", ctypes.c_int), ("id", ctypes.c_int))


class Properties(ctypes.Structure):
    """CUmemAllocationProp."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("handles", ctypes.c_int),
        ("location", Location),
        ("windows", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    )


class Access(ctypes.Structure):
    """CUmemAccessDesc."""

    _fields_ = (("location", Location), ("flags", ctypes.c_int))


def properties(device: int) -> Properties:
    """Of memory of a device, by its number, that a file descriptor can stand for."""
    return Properties(type=_PINNED, handles=_FILE_DESCRIPTOR, location=Location(_DEVICE, device))


def access(device: int) -> Access:
    """A device's, to read and to write."""
    return Access(Location(_DEVICE, device), _READ_AND_WRITE)


class Block:
    """Memory of the GPU as this process sees it, until it is closed or nobody refers to it any more.

    Parameters
    ----------
    size
        In bytes.
    descriptor
        Of memory that is there; None to make some. It may be closed afterwards.

    Raises
    ------
    MemoryError
        If the device has not that much left.
    OSError
        If driver or device cannot share memory.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        import torch

        torch.cuda.init()
        self.size = size
        device = torch.cuda.current_device()
        made, seen_by = properties(device), access(device)
        granularity = ctypes.c_size_t()
        self._handle, self._address = ctypes.c_ulonglong(), ctypes.c_ulonglong()
        _call("cuMemGetAllocationGranularity", ctypes.byref(granularity), ctypes.byref(made), ctypes.c_int(_MINIMUM))
        whole = ctypes.c_size_t(-(-size // granularity.value) * granularity.value)
        none = ctypes.c_ulonglong(0)
        with contextlib.ExitStack() as undo:
            if descriptor is None:
                _call("cuMemCreate", ctypes.byref(self._handle), whole, ctypes.byref(made), none)
            else:
                number = ctypes.c_void_p(descriptor)
                kind = ctypes.c_int(_FILE_DESCRIPTOR)
                _call("cuMemImportFromShareableHandle", ctypes.byref(self._handle), number, kind)
            undo.callback(_call, "cuMemRelease", self._handle)
            _call("cuMemAddressReserve", ctypes.byref(self._address), whole, ctypes.c_size_t(0), none, none)
            undo.callback(_call, "cuMemAddressFree", self._address, whole)
            _call("cuMemMap", self._address, whole, ctypes.c_size_t(0), self._handle, none)
            undo.callback(_call, "cuMemUnmap", self._address, whole)
            _call("cuMemSetAccess", self._address, whole, ctypes.byref(seen_by), ctypes.c_size_t(1))
            # No kernel may still be reading from it.
            undo.callback(torch.cuda.synchronize)
            self._undo = undo.pop_all()

    @property
    def address(self) -> int:
        return self._address.value

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (self.size,), "typestr": "|u1", "data": (self.address, False), "version": 2}

    def tensor(self) -> Any:
        """The memory as a tensor, (size,) uint8, which keeps the block as long as any view of it lives."""
        import torch

        return torch.as_tensor(self, device="cuda")

    def finish(self) -> None:
        """Wait until everything is there that was written to it."""
        import torch

        torch.cuda.synchronize()

    def export(self) -> int:
        """A new file descriptor that stands for the memory."""
        descriptor = ctypes.c_int(-1)
        kind = ctypes.c_int(_FILE_DESCRIPTOR)
        _call("cuMemExportToShareableHandle", ctypes.byref(descriptor), self._handle, kind, ctypes.c_ulonglong(0))
        return descriptor.value

    def close(self) -> None:
        if undo := self.__dict__.pop("_undo", None):
            undo.close()

    def __del__(self) -> None:
        # At a process's end the driver may be gone before this is.
        with contextlib.suppress(Exception):
            self.close()


def free() -> int:
    """Bytes of the device that nobody has taken."""
    import torch

    return torch.cuda.mem_get_info()[0]


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    try:
        function = getattr(_library(), name)
    except AttributeError:
        raise OSError(f"the driver is too old, it has no {name}") from None
    code = function(*arguments)
    if code == _OUT_OF_MEMORY:
        raise MemoryError(f"{name}: the device has no memory left")
    if code:
        raise OSError(f"{name} ends with CUDA's error {code}")
