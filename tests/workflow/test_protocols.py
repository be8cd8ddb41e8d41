"""Protocols in the workflow: which jobs they are, what they read, and what runs again after an edit."""

from __future__ import annotations

import copy
import json

import pytest

from winnow.networks import models

from .checkout import SMALL_GRID, Checkout, jobs
from .test_rerun_contract import appended, configured, report

pytestmark = pytest.mark.slow("a grid with every protocol is run")

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


def trunk(place: str) -> str:
    return f"trunk digits/net/{place}/0"


def test_every_protocol_is_a_cell_and_the_teacher_is_trained_once_more_where_none_is_kept(finished):
    cells = {job for job in jobs(finished.account()) if job.startswith(("trunk", "finetune", "retrain"))}
    trunks = {trunk("unpruned/none/0/1"), trunk("apoz/global/1_4/1")}
    assert cells == {cell(start) for start in STARTS} | {f"finetune {BASELINE}", f"retrain {BASELINE}"} | trunks
    folder = finished.path / "results" / "cells" / "digits" / "net" / "apoz" / "global" / "0.500"
    metrics = {start: json.loads((folder / start / "0" / "metrics.json").read_text()) for start in STARTS}
    assert {found["achieved_ratio"] for found in metrics.values()} == {0.5}
    assert {found["status"] for found in metrics.values()} == {"finished"}
    assert all((folder / start / "0" / "mask.parquet").exists() for start in STARTS)
    # The teacher is the one that was judged.
    teacher = models.load(finished.path / "results" / "models" / BASELINE)[0]
    judged = json.loads((finished.path / "results" / "cells" / BASELINE / "metrics.json").read_text())
    assert models.digest(teacher.state_dict()) == judged["weights_sha256"]
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
    assert checkout.planned() == {cell("inherited~iterative_3"), trunk("apoz/global/1_6/1")} | report()


def test_a_learning_rate_that_is_searched_is_one_for_each_shape_of_training(checkout):
    configured(lambda raw: raw["recipes"]["quick"].update(learning_rate="auto"))(checkout)
    trained = {cell(start) for start in STARTS} | {f"finetune {BASELINE}", f"retrain {BASELINE}"}
    trained |= {trunk("unpruned/none/0/1"), trunk("apoz/global/1_4/1")}
    shapes = ("mean_activation/global/0.500/inherited", "mean_activation/global/0.500/random")
    shapes += ("mean_activation/global/0.250/inherited", "unpruned/none/0.000/inherited")
    masks = {f"mask digits/net/mean_activation/global/{ratio}" for ratio in ("0.250", "0.500")}
    searches = {f"tune digits/net/{shape}" for shape in shapes} | masks | {"score digits/net/mean_activation"}
    assert checkout.planned() == trained | searches | report()
    assert "4 learning rates are found first, each by 3 to 5 trainings" in checkout.snakemake("-n")


def test_one_trunk_serves_all_criteria_scopes_and_ratios(tmp_path):
    axes = {"criteria": ["apoz", "average_weight", "mean_activation"], "scopes": ["global", "layer"]}
    raw = grid_of(protocols=["fine_tune_first"], inits=["inherited"], ratios=[0.25, 0.5], **axes)
    planned = Checkout(tmp_path / "checkout", raw).planned()
    assert {job for job in planned if job.startswith("trunk")} == {trunk("unpruned/none/0/1")}
    assert sum(job.startswith("finetune") for job in planned) == 3 * 2 * 2 + 1


def test_code_that_only_a_protocol_uses_trains_its_cells_alone(checkout):
    appended("scripts/winnow/training/phases.py", "\nUNUSED = 1\n")(checkout)
    own = {cell("inherited~fine_tune_first"), cell("inherited~iterative_2")}
    assert checkout.planned() == own | report()
