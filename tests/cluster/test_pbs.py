"""The PBS profile, run for real against commands that stand in for PBS's."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..workflow.checkout import Checkout
from .grids import grid, not_outlived, wait_for

pytestmark = [
    pytest.mark.slow("grids are run on a cluster that is pretended"),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None,
        reason="snakemake-executor-plugin-cluster-generic is not installed",
    ),
]


class Pbs(Checkout):
    """A checkout whose grid runs through profiles/pbs."""

    @property
    def spool(self) -> Path:
        return self.path / "pbs" / "spool"

    def submit(self, seconds_between_looks: int) -> subprocess.Popen:
        commands = self.path / "pbs"
        commands.mkdir(exist_ok=True)
        for name in ("qsub", "qstat", "qdel"):
            (commands / name).symlink_to(Path(__file__).with_name("fake_pbs.py"))
        return self.start(
            "--profile",
            "profiles/pbs",
            "--seconds-between-status-checks",
            str(seconds_between_looks),
            PATH=f"{commands}{os.pathsep}{os.environ['PATH']}",
        )

    def jobs(self, rule: str) -> dict[str, str]:
        """What was asked for: job number → the arguments of qsub."""
        found = {}
        for file in self.spool.glob("*.arguments"):
            arguments = " ".join(json.loads(file.read_text())[:-1])
            if f"-N winnow.{rule} " in arguments:
                found[file.stem] = arguments
        return found


def test_a_grid_runs_and_a_killed_job_is_submitted_again_with_more(tmp_path):
    checkout = Pbs(tmp_path / "checkout", grid(seeds=[0]))
    with not_outlived(checkout.submit(1)) as process:
        killed = wait_for(lambda: next(iter(checkout.jobs("finetune")), None), 240)
        time.sleep(1)
        subprocess.run([checkout.path / "pbs" / "qdel", f"{killed}.fake"], check=True)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output

    asked = [arguments[arguments.index("-l") :] for arguments in checkout.jobs("finetune").values()]
    first = "-l select=1:ncpus=2:mem=16000mb:ngpus=1 -l walltime=240:00"
    again = "-l select=1:ncpus=2:mem=32000mb:ngpus=1 -l walltime=480:00"
    assert sorted(asked) == sorted([first, first, again])
    (decode,) = checkout.jobs("decode").values()
    assert "ncpus=1:mem=8000mb:ngpus=0" in decode
    assert checkout.run() == set()


def looked_at(checkout: Pbs) -> list[str]:
    return [number for number in checkout.jobs("finetune") if (checkout.spool / f"{number}.looked_at").exists()]


def test_ctrl_c_deletes_what_runs(tmp_path):
    checkout = Pbs(tmp_path / "checkout", grid(seeds=[0], epochs=1000))
    with not_outlived(checkout.submit(5)) as process:
        wait_for(lambda: len(looked_at(checkout)) == 2, 240)
        time.sleep(1)  # The next look, during which Ctrl-C would miss jobs, is 5 s after that one.
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=240)
    assert process.returncode != 0, output
    ended = [(checkout.spool / f"{number}.status").read_text() for number in checkout.jobs("finetune")]
    assert ended == [str(256 + signal.SIGTERM)] * 2
