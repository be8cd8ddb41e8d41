"""What a run knows of its rules does not hang on their names, and what it starts has the right interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from snakemake.settings.types import DeploymentMethod

from winnow.runtime import run

from .programs import SCRIPTS


@pytest.mark.parametrize(
    ("output", "made"),
    [
        (["results/cells/{dataset}/{seed,\\d+}/metrics.json", "results/models/{dataset}/model.json"], "cells"),
        (["results/models/{dataset}/{seed}/metrics.json"], "models"),
        (["a/prefix/results/datasets/{dataset}/images.npy"], "datasets"),
        (["results/results/cells/{dataset}/metrics.json"], "cells"),
        ([".snakemake/storage/s3/bucket/results/cells/{dataset}/metrics.json"], "cells"),
        (["results/experiments/{experiment}/models"], "experiments"),
        (["own.txt"], ""),
        (["my-results/cells/{x}/metrics.json"], ""),
        ([], ""),
    ],
)
def test_what_a_rule_makes_is_said_by_its_paths(output, made):
    assert run.makes(SimpleNamespace(name="anything", output=output)) == made


@pytest.mark.parametrize(
    ("methods", "conda"),
    [
        ([], False),
        ([DeploymentMethod.APPTAINER], False),
        ([DeploymentMethod.ENV_MODULES], False),
        ([DeploymentMethod.CONDA], True),
        ([DeploymentMethod.CONDA, DeploymentMethod.APPTAINER], True),
    ],
)
def test_jobs_keep_this_interpreter_unless_conda_makes_them_another(methods, conda):
    workflow = SimpleNamespace(deployment_settings=SimpleNamespace(deployment_method=set(methods)))
    assert run.interpreter(workflow) == ("python" if conda else sys.executable)


def job(*inputs, output=()):
    return SimpleNamespace(input=inputs, output=output)


def test_the_summaries_that_the_targets_collect_are_printed_by_this_interpreter(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "python").write_text("#!/bin/sh\necho another interpreter")
    (tmp_path / "python").chmod(0o755)
    program = tmp_path / "show.py"
    program.write_text("import sys; print(sys.executable, *sys.argv[1:])")
    summaries = [f"{place}results/experiments/{name}/summary.parquet" for place, name in [("", "one"), ("a/b/", "two")]]
    for file in [*summaries, "results/experiments/three/summary.parquet"]:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    targets = [
        job(summaries[0], "results/experiments/one/report.html", summaries[1]),
        job(summaries[0], "results/experiments/not_there/summary.parquet"),
        job("results/experiments/three/summary.parquet", output=["results/experiments/three/report.html"]),
    ]
    run.announce(SimpleNamespace(dag=SimpleNamespace(targetjobs=targets)), program)
    assert capfd.readouterr().out.splitlines() == [
        f"{sys.executable} --summary {file} --verdict {file.replace('summary.parquet', 'recommendation.json')}"
        f" --figures {file.replace('summary.parquet', 'figures')}"
        for file in summaries
    ]


INNER = f"""
import sys
sys.path.insert(0, {str(SCRIPTS)!r})
from winnow.runtime import run

CELLS = expand("results/cells/{{x}}/metrics.json", x=range(3))

rule all:
    default_target: True
    input: CELLS, "results/experiments/e/summary.parquet"

rule finetune:
    output: "results/cells/{{x}}/metrics.json"
    shell: "touch {{output}}"

rule mask:
    input: CELLS
    output: "results/experiments/e/summary.parquet"
    shell: "touch {{output}}"

def announce():
    run.announce(workflow, "show.py")

run.prepare(workflow, lambda: "FORECAST", announce, lambda: ["a result"])

onsuccess:
    announce()
"""
OUTER = """
module inner:
    snakefile: "inner.smk"
    prefix: "place"

use rule * from inner as w_*

use rule finetune from inner as w_finetune with:
    threads: 1

rule finetune:
    output: "own.txt"
    shell: "touch {output}"

onsuccess:
    inner.announce()
"""


@pytest.fixture
def module(tmp_path):
    """Run a workflow that loads another as a module, and return what is said."""
    (tmp_path / "inner.smk").write_text(INNER)
    (tmp_path / "Snakefile").write_text(OUTER)
    (tmp_path / "show.py").write_text("import sys; print('SHOW', sys.argv[2])")
    shutil.copytree(SCRIPTS.parent / "profiles" / "default", tmp_path / "profiles" / "default")

    def snakemake(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")},
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stderr
        return done.stdout + done.stderr

    return snakemake


def test_a_modules_display_is_that_of_the_workflow_itself(module):
    # Loaded twice, by two `use rule`, it is shown once.
    assert module("-n").count("FORECAST") == 1
    output = module("w_all", "finetune")
    lines = output.splitlines()
    *_, (last, counts) = [(place, line) for place, line in enumerate(lines) if line.startswith("cells ")]
    assert counts.startswith("cells 3/3, ")
    assert lines.index("w_mask") > last
    assert "finetune" in lines  # the outer workflow's own, which makes no cell
    assert sum(line.startswith("WARNING: 1 results") for line in lines) == 1
    assert output.count("SHOW place/results/experiments/e/summary.parquet") == 1
    # And where there is nothing to do.
    assert module().count("SHOW place/results/experiments/e/summary.parquet") == 1
