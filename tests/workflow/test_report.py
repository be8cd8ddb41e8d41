"""The report in the workflow: what it shows is what the experiment used, and Snakemake's own report has it all."""

from __future__ import annotations

import json
import re
import zipfile

import yaml

from winnow.workflow import config

from .checkout import ROOT, SMALL_GRID

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


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
