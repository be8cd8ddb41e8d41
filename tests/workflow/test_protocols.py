"""Protocols in the workflow: which jobs they are, what they read, and what runs again after an edit."""

from __future__ import annotations

import copy
import json

import pytest

from winnow.answers import report as pages
from winnow.workflow import config

from .checkout import SMALL_GRID, Checkout, jobs
from .test_report import edges
from .test_rerun_contract import appended, configured, report

PROTOCOLS = ("one_shot", "fine_tune_first", "iterative_2", "distilled")
BASELINE = "digits/net/unpruned/none/0.000/inherited/0"
STARTS = (
    *("inherited", "inherited~fine_tune_first", "inherited~iterative_2", "inherited~distilled"),
    *("random~equal_flops", "random~distilled"),
)


def grid_of(**axes):
    """One data set, a criterion that looks at images, and a global scope."""
    raw = copy.deepcopy(SMALL_GRID)
    raw["recipes"]["quick"]["epochs"] = 3
    small = raw["experiments"]["small"]
    small |= {"datasets": ["digits"], "criteria": ["apoz"], "scopes": ["global"], "protocols": list(PROTOCOLS)}
    small |= {"inits": ["inherited", "random"], "scratch_budget": "equal_flops"} | axes
    return raw


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    return shared("protocols", grid_of())


def cell(start: str) -> str:
    return f"finetune digits/net/apoz/global/0.500/{start}/0"


def test_every_protocol_is_a_cell_and_the_teacher_is_trained_once_more_where_none_is_kept(finished):
    cells = {job for job in jobs(finished.account()) if job.startswith(("finetune", "retrain"))}
    assert cells == {cell(start) for start in STARTS} | {f"finetune {BASELINE}", f"retrain {BASELINE}"}
    folder = finished.path / "results" / "cells" / "digits" / "net" / "apoz" / "global" / "0.500"
    metrics = {start: json.loads((folder / start / "0" / "metrics.json").read_text()) for start in STARTS}
    assert {found["achieved_ratio"] for found in metrics.values()} == {0.5}
    assert {found["status"] for found in metrics.values()} == {"finished"}
    own = {start for start in STARTS if (folder / start / "0" / "mask.parquet").exists()}
    assert own == {"inherited~fine_tune_first", "inherited~iterative_2"}
    distilled = {start for start in STARTS if "distillation" in metrics[start]["spec"]["recipe"]}
    assert distilled == {"inherited~distilled", "random~distilled"}

    experiment = finished.path / "results" / "experiments" / "small"
    text = (experiment / "summary.md").read_text()
    assert "### Globally, inherited weights, pruned in 2 steps" in text
    assert "### Globally, random weights, trained for equal operations" in text
    answer = json.loads((experiment / "recommendation.json").read_text())
    assert all(record["protocol"] in (*PROTOCOLS, "equal_flops") for record in answer["verdicts"])
    assert finished.run() == set()


def test_a_temperature_trains_what_is_distilled_and_nothing_else(checkout):
    configured(lambda raw: raw["recipes"]["quick"].update(distillation={"temperature": 2.0}))(checkout)
    assert checkout.planned() == {cell("inherited~distilled"), cell("random~distilled")} | report()


def test_a_protocol_more_trains_its_cells_and_nothing_else(checkout):
    configured(lambda raw: raw["experiments"]["small"]["protocols"].append("iterative_3"))(checkout)
    assert checkout.planned() == {cell("inherited~iterative_3")} | report()


def test_code_that_only_a_protocol_uses_trains_its_cells_alone(checkout):
    appended("scripts/winnow/training/phases.py", "\nUNUSED = 1\n")(checkout)
    own = {cell("inherited~fine_tune_first"), cell("inherited~iterative_2")}
    assert checkout.planned() == own | report()


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"models": "keep"},
        {"protocols": ["fine_tune_first"], "inits": ["inherited"]},
        {"protocols": ["iterative_2"], "inits": ["inherited"]},
        {"protocols": ["iterative_2"], "inits": ["inherited"], "scopes": ["layer"], "latency": True},
    ],
    ids=["all", "kept", "first", "iterative", "timed"],
)
def test_the_report_draws_the_rules_that_run(tmp_path, axes):
    raw = grid_of(**axes)
    output = Checkout(tmp_path / "checkout", raw).snakemake("small", "--rulegraph")
    rules = pages.used_rules(config.load(raw).part("small"))
    assert edges(output) == {(need, name) for name, rule in rules.items() for need in rule.needs}
