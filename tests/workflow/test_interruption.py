"""Killing a run: nothing unfinished counts as finished, nothing lives on, and the next run ends as if undisturbed."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from winnow.tables import read_table

from .. import nursery
from .checkout import ROOT, SMALL_GRID, Checkout

# The only columns that a second run of the same configuration may change.
TIMES = ("seconds", "latency_ms", "latency_32_ms")


@pytest.fixture(scope="module", autouse=True)
def own_workers():
    """They name their checkout in their arguments, and end with nothing else than they do where a user runs them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(nursery.ADDRESS, raising=False)
        yield


def summary(checkout: Checkout, experiment: str) -> pa.Table:
    """What the experiment found on the data set that all of these runs have."""
    table = read_table(checkout.path / "results" / "experiments" / experiment / "summary.parquet", "summary")
    return table.filter(pc.field("dataset") == "digits").drop_columns(list(TIMES))


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


def one_data_set() -> dict:
    """Half of the small grid: as many kinds of jobs, and half as many."""
    raw = copy.deepcopy(SMALL_GRID)
    raw["experiments"]["small"]["datasets"] = ["digits"]
    return raw


@pytest.fixture(scope="module")
def undisturbed(request, shared, finished) -> tuple[Checkout, dict, str]:
    """A finished run, the configuration of those that are killed, and their experiment."""
    if request.config.getoption("--kill-demo"):
        config = yaml.safe_load((ROOT / "config.yaml").read_text())
        return shared("demo", config, "demo"), config, "demo"
    return finished, one_data_set(), "small"


def wait_for_jobs(checkout: Checkout, process: subprocess.Popen, count: int) -> None:
    """Return when so many of the run's jobs have finished, or it has."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        logs = list((checkout.path / ".snakemake" / "log").glob("*.log"))
        if logs and logs[0].read_text().count("Finished jobid") >= count:
            return
        time.sleep(0.02)


def killed(checkout: Checkout, experiment: str, count: int, seconds: float) -> bool:
    """Start a run and kill its process group so long after its job number ``count``; whether it still ran."""
    process = checkout.start(experiment)
    wait_for_jobs(checkout, process, count)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False


@pytest.mark.slow("a grid is run, killed and resumed several times")
def test_a_run_killed_at_any_moment_is_resumed_to_the_same_summary(undisturbed, tmp_path, request):
    reference, config, experiment = undisturbed
    # Jobs are counted, not seconds: the moments are as many and as different on a slow machine as on a fast one.
    total = len(Checkout(tmp_path / "planned", config).planned(experiment))
    moments = random.Random(20)
    kills = request.config.getoption("--kills")
    for number in range(kills):
        count, seconds = total * number // kills + moments.randrange(max(1, total // kills)), moments.uniform(0, 1.5)
        moment = f"{seconds:.2f} s after job {count} of {total}"
        while not killed(checkout := Checkout(tmp_path / f"{number}-{count}", config), experiment, count, seconds):
            count -= 1  # The last jobs took less than that.
        assert wait_until_gone(checkout) == [], f"alive after the kill {moment}"

        checkout.snakemake(experiment)
        assert summary(checkout, experiment).equals(summary(reference, experiment)), f"killed {moment}"
        assert checkout.planned(experiment) == set()
        leftovers = [path for path in (checkout.path / "results").rglob("*") if path.name.startswith("checkpoint")]
        assert leftovers == []


def test_sigterm_and_ctrl_c_say_what_they_wait_for_and_end_at_the_next_checkpoint(tmp_path):
    config = one_data_set()
    # Hours, if they were waited for.
    config["recipes"]["quick"]["epochs"] = 10**6
    checkout = Checkout(tmp_path / "checkout", config)
    cell = "digits/net/unpruned/none/0.000/inherited/0"
    log, checkpoint = (checkout.path / f"results/{place}" for place in (f"logs/finetune/{cell}.log", f"cells/{cell}"))
    # A scheduler tells Snakemake alone; a terminal tells all that runs in it.
    for begins, tell in (("epoch 1 of", os.kill), ("going on in epoch", os.killpg)):
        process = checkout.start(f"results/cells/{cell}/metrics.json")
        deadline = time.monotonic() + 120
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        tell(process.pid, signal.SIGTERM if tell is os.kill else signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 1
        assert f"Waiting for:\n  finetune {cell}\n" in output
        assert f"  ended: finetune {cell}: stopped by a signal" in output
        assert output.rstrip().splitlines()[-1].startswith("  ended: ")
        assert begins in log.read_text()
        assert (checkpoint / "checkpoint.pt").exists()
        assert wait_until_gone(checkout) == []
        log.unlink()


@pytest.mark.slow("two runs are started, and one is stopped for the other")
def test_a_second_run_on_the_same_checkout_is_told(checkout):
    (checkout.path / "results/cells/digits/net/apoz/layer/0.500/inherited/0/metrics.json").unlink()
    first = checkout.start()
    try:
        deadline = time.monotonic() + 60
        while (
            not (lock := checkout.path / ".snakemake" / "winnow.lock").exists()
            or f"{first.pid} " not in lock.read_text()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # However slowly the second begins, the first is not done.
        os.killpg(first.pid, signal.SIGSTOP)
        output = checkout.snakemake(status=1)
        assert "is in use by another run" in output
        assert f"process {first.pid}" in output
    finally:
        os.killpg(first.pid, signal.SIGCONT)
        first.communicate(timeout=120)
    assert first.returncode == 0
    # A dry run looks on at any time, and the lock went with its process.
    assert checkout.planned() == set()
    assert checkout.run() == set()
