"""The SLURM profile: what it asks for, and a small grid on a real SLURM with two fake GPUs."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from winnow.files import read_json

from ..workflow.checkout import ROOT, Checkout
from ..workflow.test_interruption import wait_until_gone
from .grids import grid, not_outlived, wait_for

pytestmark = pytest.mark.slow("a SLURM is started, and grids are run on it")

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"

# What a user's own profile would say of this "cluster": jobs that fit its node.
CLUSTER = {
    "max-threads": 1,
    "default-resources": {"mem_mb": 1000, "runtime": 5},
    "set-resources": {"finetune": {"mem_mb": "1000 * attempt", "runtime": "5 * attempt"}},
}


class Cluster(Checkout):
    """A checkout whose grid runs through profiles/slurm."""

    def __init__(self, path: Path, config: dict[str, Any] | None = None):
        super().__init__(path, config)
        (path / "cluster").mkdir(exist_ok=True)
        (path / "cluster" / "config.yaml").write_text(yaml.safe_dump(CLUSTER))

    def environment(self, **extra: str) -> dict[str, str]:
        # SLURM hands out devices that torch cannot use.
        return super().environment(PYTHONPATH=str(ROOT / "tests" / "fake_gpus"), **extra)

    def submit(self) -> subprocess.Popen:
        return self.start("--profile", "profiles/slurm", "--profile", "cluster")

    def cells(self) -> list[dict]:
        return [read_json(path) for path in sorted(self.path.glob("results/cells/**/metrics.json"))]


def test_every_entry_has_a_reason():
    blocks = re.split(r"\n\s*\n", PROFILE.read_text())
    assert [block for block in blocks if not block.startswith("#")] == []


def test_threads_are_the_same_for_the_snakemake_that_submits_and_the_one_in_the_job():
    profile = yaml.safe_load(PROFILE.read_text())
    assert profile["cores"] == profile["max-threads"]


def test_what_jobs_ask_for(tmp_path):
    text = Checkout(tmp_path / "checkout").snakemake("--dry-run", "--profile", "profiles/slurm")
    asked = {
        rule: set(re.findall(rf"^(?:local)?rule {rule}:\n(?:.*\n)*?    resources: (.*)$", text, re.MULTILINE))
        for rule in ("decode", "measure", "finetune")
    }
    assert all("mem_mb=8000," in resources and "runtime=120" in resources for resources in asked["decode"])
    assert all("mem_mb=16000," in resources and "runtime=60, gpu=1" in resources for resources in asked["measure"])
    assert all("mem_mb=16000," in resources and "runtime=240, gpu=1" in resources for resources in asked["finetune"])


@dataclasses.dataclass(frozen=True)
class Job:
    number: str
    state: str
    rule: str
    memory: str
    device: str | None = None


def queue(*, states: str) -> list[Job]:
    """SLURM's jobs in ``states``, as its queue lists them."""
    text = run("squeue", "--noheader", f"--states={states}", "--format=%i|%T|%k|%m")
    jobs = []
    for line in text.splitlines():
        number, state, comment, memory = line.split("|")
        jobs.append(Job(number, state, re.match("rule_([a-z_]+?)(_wildcards|$)", comment)[1], memory))
    return jobs


def devices(job: Job) -> list[str]:
    """The GPUs, by number, of a running job."""
    text = run("scontrol", "--details", "show", "job", job.number)
    return re.findall(r"GRES=gpu:fake:\d+\(IDX:([\d,-]+)\)", text)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclasses.dataclass
class Finished:
    """A grid that ran on SLURM, with one of its jobs killed, and what was seen of it."""

    checkout: Cluster
    output: str
    killed: Job
    jobs: list[Job]
    side_by_side: list[list[str]]


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory) -> Finished:
    checkout = Cluster(tmp_path_factory.mktemp("cluster") / "checkout", grid(seeds=[0, 1]))
    killed, side_by_side = None, []
    with not_outlived(checkout.submit()) as process:
        while process.poll() is None:
            cells = [job for job in queue(states="RUNNING") if job.rule == "finetune"]
            placed = [device for job in cells for device in devices(job)]
            if len(placed) > 1:
                side_by_side.append(placed)
                if killed is None:
                    killed = cells[0]
                    run("scancel", "--signal=KILL", "--full", killed.number)
            time.sleep(0.3)
        output, _ = process.communicate()
    assert process.returncode == 0, output
    return Finished(checkout, output, killed, queue(states="all"), side_by_side)


@pytest.mark.cluster
def test_heavy_jobs_are_submitted_and_light_ones_run_here(finished):
    assert {job.rule for job in finished.jobs} == {"decode", "finetune"}
    assert (finished.checkout.path / "results/experiments/small/summary.parquet").is_file()
    assert finished.checkout.run("--profile", "profiles/slurm", "--profile", "cluster") == set()


@pytest.mark.cluster
def test_two_cells_run_at_a_time_each_on_its_own_gpu(finished):
    assert finished.side_by_side
    assert all(sorted(placed) == ["0", "1"] for placed in finished.side_by_side)
    assert {cell["lease"] for cell in finished.checkout.cells()} == {"0", "1"}


@pytest.mark.cluster
def test_a_killed_job_runs_again_with_more_memory(finished):
    cells = [job for job in finished.jobs if job.rule == "finetune"]
    failed = [job for job in cells if job.state != "COMPLETED"]
    assert [job.number for job in failed] == [finished.killed.number]
    assert sorted(job.memory for job in cells) == ["1000M"] * 4 + ["2000M"]
    assert len(finished.checkout.cells()) == 4


@pytest.mark.cluster
def test_ctrl_c_cancels_what_runs_and_leaves_its_checkpoints(finished, tmp_path):
    checkout = Cluster(finished.checkout.copy(tmp_path / "checkout").path)
    checkout.configure(grid(seeds=[0], epochs=100_000))
    before = {job.number for job in finished.jobs}
    logs = list(checkout.path.glob("results/logs/finetune/**/0.log"))
    assert len(logs) == 2
    for log in logs:
        log.unlink()
    with not_outlived(checkout.submit()) as process:
        wait_for(lambda: all(log.exists() and "epoch 20 of " in log.read_text() for log in logs), 240)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=240)
    assert process.returncode != 0, output
    wait_for(lambda: not queue(states="PENDING,RUNNING,COMPLETING"), 40)
    assert [job.state for job in queue(states="all") if job.number not in before] == ["CANCELLED"] * 2
    assert wait_until_gone(checkout) == []
    left = [path.name for path in checkout.path.glob("results/cells/**/0/*")]
    assert left == ["checkpoint.pt"] * 2


@pytest.mark.cluster
@pytest.mark.parametrize("granted", [("--resources", "gpu=2"), ()], ids=["said", "seen"])
def test_in_one_allocation_cells_share_its_gpus_at_the_same_time(finished, tmp_path, granted):
    checkout = Cluster(finished.checkout.copy(tmp_path / "checkout").path)
    checkout.configure(grid(seeds=[2]))
    command = shlex.join(checkout.command(*granted))
    subprocess.run(
        ["sbatch", "--wait", "--gpus=2", "--cpus-per-task=2", "--mem=8000", "--wrap", command],
        cwd=checkout.path,
        # Neither of two goes on before both compute.
        env=checkout.environment(FAKE_GPUS_TOGETHER="2"),
        check=True,
    )
    cells = [read_json(path) for path in checkout.path.glob("results/cells/**/2/metrics.json")]
    assert sorted(cell["lease"] for cell in cells) == ["0", "1"]
    assert {cell["threads"] for cell in cells} == {1}
