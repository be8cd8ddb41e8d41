"""The same grid without a shared file system, as a module, and below a prefix; and what a file's change runs."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .checkout import SMALL_GRID, Checkout, jobs

ROOT = Path(__file__).parents[2]
# In the place of a missing rsync, which the plugin for file systems calls, with the options that it gives.
RSYNC = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
case $1 in
*/) mkdir -p "$2" && exec cp -rLp "$1." "$2" ;;
*) exec cp -rLp "$1" "$2" ;;
esac
"""
UNPRUNED = "digits/net/unpruned/none/0.000/inherited/0"


def everything() -> dict:
    """A grid with each rule of the workflow that needs no network: as few cells as that takes."""
    raw = copy.deepcopy(SMALL_GRID)
    raw["recipes"]["quick"]["epochs"] = 4
    del raw["backbones"]["net"]["weights"]
    raw["backbones"]["net"]["pretrain"] = {"dataset": "others", "recipe": "brief", "seed": 0}
    axes = {"datasets": ["digits"], "backbones": ["net"], "scopes": ["layer"], "ratios": [0.5], "seeds": [0]}
    raw["experiments"] = {
        "small": axes | {"criteria": ["taylor", "average_weight"], "screening": True},
        "kept": axes
        | {"criteria": ["apoz"], "protocols": ["one_shot", "iterative_2", "distilled"], "latency": True}
        | {"models": "keep"},
    }
    raw["targets"] = ["small", "kept"]
    return raw


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Checkout:
    """That grid and its exports, made at home. Not to be changed: take a copy."""
    checkout = Checkout(tmp_path_factory.mktemp("whole") / "checkout", everything())
    checkout.run("all", "export")
    return checkout


def files_below(folder: Path) -> set[str]:
    """Files that a run makes, by their paths; Snakemake leaves hidden ones."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)) for path in paths}


class TestStorage:
    """Every job has a folder of its own: what is not declared is not there."""

    @pytest.fixture
    def fs(self, tmp_path) -> tuple[list[str], Callable[[], set[str]]]:
        pytest.importorskip("snakemake_storage_plugin_fs")
        store = tmp_path / "store"
        return ["fs", "--default-storage-prefix", str(store)], lambda: files_below(store)

    @pytest.fixture
    def s3(self) -> tuple[list[str], Callable[[], set[str]]]:
        pytest.importorskip("snakemake_storage_plugin_s3")
        server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        import boto3

        server.start()
        try:
            address = "http://{}:{}".format(*server.get_host_and_port())
            keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
            bucket = boto3.resource("s3", endpoint_url=address, **keys).create_bucket(Bucket="winnow")
            options = {"endpoint-url": address, "access-key": "key", "secret-key": "secret"}
            arguments = [text for name, value in options.items() for text in (f"--storage-s3-{name}", value)]
            yield (
                ["s3", "--default-storage-prefix", "s3://winnow", *arguments],
                lambda: {item.key for item in bucket.objects.all() if not Path(item.key).name.startswith(".")},
            )
        finally:
            server.stop()

    @pytest.mark.parametrize("kind", ["fs", "s3"])
    def test_a_grid_runs_where_only_declared_files_are(self, kind, whole, tmp_path, request):
        provider, stored = request.getfixturevalue(kind)
        checkout = Checkout(tmp_path / "checkout", everything())
        environment = {}
        if shutil.which("rsync") is None:
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin/rsync").write_text(RSYNC)
            (tmp_path / "bin/rsync").chmod(0o755)
            environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        away = ["--default-storage-provider", *provider, "--shared-fs-usage", "none"]
        checkout.snakemake("all", "export", *away, **environment)
        assert not (checkout.path / "results").exists()
        # The same files as at home, networks and figures among them.
        assert stored() == {f"results/{file}" for file in files_below(whole.path / "results")}
        assert "Nothing to be done" in checkout.snakemake("all", "export", *away, **environment)


HOST = """
configfile: "config.yaml"


module winnow:
    snakefile:
        "{snakefile}"
    config:
        config
    {prefix}


use rule * from winnow as w_*
"""


@pytest.mark.parametrize("prefix", ["", "below"])
def test_it_runs_as_a_module_and_below_a_prefix(whole, tmp_path, prefix):
    host = Checkout(tmp_path / "host", everything())
    (host.path / "Snakefile").rename(host.path / "rules.Snakefile")
    source = tmp_path / "winnow"
    source.mkdir()
    for name in ("Snakefile", "rules", "scripts", "envs"):
        place = host.path / ("rules.Snakefile" if name == "Snakefile" else name)
        place.rename(source / name)
    text = HOST.format(snakefile=source / "Snakefile", prefix=f'prefix:\n        "{prefix}"' if prefix else "")
    (host.path / "Snakefile").write_text(text)
    ran = host.run("w_all", "w_export")
    assert {job.split()[0].removeprefix("w_") for job in ran} == {job.split()[0] for job in jobs(account(whole))}
    assert files_below(host.path / prefix / "results") == files_below(whole.path / "results")
    assert (host.path / "results").exists() == (not prefix)
    assert host.run("w_all", "w_export") == set()


def account(checkout: Checkout) -> str:
    """Snakemake's account of the one run that was made here."""
    (log,) = (checkout.path / ".snakemake" / "log").glob("*.log")
    return log.read_text()


# The contract by file. Snakemake compares the content of small files only; what is larger than this here stands for the
# stores, weights and tables that are larger than its own limit in earnest. Of what is larger, a small file has the digest.
LIMIT = 8_000  # bytes
LARGE = ("images.npy", "index.parquet", ".safetensors", "channels.parquet", "predictions.parquet", "figures")


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of a finished run, as Snakemake's account has it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def jobs_of(text: str) -> list[Job]:
    """The jobs of a run with their files, the last account of each; target rules have no output."""
    found = {}
    for block in re.split(r"\n(?=\[)|\n\n", text):
        names = jobs(block)
        if names:
            files = {
                key: tuple(listed[1].split(", "))
                if (listed := re.search(rf"^    {key}: (.*)$", block, re.MULTILINE))
                else ()
                for key in ("input", "output")
            }
            found[min(names)] = Job(min(names), files["input"], files["output"])
    return list(found.values())


class TestByFile:
    """What runs after each declared input of each rule was touched, copied, deleted or edited."""

    @pytest.fixture(scope="class")
    def made(self, whole) -> list[Job]:
        return jobs_of(account(whole))

    @pytest.fixture(scope="class")
    def inputs(self, made) -> list[str]:
        """One file for each input of each rule: of those that differ in their wildcards only the first."""
        kinds = {}
        for job in made:
            for file in job.inputs:
                parts = Path(file).parts
                kinds.setdefault((job.name.split()[0], parts[1], len(parts), parts[-1]), file)
        return list(dict.fromkeys(kinds.values()))

    @pytest.fixture
    def copied(self, whole, tmp_path) -> Checkout:
        return whole.copy(tmp_path / "checkout")

    def planned(self, checkout: Checkout) -> set[str]:
        return jobs(checkout.snakemake("-n", "all", "export", "--max-checksum-file-size", str(LIMIT)))

    def test_the_large_files_are_above_the_limit_and_the_others_below(self, whole, inputs):
        sizes = {file: (whole.path / file).stat().st_size for file in inputs if not (whole.path / file).is_dir()}
        assert {file for file, size in sizes.items() if size > LIMIT} <= {f for f in sizes if f.endswith(LARGE)}
        assert any(size > LIMIT for file, size in sizes.items() if file.endswith("images.npy"))

    def test_touched_and_copied_files_run_nothing(self, copied):
        for path in (copied.path / "results").rglob("*"):
            os.utime(path)
        assert self.planned(copied) == set()
        (copied.path / "results").rename(copied.path / "old")
        shutil.copytree(copied.path / "old", copied.path / "results", copy_function=shutil.copy)
        assert self.planned(copied) == set()
