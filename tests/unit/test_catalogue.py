"""The published rules of the Snakemake workflow catalog, one by one, and what it shows beside them: the schema and the
page of keys. https://github.com/snakemake/snakemake-workflow-catalog, "Workflows"."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

import schema
import winnow
from winnow.workflow import config

from . import programs

ROOT = programs.SCRIPTS.parent
SETTINGS = ROOT / ".snakemake-workflow-catalog.yml"
FOUND = json.loads((ROOT / schema.SCHEMA).read_text())
PAGE = (ROOT / schema.PAGE).read_text()


# All workflows.


def test_the_readme_has_the_words_by_which_workflows_are_found():
    text = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in text
    assert "workflow" in text


def test_there_is_a_workflow_definition_where_it_may_be():
    assert (ROOT / "Snakefile").is_file()
    assert (ROOT / "workflow/Snakefile").is_file()


def test_a_folder_of_rules_has_files_that_end_in_smk():
    folders = [folder for folder in (ROOT / "rules", ROOT / "workflow/rules") if folder.exists()]
    assert folders
    for folder in folders:
        assert any(file.suffix == ".smk" for file in folder.iterdir()), folder


def test_the_repository_is_small():
    sizes = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if sizes.returncode:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in sizes.stdout.decode().split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.exists()) < 20e6


def test_what_the_catalogue_formats_and_lints_is_as_the_rest():
    files = [ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    subprocess.run([sys.executable, "-m", "snakefmt.snakefmt", "--check", *files], check=True)
    # `make lint` runs `snakemake --lint`, which reads the Snakefile that this one includes and nothing else.
    statements = [line for line in files[0].read_text().splitlines() if line and not line.startswith("#")]
    assert statements == ['include: "../Snakefile"']


# Standardized usage.


def test_the_main_definition_is_in_the_folder_workflow():
    assert (ROOT / "workflow/Snakefile").is_file()


def test_instructions_for_the_configuration_are_in_its_folder():
    assert PAGE.startswith("# ")


def test_the_settings_say_how_it_is_used():
    usage = yaml.safe_load(SETTINGS.read_text())["usage"]
    assert set(usage) <= {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) <= {"conda", "apptainer", "singularity", "apptainer+conda", "singularity+conda", "report"}
    assert all(isinstance(each, bool) for each in deployment.values())
    # At least one of them.
    assert any(works for name, works in deployment.items() if name != "report")


def test_where_it_says_conda_every_job_has_an_environment():
    assert yaml.safe_load(SETTINGS.read_text())["usage"]["software-stack-deployment"]["conda"]
    for file in (ROOT / "rules").glob("*.smk"):
        for rule in re.findall(r"^\s*(?:rule|checkpoint) \w+:\n(?:(?:    .*)?\n)+", file.read_text(), re.MULTILINE):
            if "shell:" in rule:
                assert "conda:" in rule, (file.name, rule.split("\n")[0])


def test_where_it_says_report_results_are_marked_for_one():
    usage = yaml.safe_load(SETTINGS.read_text())["usage"]
    assert usage["report"] is usage["software-stack-deployment"]["report"] is True
    assert any("report(" in file.read_text() for file in (ROOT / "rules").glob("*.smk"))


# What snakedeploy copies, and what the catalog's table of parameters is made from.


def test_the_configuration_that_is_deployed_is_the_one():
    assert yaml.safe_load((ROOT / "config/config.yaml").read_text()) == yaml.safe_load(
        (ROOT / "config.yaml").read_text()
    )


def test_schema_and_page_are_as_the_models_say(tmp_path):
    programs.run("schema", None, "--output", tmp_path)
    for place in (schema.SCHEMA, schema.PAGE):
        made, kept = (folder / place for folder in (tmp_path, ROOT))
        assert made.read_text() == kept.read_text(), f"run: .venv/bin/python scripts/schema.py ({place})"


def test_every_key_has_a_row_and_every_section_of_the_file_a_table():
    for model in [FOUND, *FOUND["$defs"].values()]:
        for key in model["properties"]:
            assert f"\n| `{key}` | " in PAGE
    assert "BUILT_IN" not in PAGE
    assert ":mod:" not in PAGE


def test_the_schema_takes_what_is_there_and_refuses_what_is_refused():
    jsonschema.Draft202012Validator.check_schema(FOUND)
    validator = jsonschema.Draft202012Validator(FOUND)
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    validator.validate(raw)
    for section, key, value in [
        ("experiments", "ratio", [0.5]),
        ("experiments", "scopes", ["everywhere"]),
        ("recipes", "epochs", 0),
        ("datasets", "folds", 1),
        ("backbones", "head", "hydra"),
    ]:
        changed = raw | {section: {name: entry | {key: value} for name, entry in raw[section].items()}}
        assert not validator.is_valid(changed), key


def test_the_pages_example_is_a_configuration():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert config.load(yaml.safe_load(example)).targets == ("mine",)


# What GitHub runs.


def test_github_lints_tests_and_reports():
    found = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    commands = [step["run"] for job in found["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make lint", "make test-all"} <= set(commands)
    assert any("--report" in command for command in commands)
    targets = set(re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = {name for line in targets for name in line.split()}
    assert {command.split()[1] for command in commands if command.startswith("make ")} <= targets
    # YAML reads the key `on` as a truth value.
    assert {"push", "pull_request"} == set(found[True])


# Who cites it.


def test_the_citation_is_whole_and_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    assert all(found[key] for key in ("title", "message", "authors"))
    assert found["version"] == winnow.__version__
    assert {"type", "title", "authors"} <= set(found["references"][0])
    assert f"## {winnow.__version__}" in (ROOT / "CHANGELOG.md").read_text()
