"""Latency as a stage: which networks are timed, that nothing runs beside a timing, and what runs again when."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout, jobs
from .test_rerun_contract import report

pytestmark = pytest.mark.slow("a grid is run and its networks are timed")

NETWORKS = {"unpruned/none/0.000", "any/layer/0.500", "apoz/global/0.500", "random~0/global/0.500"}


def timed_grid() -> dict:
    raw = copy.deepcopy(SMALL_GRID)
    raw["experiments"]["small"] |= {
        "datasets": ["digits"],
        "criteria": ["apoz", "random"],
        "scopes": ["global", "layer"],
        "seeds": [1, 0],
        "latency": True,
    }
    return raw


def timings(networks) -> set[str]:
    return {f"latency digits/net/{network}" for network in networks}


def running(text: str) -> list[list[str]]:
    """The rules of the jobs that ran at a time, after each start of a job and each end, as the account has them."""
    now: dict[str, str] = {}
    states = []
    events = r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    jobid: (\d+)$|^Finished jobid: (\d+)"
    for rule, started, ended in re.findall(events, text, re.MULTILINE):
        if rule:
            now[started] = rule
        else:
            del now[ended]
        states.append(sorted(now.values()))
    return states


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    """A small grid with latencies, run as on a machine with GPUs to share."""
    return shared("timed", timed_grid(), "--resources", "gpu=2")


def test_networks_of_the_same_widths_are_timed_once(finished):
    assert {job for job in jobs(finished.account()) if job.startswith("latency")} == timings(NETWORKS)
    folder = finished.path / "results" / "latency" / "digits" / "net"
    assert {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")} == NETWORKS


def test_the_summary_has_the_latencies(finished):
    path = finished.path / "results" / "experiments" / "small"
    rows = read_table(path / "summary.parquet", "summary").to_pylist()
    assert all(row["latency_ms"] > 0 and row["latency_32_ms"] > 0 for row in rows)
    assert len({row["latency_ms"] for row in rows if row["scope"] == "layer"}) == 1
    assert len({row["latency_ms"] for row in rows if row["scope"] == "global"}) == 2
    assert "## Latency" in (path / "summary.md").read_text()


def test_nothing_runs_beside_a_timing(finished):
    states = running(finished.account())
    assert states[-1] == []
    assert max(len(state) for state in states) == 2  # It was no run of one job at a time.
    beside = [state for state in states if "latency" in state]
    assert len(beside) >= len(NETWORKS)
    assert all(state == ["latency"] for state in beside)


def test_a_small_network_is_timed_with_the_threads_of_its_cells(finished):
    results = finished.path / "results"
    found = {json.loads(path.read_text())["threads"] for path in Path(results / "latency").rglob("*.json")}
    assert found == {json.loads(next(results.rglob("metrics.json")).read_text())["threads"]} == {1}


def configure(checkout: Checkout, **changes) -> None:
    config = checkout.config
    config["experiments"]["small"] |= changes
    checkout.configure(config)


def test_growing_the_ratios_times_only_the_new_networks(checkout):
    configure(checkout, ratios=[0.5, 0.25])
    planned = checkout.planned("small")
    new = {"any/layer/0.250", "apoz/global/0.250", "random~0/global/0.250"}
    assert {job for job in planned if job.startswith("latency")} == timings(new)


def test_another_seed_criterion_or_device_times_nothing_by_layer_again(checkout):
    configure(checkout, scopes=["layer"])
    assert checkout.planned("--resources", "gpu=0", "--cores", "1") == report()
    configure(checkout, scopes=["layer"], seeds=[0, 1, 2], criteria=["apoz", "average_weight"])
    assert {job.split()[0] for job in checkout.planned() - report()} == {"score", "mask", "finetune"}


def test_an_edit_of_how_latency_is_measured_times_all_again_and_trains_nothing(checkout):
    checkout.edit("scripts/winnow/networks/latency.py", "SECONDS = 3.0", "SECONDS = 2.0")
    assert checkout.planned() == timings(NETWORKS) | report()


def test_a_deleted_latency_is_measured_again(checkout):
    (checkout.path / "results/latency/digits/net/any/layer/0.500.json").unlink()
    assert checkout.planned() == timings(["any/layer/0.500"]) | report()


def test_switched_off_nothing_is_timed_and_the_summary_says_nothing_of_it(checkout):
    configure(checkout, latency=False)
    assert checkout.run() == report()
    path = checkout.path / "results" / "experiments" / "small"
    assert all(row["latency_ms"] is None for row in read_table(path / "summary.parquet", "summary").to_pylist())
    assert "## Latency" not in (path / "summary.md").read_text()


def test_layers_are_timed_once_for_all_budgets(checkout):
    assert checkout.run("results/prices/digits/net/latency.json") == {"time_layers digits/net"}
    found = json.loads((checkout.path / "results/prices/digits/net/latency.json").read_text())
    assert (found["measure"], found["threads"], len(found["terms"])) == ("latency", 1, 1 + 7)
    configure(checkout, criteria=["apoz", "average_weight"], scopes=["budget_latency"], ratios=[0.01, 0.02])
    planned = checkout.planned()
    assert {job for job in planned if job.startswith("mask")} == {
        f"mask digits/net/{name}/budget_latency/{ratio}"
        for name in ("apoz", "average_weight")
        for ratio in ("0.010", "0.020")
    }
    assert not any(job.startswith(("time_layers", "price")) for job in planned)
