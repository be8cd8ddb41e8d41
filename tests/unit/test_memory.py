"""What is kept from job to job: the same as long as its manifest is the same file, and not too much of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from winnow.runtime import memory

from .programs import SCRIPTS

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "_kept", type(memory._kept)())


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
