"""Repairs in the workflow: what they read, what runs again after an edit, and that nothing else does. The networks are
cut to a budget, by what they cost."""

from __future__ import annotations

import copy
import json

import pytest

from .checkout import SMALL_GRID, Checkout, jobs
from .test_rerun_contract import appended, configured, report

pytestmark = pytest.mark.slow("a grid with every repair is run")

FOLDER = "digits/net/average_weight/budget_macs/0.500"
BASELINE = "digits/net/unpruned/none/0.000/inherited/0"
FITTED = "digits/net/unpruned/none/0.000/inherited~fitted/0"
STARTS = (
    "inherited",
    "inherited~iterative_2",
    "inherited~compensated_fitted",
    "inherited~compensated_fitted_iterative_2",
)
MOMENTS = "correlate digits/net"


def grid_of(**axes):
    raw = copy.deepcopy(SMALL_GRID)
    raw["recipes"]["quick"]["epochs"] = 2
    small = raw["experiments"]["small"]
    small |= {"datasets": ["digits"], "criteria": ["average_weight"], "scopes": ["budget_macs"], "inits": ["inherited"]}
    small |= {"protocols": ["one_shot", "iterative_2"], "repairs": ["none", "compensated_fitted"]} | axes
    return raw


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    return shared("repairs", grid_of())


def cell(start: str) -> str:
    return f"finetune {FOLDER}/{start}/0"


def trunk(share: str) -> str:
    return f"trunk digits/net/average_weight/budget_macs/{share}/1/0"


def test_repaired_cells_are_cells_of_their_own_and_read_the_moments_once(finished):
    ran = {job for job in jobs(finished.account()) if job.startswith(("trunk", "finetune", "correlate"))}
    trunks = {trunk("1_4"), trunk("1_4~compensated_fitted")}
    whole = {f"finetune {BASELINE}", f"finetune {FITTED}"}
    assert ran == {cell(start) for start in STARTS} | whole | {MOMENTS} | trunks
    folder = finished.path / "results" / "cells" / FOLDER
    metrics = {start: json.loads((folder / start / "0" / "metrics.json").read_text()) for start in STARTS}
    assert {found["status"] for found in metrics.values()} == {"finished"}
    # Whoever makes the mask, a half of what the network costs is gone, and no more than it takes.
    assert "price digits/net/macs" in jobs(finished.account())
    assert all(0.5 <= found["achieved_ratio"] < 0.52 for found in metrics.values())
    assert {start for start in STARTS if "repair" in metrics[start]["seconds"]} == {"inherited~compensated_fitted"}
    text = (finished.path / "results" / "experiments" / "small" / "summary.md").read_text()
    assert "### Within a budget of MACs, inherited weights, compensated, last layer fitted" in text
    assert "### Within a budget of MACs, inherited weights, compensated, last layer fitted, pruned in 2 steps" in text
    assert finished.run() == set()


def test_no_repair_no_moments(tmp_path):
    planned = Checkout(tmp_path / "checkout", grid_of(repairs=["none"])).planned()
    assert MOMENTS not in planned
    assert cell("inherited") in planned


def test_a_repair_more_trains_its_cells_and_nothing_else(checkout):
    configured(lambda raw: raw["experiments"]["small"]["repairs"].append("fitted"))(checkout)
    started = {cell("inherited~fitted"), cell("inherited~fitted_iterative_2"), trunk("1_4~fitted")}
    assert checkout.planned() == started | report()


def test_code_that_only_repairs_use_trains_their_cells_alone(checkout):
    appended("scripts/winnow/importance/recalibration.py", "\nUNUSED = 1\n")(checkout)
    own = {cell(start) for start in STARTS if "compensated" in start} | {trunk("1_4~compensated_fitted")}
    assert checkout.planned() == own | {f"finetune {FITTED}"} | report()


def test_code_that_only_prices_use_finds_them_anew_and_masks_keep(checkout):
    appended("scripts/winnow/networks/prices.py", "\nUNUSED = 1\n")(checkout)
    planned = checkout.planned()
    assert "price digits/net/macs" in planned
    assert not any(job.startswith("correlate") for job in planned)
