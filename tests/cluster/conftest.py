"""A SLURM of one node with two fake GPUs, for the tests that need one."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from .. import nursery

HERE = Path(__file__).parent
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")


@pytest.fixture(scope="session", autouse=True)
def own_workers():
    """What runs in an allocation is not forked from a process outside."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(nursery.ADDRESS, raising=False)
        yield


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Start SLURM, and end it after the last test. There is one a machine: test processes take turns."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)")
    if os.getuid() != 0:
        pytest.skip("starting SLURM takes root")
    with open(Path(tempfile.gettempdir()) / "winnow-slurm.lock", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        directory = tmp_path_factory.mktemp("slurm")
        up = subprocess.run([HERE / "up.sh", directory], capture_output=True, text=True)
        if "somebody's configuration" in up.stderr:
            pytest.skip("this machine has a SLURM of its own")
        try:
            assert up.returncode == 0, up.stderr
            yield
        finally:
            subprocess.run([HERE / "down.sh", directory], check=True)
