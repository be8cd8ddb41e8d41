"""Shared memory of a GPU, on a driver that is none: what is called in which order, and that nothing is left."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess

import pytest
import torch

from winnow.runtime import device_memory

COMPILER = shutil.which("cc") or shutil.which("gcc")
# Handles are descriptors of memory files, addresses those of the host; whatever is taken is counted until given back.
DRIVER = r"""
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long long u64;
struct location { int type, id; };
struct properties { int type, handles; struct location location; void *windows; unsigned char flags[8]; };
struct access { struct location location; int flags; };
int taken = 0, refused = 0;

static int right(const struct properties *p) {
    return p->type == 1 && p->handles == 1 && p->location.type == 1 && p->location.id == 3 && !p->windows;
}
int cuMemGetAllocationGranularity(size_t *size, const struct properties *p, int option) {
    *size = 1 << 21;
    return right(p) && option == 0 ? 0 : 1;
}
int cuMemCreate(u64 *handle, size_t size, const struct properties *p, u64 flags) {
    if (!right(p) || flags || size % (1 << 21)) return 1;
    if (size > (u64)1 << 30) return 2;
    *handle = memfd_create("device", 0);
    taken++;
    return ftruncate(*handle, size) ? 1 : 0;
}
int cuMemExportToShareableHandle(int *fd, u64 handle, int kind, u64 flags) {
    *fd = dup(handle);
    return kind == 1 && !flags ? 0 : 1;
}
int cuMemImportFromShareableHandle(u64 *handle, void *fd, int kind) {
    *handle = dup((int)(size_t)fd);
    taken++;
    return kind == 1 ? 0 : 1;
}
int cuMemRelease(u64 handle) { taken--; return close(handle) ? 1 : 0; }
int cuMemAddressReserve(u64 *address, size_t size, size_t alignment, u64 hint, u64 flags) {
    if (alignment || hint || flags) return 1;
    *address = (u64)mmap(0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    taken++;
    return 0;
}
int cuMemAddressFree(u64 address, size_t size) { taken--; return munmap((void *)address, size) ? 1 : 0; }
int cuMemMap(u64 address, size_t size, size_t offset, u64 handle, u64 flags) {
    if (refused || offset || flags) return 801;
    taken++;
    return mmap((void *)address, size, PROT_NONE, MAP_SHARED | MAP_FIXED, handle, 0) == MAP_FAILED;
}
int cuMemSetAccess(u64 address, size_t size, const struct access *a, size_t count) {
    if (count != 1 || a->location.type != 1 || a->location.id != 3 || a->flags != 3) return 1;
    return mprotect((void *)address, size, PROT_READ | PROT_WRITE) ? 1 : 0;
}
int cuMemUnmap(u64 address, size_t size) {
    taken--;
    return mmap((void *)address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    command = [COMPILER, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(folder / "libcuda.so.1"))


@pytest.fixture
def driver(library, monkeypatch):
    monkeypatch.setattr(device_memory, "_library", lambda: library)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    ctypes.c_int.in_dll(library, "refused").value = 0
    yield library
    assert ctypes.c_int.in_dll(library, "taken").value == 0


def test_what_is_written_to_a_block_is_read_from_another_of_the_same_memory(driver):
    first = device_memory.Block(3_000_000)
    assert first.__cuda_array_interface__["shape"] == (3_000_000,)
    assert first.__cuda_array_interface__["data"] == (first.address, False)
    ctypes.memmove(first.address, b"images", 6)
    descriptor = first.export()
    second = device_memory.Block(3_000_000, descriptor)
    os.close(descriptor)
    assert second.address != first.address
    first.close()
    # Whoever made it is gone.
    assert ctypes.string_at(second.address, 6) == b"images"
    ctypes.memset(second.address + 2_999_999, 1, 1)
    del second


def test_what_the_device_has_not_is_an_error_of_memory_and_a_refusal_leaves_nothing(driver):
    with pytest.raises(MemoryError, match="cuMemCreate"):
        device_memory.Block(2**31)
    ctypes.c_int.in_dll(driver, "refused").value = 1
    with pytest.raises(OSError, match="cuMemMap ends with CUDA's error 801"):
        device_memory.Block(100)


def test_a_driver_that_is_missing_or_too_old_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(device_memory, "_library", lambda: ctypes.CDLL(None))
    with pytest.raises(OSError, match="has no cuMemGetAllocationGranularity"):
        device_memory.Block(100)
    monkeypatch.setattr(device_memory, "_library", lambda: ctypes.CDLL("no such library"))
    with pytest.raises(OSError, match="no such library"):
        device_memory.Block(100)


def test_the_driver_is_told_what_nvidias_own_bindings_tell_it():
    nvidia = pytest.importorskip("cuda.bindings.driver")
    place = nvidia.CUmemLocation()
    place.type, place.id = nvidia.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, 3
    made = nvidia.CUmemAllocationProp()
    made.type, made.location = nvidia.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED, place
    made.requestedHandleTypes = nvidia.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    seen_by = nvidia.CUmemAccessDesc()
    seen_by.location, seen_by.flags = place, nvidia.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    for ours, theirs in (device_memory.properties(3), made), (device_memory.access(3), seen_by):
        assert bytes(ours) == ctypes.string_at(int(theirs.getPtr()), ctypes.sizeof(ours))
