"""Leases, with devices that exist by name only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from winnow.runtime import devices

SCRIPTS = Path(__file__).parents[2] / "scripts"

# Leases, says what it got, and holds it until it is told to end.
HOLDER = f"""
import json, os, sys
sys.path.insert(0, {str(SCRIPTS)!r})
from winnow.runtime import devices
lease = devices.lease(int(sys.argv[1]))
print(json.dumps([lease.id, os.environ.get("CUDA_VISIBLE_DEVICES")]), flush=True)
sys.stdin.read()
"""


class Holders:
    """Processes that hold leases in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def start(self, visible: str | None, gpu: int = 1) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name != devices.VISIBLE}
        environment |= {"WINNOW_LEASES": str(self.folder)} | ({} if visible is None else {devices.VISIBLE: visible})
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HOLDER), str(gpu)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def lease(self, visible: str | None, gpu: int = 1) -> tuple[str | None, str | None]:
        """What a new holder got: the leased device, and what it lets itself see."""
        return tuple(json.loads(self.start(visible, gpu).stdout.readline()))

    def end(self, process: subprocess.Popen) -> None:
        process.communicate()


@pytest.fixture
def holders(tmp_path):
    result = Holders(tmp_path / "leases")
    yield result
    for process in result.processes:
        process.kill()
        process.wait()


def test_each_of_two_gets_a_device_of_its_own(holders):
    assert {holders.lease("0,1") for _ in range(2)} == {("0", "0"), ("1", "1")}


def test_the_device_with_the_fewest_holders_wins(holders):
    got = [holders.lease("0,1,2")[0] for _ in range(9)]
    assert sorted(got) == sorted("012" * 3)
    assert all(sorted(got[start : start + 3]) == ["0", "1", "2"] for start in (0, 3, 6))
    holders.end(holders.processes[got.index("1")])
    assert holders.lease("0,1,2")[0] == "1"


def test_a_killed_holder_leaves_nothing_behind(holders):
    first = holders.lease("0,1")[0]
    victim = holders.processes[0]
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    other = holders.lease("0,1")[0]
    assert {holders.lease("0,1")[0], other} == {"0", "1"}
    assert first in ("0", "1")


def test_never_wider_than_inherited(holders):
    assert {holders.lease("3")[0] for _ in range(3)} == {"3"}
    assert holders.lease("GPU-1a2b,GPU-3c4d")[0].startswith("GPU-")
    # Two lists that share a device see each other's holders.
    assert holders.lease("3,4")[0] == "4"


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_no_device_means_the_cpu(holders, visible):
    assert holders.lease(visible) == (None, "")


def test_a_slurm_allocation_without_a_gpu_has_none(holders, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert holders.lease(None) == (None, "")


def test_two_allocations_do_not_count_each_others_holders(monkeypatch):
    monkeypatch.delenv("WINNOW_LEASES", raising=False)
    folders = set()
    for job in ("", "7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        folders.add(devices.folder())
    assert len(folders) == 3


def test_no_gpu_granted_means_the_cpu(holders):
    assert holders.lease("0,1", gpu=0) == (None, "")


def test_sixteen_jobs_on_two_devices_four_of_them_killed(holders):
    """Eight at a time, as ``--resources gpu=8`` runs them: never more than four on a device, and none gets stuck."""
    waiting, killed, running = 16, 0, []
    while waiting or running:
        while waiting and len(running) < 8:
            process = holders.start("0,1")
            running.append((process, json.loads(process.stdout.readline())[0]))
            waiting -= 1
            assert max(sum(device == name for _, device in running) for name in "01") <= 4
        # Jobs end in pairs, one on each device, so that four on each stays the allowed share; two pairs are killed.
        for name in "01":
            ending = [pair for pair in running if pair[1] == name][:1]
            for pair in ending:
                running.remove(pair)
                if killed < 4:
                    pair[0].kill()
                    pair[0].wait()
                    killed += 1
                else:
                    holders.end(pair[0])
    assert killed == 4
    assert len(holders.processes) == 16


def test_a_thundering_herd_is_spread_evenly(holders):
    processes = [holders.start("0,1") for _ in range(8)]
    got = [json.loads(process.stdout.readline())[0] for process in processes]
    assert sorted(got) == ["0"] * 4 + ["1"] * 4


def test_a_process_keeps_its_device_and_may_still_be_asked_for_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_LEASES", str(tmp_path))
    monkeypatch.setenv(devices.VISIBLE, "5,6")
    monkeypatch.setattr(devices, "_held", None)
    first = devices.lease(1)
    assert devices.lease(1) is first
    assert devices.lease(0).id is None
    assert os.environ[devices.VISIBLE] == "5"
    assert devices.holders("5") == 1
    first.holder.close()
    assert devices.holders("5") == 0


def test_importing_it_imports_no_torch():
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import winnow.runtime.devices; print(*sys.modules)"
    assert "torch" not in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()


def test_a_waiting_folder_lock_does_not_outlive_its_process(holders):
    start = time.monotonic()
    processes = [holders.start("0") for _ in range(4)]
    for process in processes[:2]:
        process.kill()
    for process in processes[2:]:
        assert json.loads(process.stdout.readline())[0] == "0"
    assert time.monotonic() - start < 30
