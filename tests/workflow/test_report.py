"""The report in the workflow: the rules that it draws are the workflow's, and Snakemake's own report has it all."""

from __future__ import annotations

import copy
import json
import re
import zipfile

import pytest
import yaml

from winnow.answers import report as pages
from winnow.workflow import config

from .checkout import ROOT, SMALL_GRID, Checkout

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def edges(output: str) -> set[tuple[str, str]]:
    """Which rule reads whose files, of Snakemake's rule graph: (needed, needs it), target rules left out."""
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', output, re.MULTILINE))
    found = {(names[source], names[target]) for source, target in re.findall(r"(\d+) -> (\d+)", output)}
    targets = {*CONFIG["experiments"], *SMALL_GRID["experiments"]}
    # What is distilled learns from what the same rule has made.
    return {(source, target) for source, target in found if target not in targets and source != target}


@pytest.mark.parametrize("experiment", CONFIG["experiments"])
def test_the_rules_that_it_draws_are_those_that_snakemake_runs(tmp_path, experiment):
    # Which rules there are does not depend on how many ratios and seeds.
    raw = copy.deepcopy(CONFIG)
    raw["experiments"][experiment] |= {"ratios": [0.4], "seeds": [0]}
    output = Checkout(tmp_path / "checkout", raw).snakemake(experiment, "--rulegraph")
    rules = pages.used_rules(config.load(raw).part(experiment))
    assert edges(output) == {(need, name) for name, rule in rules.items() for need in rule.needs}


def test_the_configuration_that_it_shows_is_what_the_experiment_uses():
    part = config.load(SMALL_GRID).part("small")
    assert {section: set(entries) for section, entries in part.items()} == {
        "experiments": {"small"},
        "datasets": {"digits", "others"},
        "backbones": {"net"},
        "recipes": {"quick", "brief"},
    }
    assert json.loads(json.dumps(part)) == part
    part = config.load(CONFIG).part("demo")
    assert set(part["datasets"]) == {"digits", "digits_source"}
    assert set(part["recipes"]) == {"digits", "digits_pretraining"}


def test_snakemakes_own_report_has_the_page_the_tables_and_the_figures(checkout):
    figures = {path.name for path in checkout.path.glob("results/experiments/small/figures/*.svg")}
    assert figures
    checkout.snakemake("--report", "report.zip")
    with zipfile.ZipFile(checkout.path / "report.zip") as archive:
        names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
    assert figures | {"report.html", "summary.csv", "summary.md"} <= names
    checkout.snakemake("--report", "report.html")
    page = (checkout.path / "report.html").read_text()
    assert not re.search(r'(?:src|href)="https?:', page)
    for words in ("Accuracy, drop against the unpruned network", "The whole of the experiment small on one page"):
        assert words in page
