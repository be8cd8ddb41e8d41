"""A screened experiment: short trainings first, then what they leave, and nothing twice."""

from __future__ import annotations

import copy
import json
import re

import pytest

from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout, jobs

AXES = {
    "datasets": ["digits"],
    "criteria": ["apoz", "average_weight", "l1_norm", "random"],
    "scopes": ["layer"],
    "ratios": [0.3, 0.6],
    "seeds": [1, 0],
    "screening": True,
}
EXPERIMENT = "results/experiments/small"


def screened_grid() -> dict:
    raw = copy.deepcopy(SMALL_GRID)
    raw["recipes"]["quick"]["epochs"] = 4
    raw["experiments"]["small"] |= AXES
    return raw


@pytest.fixture(scope="module")
def finished(shared) -> Checkout:
    """A screened grid."""
    return shared("screened", screened_grid())


def cells_of(found: set[str]) -> set[str]:
    return {job.removeprefix("finetune ") for job in found if job.startswith("finetune ")}


def test_only_what_short_trainings_leave_is_trained_in_full(finished, tmp_path):
    checkout, done = finished, jobs(finished.account())
    first = {cell for cell in cells_of(done) if "~short_4" in cell}
    assert len(first) == 3 * 2 + 1
    # A dry run shows what is known: the first rung.
    planned = Checkout(tmp_path / "checkout", screened_grid()).snakemake("-n")
    assert cells_of(jobs(planned)) == first
    assert re.search(r"Disk: about [\d.]+ [kMGT]B for 7 cells", planned)
    record = json.loads((checkout.path / EXPERIMENT / "screening/short_2.json").read_text())
    left = json.loads((checkout.path / EXPERIMENT / "screening/short_4.json").read_text())["survivors"]
    assert {cell for cell in cells_of(done) if "~short_2" in cell} == {
        "digits/net/unpruned/none/0.000/inherited~short_2/0",
        *(cell.replace("inherited", "inherited~short_2") for cell in left),
    }
    survivors = record["survivors"]
    assert len(left) == 4
    assert {cell.split("/")[4] for cell in survivors} >= {"0.300"}
    pairs = ["digits/net/unpruned/none/0.000/inherited", *(cell.removesuffix("/0") for cell in survivors)]
    assert {cell for cell in cells_of(done) if "~" not in cell} == {
        f"{pair}/{seed}" for pair in pairs for seed in (0, 1)
    }
    assert {job for job in done if job.startswith("screen")} == {"screen small/short_4", "screen small/short_2"}
    assert not any("random" in job for job in done)

    rows = read_table(checkout.path / EXPERIMENT / "summary.parquet", "summary").to_pylist()
    assert {(row["criterion"], row["ratio"]) for row in rows} == {
        ("unpruned", 0.0), *((cell.split("/")[2], float(cell.split("/")[4])) for cell in survivors)
    }  # fmt: skip
    lines = json.loads((checkout.path / EXPERIMENT / "recommendation.json").read_text())["lines"]
    assert lines[-1].startswith(f"Screened: of 6 networks, short trainings chose the {len(survivors)}")
    page = (checkout.path / EXPERIMENT / "report.html").read_text()
    assert lines[-1] in page.replace("&#39;", "'")
    assert 'id="table-screening"' in page


def test_again_there_is_nothing_to_do(finished):
    assert finished.planned() == set()


def test_the_whole_grid_reuses_its_cells_and_the_screening_keeps_its_own(checkout):
    full = {cell for cell in cells_of(jobs(checkout.account())) if "~short" not in cell}
    raw = screened_grid()
    raw["experiments"]["small"]["screening"] = False
    checkout.configure(raw)
    added = cells_of(checkout.run())
    assert len(added | full) == 2 * (1 + 4 * 2)
    assert not added & full
    checkout.configure(screened_grid())
    assert cells_of(checkout.planned()) == set()


def test_another_survivor_is_all_that_is_trained_anew(checkout):
    before = cells_of(jobs(checkout.account()))
    raw = screened_grid()
    raw["experiments"]["small"]["criteria"].append("l2_norm")
    checkout.configure(raw)
    done = checkout.run()
    assert {"digits/net/l2_norm/layer/0.300/inherited~short_4/0"} <= cells_of(done)
    assert not cells_of(done) & before
    kept = json.loads((checkout.path / EXPERIMENT / "screening/short_2.json").read_text())["survivors"]
    assert all((checkout.path / "results/cells" / cell / "metrics.json").exists() for cell in kept)
