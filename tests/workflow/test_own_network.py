"""A network of one's own as a backbone of a grid: it runs, is a control beside a larger one, and an edit of its source
runs all that depends on it."""

import copy
import json

import pytest

from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout
from .test_rerun_contract import report

pytestmark = pytest.mark.slow("a grid with a network of its own is run")

SOURCE = """
from torch import nn


def network(classes):
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""
CELLS = {
    "finetune digits/mine/apoz/layer/0.500/inherited/0",
    "finetune digits/mine/unpruned/none/0.000/inherited/0",
}


def test_an_edit_of_the_source_runs_what_depends_on_it(tmp_path):
    config = copy.deepcopy(SMALL_GRID)
    config["backbones"]["mine"] = {"factory": "mine.py:network", "weights": "random"}
    config["experiments"]["small"] |= {"datasets": ["digits"], "criteria": ["apoz"], "backbones": ["net", "mine"]}
    config["experiments"]["small"]["controls"] = ["mine"]
    checkout = Checkout(tmp_path / "checkout", config)
    assert "mine.py" in checkout.snakemake("-n", status=1).partition("affected files:")[2]
    (checkout.path / "mine.py").write_text(SOURCE)
    ran = checkout.run()
    assert CELLS | {"import_backbone mine", "measure digits/mine", "mask digits/mine/apoz/layer/0.500"} <= ran
    assert checkout.planned() == set()

    # Unpruned it stands beside what is pruned from the larger network, too.
    experiment = checkout.path / "results/experiments/small"
    rows = read_table(experiment / "summary.parquet", "summary").to_pylist()
    assert [(row["backbone"], row["control"]) for row in rows if row["criterion"] == "unpruned"] == [
        ("mine", None), ("net", None), ("net", "mine"),
    ]  # fmt: skip
    (beside,) = (row for row in rows if row["control"])
    (whole,) = (
        row for row in rows if (row["backbone"], row["criterion"]) == ("net", "unpruned") and not row["control"]
    )
    assert beside["drop"] == pytest.approx(whole["accuracy"] - beside["accuracy"])
    assert beside["macs"] < whole["macs"]
    answer = json.loads((experiment / "recommendation.json").read_text())
    assert {(row["backbone"], row["control"]) for row in answer["ladder"]} >= {("net", "mine"), ("mine", None)}
    assert "mine, unpruned" in (experiment / "summary.md").read_text()

    checkout.edit("mine.py", "nn.Conv2d(8, 8, 3)", "nn.Conv2d(8, 8, 1)")
    mine = {job for job in ran if "/mine" in job or job.endswith(" mine")}
    assert checkout.planned() == mine | report()
