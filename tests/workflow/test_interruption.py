"""Killing a run: nothing unfinished counts as finished, nothing lives on, and the next run ends as if undisturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from winnow.tables import read_table

from .checkout import ROOT, SMALL_GRID, Checkout

# The only columns that a second run of the same configuration may change.
TIMES = ("seconds", "latency_ms", "latency_32_ms")


def summary(checkout: Checkout, experiment: str) -> pa.Table:
    table = read_table(checkout.path / "results" / "experiments" / experiment / "summary.parquet", "summary")
    return table.drop_columns(list(TIMES))


def processes_of(checkout: Checkout) -> list[str]:
    """The command lines of all live processes that name the checkout, in their arguments, environment or folder."""
    needle = str(checkout.path).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            if command and (needle in command or needle in os.readlink(process / "cwd").encode()):
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # It has ended meanwhile.
    return found


def wait_until_gone(checkout: Checkout, seconds: float = 10.0) -> list[str]:
    deadline = time.monotonic() + seconds
    while (alive := processes_of(checkout)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, request) -> tuple[Checkout, str, float]:
    """A finished run, its experiment and how long it took."""
    demo = request.config.getoption("--kill-demo")
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) if demo else SMALL_GRID
    experiment = "demo" if demo else "small"
    checkout = Checkout(tmp_path_factory.mktemp("undisturbed") / "checkout", config)
    start = time.monotonic()
    checkout.run(experiment)
    return checkout, experiment, time.monotonic() - start


def killed(checkout: Checkout, experiment: str, moment: float) -> bool:
    """Start a run and kill its whole process group after ``moment`` seconds; whether it still ran."""
    process = checkout.start(experiment)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False


def test_a_run_killed_at_any_moment_is_resumed_to_the_same_summary(undisturbed, tmp_path, request):
    reference, experiment, seconds = undisturbed
    moments = random.Random(20)
    for number in range(request.config.getoption("--kills")):
        moment = moments.uniform(1.0, 0.9 * seconds)
        while not killed(
            checkout := Checkout(tmp_path / f"{number}-{moment:.3f}", reference.config), experiment, moment
        ):
            moment /= 2  # The machine was faster this time.
        assert wait_until_gone(checkout) == [], f"alive after the kill at {moment:.1f} s"

        checkout.snakemake(experiment)
        assert summary(checkout, experiment).equals(summary(reference, experiment)), f"killed at {moment:.1f} s"
        assert checkout.run(experiment) == set()
        leftovers = [path for path in (checkout.path / "results").rglob("*") if path.name.startswith("checkpoint")]
        assert leftovers == []


def test_ctrl_c_ends_the_run_and_all_its_processes(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    process = checkout.start()
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert wait_until_gone(checkout) == []


def test_a_second_run_on_the_same_checkout_is_told(tmp_path):
    checkout = Checkout(tmp_path / "checkout")
    first = checkout.start()
    try:
        deadline = time.monotonic() + 30
        while not (checkout.path / ".snakemake" / "winnow.lock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        output = checkout.snakemake(status=1)
        assert "is in use by another run" in output
        assert f"process {first.pid}" in output
    finally:
        first.communicate(timeout=120)
    assert first.returncode == 0
    # A dry run looks on at any time, and the lock went with its process.
    checkout.snakemake("-n")
    assert checkout.run() == set()
