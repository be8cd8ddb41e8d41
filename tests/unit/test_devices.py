"""The lease: which device a job gets, how many share one, and that nothing of a dead holder stays."""

from __future__ import annotations

import fcntl
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from winnow.files import InputError
from winnow.runtime import devices

SCRIPTS = Path(__file__).parents[2] / "scripts"
HOLD = """
import os, sys, time
from winnow.runtime import devices
time.sleep(max(0, float(sys.argv[2]) - time.monotonic()))
lease = devices.place(int(sys.argv[1]))
print(lease.id, os.environ["CUDA_VISIBLE_DEVICES"], *sorted({"torch", "numpy"} & set(sys.modules)), flush=True)
sys.stdin.read()
"""


class Holder:
    """A process that leases a device and keeps it until it is told to end."""

    def __init__(self, environment: dict[str, str], gpu: int, moment: float):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(gpu), str(moment)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def said(self) -> list[str]:
        if not hasattr(self, "line"):
            self.line = self.process.stdout.readline().split()
        return self.line

    @property
    def device(self) -> str:
        return self.said[0]

    def end(self, kill: bool = False) -> None:
        if kill:
            self.process.send_signal(signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()


@pytest.fixture
def hold(tmp_path):
    """Start a holder on the devices of a list, at a moment, with a folder of leases of the test's own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("SLURM_JOB_ID", devices.VISIBLE)}
    environment |= {"PYTHONPATH": str(SCRIPTS), "WINNOW_LEASES": str(tmp_path / "leases")}
    started = []

    def start(visible: str, gpu: int = 1, moment: float = 0.0) -> Holder:
        started.append(Holder(environment | {devices.VISIBLE: visible}, gpu, moment))
        return started[-1]

    yield start
    for holder in started:
        if holder.process.poll() is None:
            holder.end(kill=True)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """This process, without a lease and with a folder of leases of the test's own."""
    monkeypatch.setattr(devices, "_held", None)
    monkeypatch.setenv("WINNOW_LEASES", str(tmp_path / "leases"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        (" 2 , 0 ", ["2", "0"]),
        ("GPU-8932f937-d72c,GPU-1a2b", ["GPU-8932f937-d72c", "GPU-1a2b"]),
        ("MIG-GPU-1a2b/1/0", ["MIG-GPU-1a2b/1/0"]),
        ("0,0,1", ["0", "1"]),
        # CUDA reads the list up to the first entry that names nothing.
        ("0,-1,1", ["0"]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_the_inherited_devices_are_the_candidates_as_they_were_named(fresh, monkeypatch, inherited, expected):
    monkeypatch.setenv(devices.VISIBLE, inherited)
    assert devices.candidates() == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], []),
        (["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-modeset"], ["0", "1"]),
        # A container that was given the fourth GPU alone: CUDA calls it 0.
        (["nvidia3"], ["0"]),
    ],
)
def test_without_an_inherited_list_the_nodes_devices_are_counted(fresh, monkeypatch, tmp_path, files, expected):
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    assert devices.candidates() == expected


@pytest.mark.parametrize(("libraries", "expected"), [(["libcuda.so.1", "libd3d12.so"], ["0"]), (["libd3d12.so"], [])])
def test_under_wsl_there_is_one_device_if_windows_has_nvidias_driver(fresh, monkeypatch, tmp_path, libraries, expected):
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    for name in ("dxg", *libraries):
        (tmp_path / name).touch()
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    monkeypatch.setattr(devices, "WSL_LIBRARIES", tmp_path)
    assert devices.candidates() == expected


def test_a_slurm_allocation_without_a_gpu_has_none(fresh, monkeypatch, tmp_path):
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    assert devices.candidates() == []


def test_two_jobs_on_two_devices_get_one_each(hold):
    holders = [hold("0,1"), hold("0,1")]
    assert sorted(holder.device for holder in holders) == ["0", "1"]
    assert all(holder.said == [holder.device, holder.device] for holder in holders)  # and have imported no torch


def test_eight_jobs_on_two_devices_share_four_each(hold):
    holders = [hold("GPU-a,GPU-b") for _ in range(8)]
    assert Counter(holder.device for holder in holders) == {"GPU-a": 4, "GPU-b": 4}


def test_sixteen_jobs_on_two_devices_of_which_four_are_killed(hold):
    # All at once.
    moment = time.monotonic() + 1.5
    holders = [hold("0,1", moment=moment) for _ in range(16)]
    assert Counter(holder.device for holder in holders) == {"0": 8, "1": 8}
    killed = [holder for holder in holders if holder.device == "1"][:4]
    for holder in killed:
        holder.end(kill=True)
    # What the dead held is free at once, and to be filled first.
    assert [hold("0,1").device for _ in range(4)] == ["1"] * 4
    # The rest end by themselves: none is stuck.
    for holder in holders:
        if holder not in killed:
            holder.end()
            assert holder.process.returncode == 0
    assert hold("0,1").device == "0"


def test_one_process_at_a_time_counts_and_places(hold, tmp_path):
    (tmp_path / "leases").mkdir()
    with open(tmp_path / "leases" / "placing.lock", "w") as placing:
        fcntl.flock(placing, fcntl.LOCK_EX)
        holders = [hold("0,1"), hold("0,1")]
        waiting = [holder.process.stdout for holder in holders]
        assert select.select(waiting, [], [], 0.5)[0] == []
    assert sorted(holder.device for holder in holders) == ["0", "1"]


def test_four_at_a_time_there_are_never_more_than_two_on_a_device(hold):
    chance = random.Random(5)
    doomed = set(chance.sample(range(16), 4))
    running: dict[int, Holder] = {}
    for number in range(16):
        if len(running) == 4:
            ended = chance.choice(sorted(running))
            running.pop(ended).end(kill=ended in doomed)
        running[number] = hold("0,1")
        assert max(Counter(holder.device for holder in running.values()).values()) <= 2


def test_a_job_is_never_given_more_than_it_inherited(hold):
    for _ in range(3):
        assert hold("0,1").device in ("0", "1")
    # Device 1 has fewer holders at least once, but it is not these jobs' to take.
    assert [hold("0").said for _ in range(2)] == [["0", "0"]] * 2


@pytest.mark.parametrize(("visible", "gpu"), [("0,1", 0), ("", 1), ("-1", 1)])
def test_without_a_grant_or_a_device_it_is_the_cpu(fresh, monkeypatch, visible, gpu):
    monkeypatch.setenv(devices.VISIBLE, visible)
    lease = devices.lease(gpu)
    assert lease.id is None
    assert lease.device == "cpu"
    assert lease.name
    assert os.environ[devices.VISIBLE] == ""
    assert not devices.folder().exists()


def test_a_process_keeps_its_device(fresh, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "7,8")
    first = devices.place(1)
    # The next job of a warm worker comes with the run's list again.
    monkeypatch.setenv(devices.VISIBLE, "7,8")
    assert devices.place(1) is first
    assert os.environ[devices.VISIBLE] == first.id == "7"
    # It may still be asked for the CPU.
    assert devices.lease(0).id is None
    assert os.environ[devices.VISIBLE] == "7"
    assert devices.holders("7") == 1
    first.holder.close()
    assert devices.holders("7") == 0


def test_a_slice_of_a_gpu_can_be_leased(fresh, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "MIG-GPU-1a2b/1/0")
    assert devices.place(1).id == os.environ[devices.VISIBLE] == "MIG-GPU-1a2b/1/0"


def test_each_slurm_allocation_counts_its_own_devices(fresh, monkeypatch):
    monkeypatch.delenv("WINNOW_LEASES")
    alone = devices.folder()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert devices.folder().parent == alone.parent
    assert devices.folder().name == f"{alone.name}-17"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A machine with a device, whose driver and torch are for these versions of CUDA."""

    def install(driver: tuple[int, int] | None, torch: str | None) -> None:
        (tmp_path / "version").write_text(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\n"
        )
        monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
        monkeypatch.setattr(devices, "_driver", lambda: driver)
        monkeypatch.setattr(devices, "_wheel", lambda: ("2.14.1", torch))
        monkeypatch.setenv(devices.VISIBLE, "0")

    return install


@pytest.mark.parametrize(
    ("driver", "torch", "words"),
    [
        ((12, 2), "13.0", ["older", "535.104.05", "CUDA up to 12.2", "CUDA: 13.0"]),
        (None, "13.0", ["no NVIDIA driver", "Driver: none", "CUDA: 13.0"]),
        ((13, 0), None, ["without CUDA", "CUDA up to 13.0", "CUDA: no."]),
    ],
)
def test_a_driver_that_cannot_serve_torch_is_an_error_that_says_how_out(fresh, installed, driver, torch, words):
    installed(driver, torch)
    with pytest.raises(InputError) as raised:
        devices.lease(1)
    assert all(word in str(raised.value) for word in [*words, "2.14.1", "--resources gpu=0", "torch wheel"])
    # What cannot be used is not held: a warm worker lives on.
    assert devices.holders("0") == 0


@pytest.mark.parametrize("driver", [(12, 0), (12, 9), (13, 1)])
def test_a_driver_of_the_same_major_version_or_a_later_one_serves(fresh, installed, monkeypatch, driver):
    installed(driver, "12.6")
    monkeypatch.setattr(devices, "_compute", lambda: None)
    lease = devices.lease(1)
    assert (lease.id, lease.device) == ("0", "cuda")
    lease.holder.close()


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_a_device_that_refuses_to_compute_is_an_error_in_its_own_words(fresh, installed, monkeypatch, error):
    # An exclusive device that another process has, or an MPS whose server is gone: drivers and versions are fine.
    import torch

    def refuse(*arguments, **options):
        raise error("CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be")

    installed((13, 0), "13.0")
    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(InputError, match=r"busy or unavailable\. Driver: .*535\.104\.05.*--resources gpu=0"):
        devices.lease(1)
    assert devices.holders("0") == 0


def test_the_installed_torch_says_what_it_is_built_for():
    import torch

    assert devices._wheel() == (torch.__version__, torch.version.cuda)


@pytest.mark.skipif(devices._driver() is not None, reason="this machine has NVIDIA's driver")
def test_a_program_whose_gpu_cannot_be_used_ends_at_once_with_status_2(tmp_path):
    """Within a second of its start: before anything is loaded, torch included."""
    environment = os.environ | {devices.VISIBLE: "0", "WINNOW_LEASES": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}
    needed = ("--dataset", "--split", "--backbone", "--output")
    arguments = ["--spec", "{}", *(part for name in needed for part in (name, "none")), "--gpu"]
    for program in ("finetune", "measure"):
        command = [sys.executable, SCRIPTS / f"{program}.py", *arguments]
        found = subprocess.run([*command, "1"], env=environment, capture_output=True, text=True)
        *imported, message = found.stderr.splitlines()
        assert found.returncode == 2
        assert message.startswith("error: a GPU was granted and cannot be used")
        assert imported
        assert not any(re.search(r"\| +(torch|numpy|pyarrow)$", line) for line in imported)
