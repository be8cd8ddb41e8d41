"""What is kept from job to job, and what is done where memory runs out."""

import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from winnow.runtime import memory

from .programs import SCRIPTS

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "_kept", {})


def folder(tmp_path, name="a"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.json").write_text("{}")
    return tmp_path / name


def test_it_is_made_once_and_again_when_its_manifest_changes(tmp_path):
    place, made = folder(tmp_path), []

    def get(*details):
        return memory.kept("store", place, lambda: made.append(1) or len(made), *details)

    assert [get(), get(), get("cuda"), get("cuda"), get()] == [1, 1, 2, 2, 1]
    os.utime(place / "manifest.json", ns=(1, 1))
    assert get() == 3


def test_the_least_recently_used_goes_first(tmp_path):
    places = [folder(tmp_path, str(number)) for number in range(memory.LIMIT + 1)]
    for place in places:
        memory.kept("store", place, lambda: "old")
    assert memory.kept("store", places[-1], lambda: "new") == "old"
    assert memory.kept("store", places[0], lambda: "new") == "new"


def test_a_few_of_each_kind_are_kept(tmp_path):
    kinds, places = ("store", "backbone", "images"), [folder(tmp_path, str(number)) for number in range(memory.LIMIT)]
    made = []
    for _ in range(3):
        for place in places:
            for kind in kinds:
                memory.kept(kind, place, lambda *what: made.append(what))
    assert len(made) == len(kinds) * len(places)


def test_no_more_of_a_kind_is_kept_on_a_device_than_there_is_room_for(tmp_path):
    places, most = [folder(tmp_path, name) for name in "abc"], []

    def get(place, size, room=100):
        def make():
            # What has to go has gone before, not after.
            most.append(memory.taken("pixels") + size)
            return object()

        return memory.kept("pixels", place, make, size=size, room=room)

    first = get(places[0], 40)
    assert get(places[1], 50) is not first
    assert get(places[0], 40) is first
    assert memory.taken("pixels") == 90
    get(places[2], 60)
    assert (memory.taken("pixels"), most) == (100, [40, 90, 100])
    assert get(places[0], 40) is first
    get(places[1], 50, room=50)
    assert memory.taken("pixels") == 50
    assert get(places[2], 60, room=50) is None
    assert get(places[1], 50, room=0) is not None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_every_librarys_way_to_say_that_memory_ran_out_counts(error):
    assert memory.ran_out(error)


def test_torchs_own_words_on_a_processor_count_and_other_errors_do_not():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.ran_out(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    others = [caught.value, RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ValueError("out of memory")]
    others += [RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE"), RuntimeError("CUDA error: device-side assert")]
    assert not any(map(memory.ran_out, others))


def test_a_smaller_number_is_tried_until_memory_suffices(monkeypatch):
    tried, told, held, gone = [], [], [], []

    class Activations:
        pass

    def attempt(size, fits):
        activations = Activations()
        held.append(weakref.ref(activations))
        tried.append(size)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(held[-1]() is None))
    assert memory.in_smaller_parts(22, lambda size: attempt(size, 5), report=told.append) == (3, 3)
    assert (tried, told, gone) == ([22, 11, 6, 3], [11, 6, 3], [True] * 3)
    tried.clear()
    with pytest.raises(torch.OutOfMemoryError):
        memory.in_smaller_parts(5, lambda size: attempt(size, 1), least=2)
    assert tried == [5, 3, 2]

    def wrong(size):
        tried.append(size)
        raise RuntimeError("shapes do not fit")

    tried.clear()
    with pytest.raises(RuntimeError, match="shapes"):
        memory.in_smaller_parts(5, wrong)
    assert tried == [5]


def test_a_folder_without_a_manifest_is_not_kept(tmp_path):
    assert [memory.kept("store", tmp_path, lambda n=n: n) for n in (1, 2)] == [1, 2]


@pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="this kernel has no transparent huge pages"
)
def test_large_tensors_lie_in_memory_that_was_asked_for_in_huge_pages(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    code = (
        "import winnow.runtime, torch; tensor = torch.empty(2**26);"
        " print(tensor.data_ptr(), open('/proc/self/smaps').read(), sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    address, maps = output.split("\n", 1)
    for place in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", maps):
        first, end = (int(number, 16) for number in place.split(" ", 1)[0].split("-"))
        if first <= int(address) < end:
            break
    # The kernel's word for MADV_HUGEPAGE. Whether it has such pages left is not the program's to say.
    assert "hg" in re.search(r"^VmFlags:(.*)$", place, re.MULTILINE)[1].split()
