"""What does not hang on the rules' names, or on the Python that happens to be first in the path."""

from __future__ import annotations

import os
import re

import pytest

from .checkout import Checkout

MODULE = """
configfile: "config.yaml"

module winnow:
    snakefile: "workflow/Snakefile"
    config: config
    prefix: "place"

use rule * from winnow as w_*

use rule finetune from winnow as w_finetune with:
    threads: 1

print("LOCAL", *sorted(workflow._localrules))
"""
# What docs/operations.md says: what is not submitted takes a second, or needs the network.
LOCAL = "choose download grow import_backbone mask plot price recommend score split summarize track write_report"


@pytest.fixture
def fresh(tmp_path) -> Checkout:
    """A checkout in which nothing has run."""
    return Checkout(tmp_path / "checkout")


def test_renamed_rules_are_forecast_and_run_where_the_others_do(fresh):
    workflow = fresh.path / "workflow"
    workflow.mkdir()
    for name in ("Snakefile", "rules", "scripts", "envs"):
        (fresh.path / name).rename(workflow / name)
    (fresh.path / "Snakefile").write_text(MODULE)
    output = fresh.snakemake("-n")
    assert re.findall("Disk: .*", output) == ["Disk: about 762 kB for 6 cells (0 keep their model) and 2 stores."]
    assert set(re.search("^LOCAL (.*)", output, re.MULTILINE)[1].split()) == {f"w_{name}" for name in LOCAL.split()}
    assert "localrules" not in output


def test_jobs_keep_this_interpreter_where_modules_or_containers_are_deployed(fresh):
    other = fresh.path / "bin" / "python"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho another interpreter >&2; exit 1")
    other.chmod(0o755)
    path = f"{other.parent}{os.pathsep}{os.environ['PATH']}"
    file = "results/datasets/others/manifest.json"
    fresh.snakemake(file, "--software-deployment-method", "env-modules", "apptainer", PATH=path)
    assert (fresh.path / file).exists()
