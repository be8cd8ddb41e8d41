"""The same grid without a shared file system, as a module, and below a prefix; and what a file's change runs."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from . import s3
from .checkout import SMALL_GRID, Checkout, jobs

pytestmark = pytest.mark.slow("a grid of its own is run, in storages and below a prefix, and every file of it edited")

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
    # With a tolerance that nothing is above, few trainings judge.
    raw |= {"tolerance": 70.0, "class_margin": 100.0}
    raw["recipes"]["quick"] |= {"epochs": 4, "learning_rate": "auto"}
    del raw["backbones"]["net"]["weights"]
    raw["backbones"]["net"]["pretrain"] = {"dataset": "others", "recipe": "brief", "seed": 0}
    axes = {"datasets": ["digits"], "backbones": ["net"], "scopes": ["layer"], "ratios": [0.5], "seeds": [0]}
    raw["experiments"] = {
        "small": axes | {"criteria": ["taylor", "average_weight"], "seeds": "auto", "screening": True},
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
    # What is known before a step or a choice has been made.
    checkout.first = checkout.planned("all", "export")
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
        store = tmp_path / "store"
        return ["fs", "--default-storage-prefix", str(store)], lambda: files_below(store)

    @pytest.fixture
    def bucket(self) -> tuple[list[str], Callable[[], set[str]]]:
        with s3.serving("winnow") as (bucket, options):
            arguments = [text for name, value in options.items() for text in (f"--storage-s3-{name}", value)]
            yield (
                ["s3", "--default-storage-prefix", "s3://winnow", *arguments],
                lambda: {item.key for item in bucket.objects.all() if not Path(item.key).name.startswith(".")},
            )

    @pytest.mark.parametrize("kind", ["fs", "bucket"])
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
    planned = jobs(host.snakemake("-n", "w_all", "w_export"))
    assert {job.removeprefix("w_") for job in planned} == whole.first
    if not prefix:
        return  # One of the two is run for real: the one with more to go wrong.
    host.run("w_all", "w_export")
    assert files_below(host.path / prefix / "results") == files_below(whole.path / "results")
    assert not (host.path / "results").exists()
    assert host.run("w_all", "w_export") == set()


def account(checkout: Checkout) -> str:
    """Snakemake's account of the one run that was made here."""
    (log,) = (checkout.path / ".snakemake" / "log").glob("*.log")
    return log.read_text()


# The contract by file. Snakemake compares the content of small files only. What is larger than this stands for stores,
# weights and tables that are larger than its own limit in earnest: a small file beside each has its digest.
LIMIT = 20_000  # bytes


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of a finished run, as Snakemake's account has it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def jobs_of(text: str) -> dict[str, Job]:
    """The jobs of a run with their files, the last account of each; target rules have no output."""
    found = {}
    for block in re.split(r"\n(?=\[)|\n\n", text):
        rule = re.search(r"^(?:local)?(?:rule|checkpoint) (\w+):$", block, re.MULTILINE)
        if rule:
            files = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
            name = min(jobs(block), default=rule[1])
            inputs, outputs = (tuple(filter(None, files.get(key, "").split(", "))) for key in ("input", "output"))
            found[name] = Job(name, inputs, outputs)
    return found


# Inputs of which only the digest counts, which another input has.
ANCIENT = (".npy", ".npz", ".safetensors", "index.parquet", "channels.parquet", "predictions.parquet", ".zip")


@pytest.fixture(scope="module")
def made(whole) -> dict[str, Job]:
    return jobs_of(account(whole))


def kinds(made: dict[str, Job]) -> list[str]:
    """A file for each input of each rule: of those that differ in their names only the first."""
    found = {}
    for job in made.values():
        for file in job.inputs if job.outputs else ():
            parts = Path(file).parts
            # Of scores, masks and latencies the names are wildcards.
            name = Path(file).suffix if parts[1] in ("scores", "masks", "latency") else parts[-1]
            found.setdefault((job.name.split()[0], parts[1], len(parts), name), file)
    return list(dict.fromkeys(found.values()))


def following(made: dict[str, Job], changed: set[str]) -> set[str]:
    """The jobs that read one of the files, and those that read what these make, and so on."""
    ran: set[str] = set()
    while True:
        more = {
            job.name
            for job in made.values()
            if job.outputs and job.name not in ran and any(f in changed and not f.endswith(ANCIENT) for f in job.inputs)
        }
        if not more:
            return ran
        ran |= more
        changed = changed | {file for name in more for file in made[name].outputs}


def upstream(made: dict[str, Job], name: str) -> set[str]:
    """A job and those that make what it reads, and what these read, and so on."""
    makers = {file: job for job in made.values() for file in job.outputs}
    found, left = set(), [made[name]]
    while left:
        job = left.pop()
        if job.name not in found:
            found.add(job.name)
            left += [makers[file] for file in job.inputs if file in makers]
    return found


@pytest.fixture(scope="module")
def copied(whole, tmp_path_factory) -> Checkout:
    """A copy that every test leaves as it was."""
    return whole.copy(tmp_path_factory.mktemp("by_file") / "checkout")


class TestByFile:
    """What runs after each declared input of each rule was touched, copied, deleted or edited."""

    def planned(self, checkout: Checkout) -> set[str]:
        return checkout.planned("all", "export", "--max-checksum-file-size", str(LIMIT))

    def expected(self, whole: Checkout, made: dict[str, Job], changed: set[str], *ran: str) -> set[str]:
        """A dry run's jobs: where a grid's step is found anew, those that it decides on are not known yet."""
        found = following(made, changed) | set(ran)
        steps = sorted(name for name in found if name.startswith("grow"))
        return found & (whole.first | upstream(made, steps[0])) if steps else found

    def test_the_bulky_files_are_above_the_limit(self, whole, made):
        # A few classes' gradients are a few numbers.
        bulky = {f for f in kinds(made) if f.endswith((".npy", "activations.npz", ".safetensors"))}
        kept = {"images.npy", "activations.npz", "weights.safetensors", "model.safetensors"}
        assert {Path(file).name for file in bulky} >= kept
        assert all((whole.path / file).stat().st_size > LIMIT for file in bulky)

    def test_touched_and_copied_files_run_nothing(self, copied):
        results, kept = copied.path / "results", copied.path / "kept"
        results.rename(kept)
        shutil.copytree(kept, results, copy_function=shutil.copy2)
        for path in results.rglob("*"):
            os.utime(path)
        assert self.planned(copied) == set()
        shutil.rmtree(results)
        shutil.copytree(kept, results, copy_function=shutil.copy)
        assert self.planned(copied) == set()
        shutil.rmtree(results)
        kept.rename(results)

    def test_an_edited_file_runs_what_reads_it_and_no_digest_says_otherwise(self, whole, copied, made):
        table, expected = {}, {}
        for file in kinds(made):
            path = copied.path / file
            if file.endswith(ANCIENT):
                continue
            before, content = path.stat(), path.read_bytes()
            path.write_bytes(content + b"\n")
            table[file], expected[file] = self.planned(copied), self.expected(whole, made, {file})
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert table == expected
        assert all(expected.values())

    def test_edited_bulky_files_run_nothing_by_themselves(self, copied, made):
        files = [file for file in kinds(made) if file.endswith(ANCIENT)]
        before = {file: ((copied.path / file).stat(), (copied.path / file).read_bytes()) for file in files}
        for file, (_, content) in before.items():
            (copied.path / file).write_bytes(content + b"\n")
        assert self.planned(copied) == set()
        for file, (stat, content) in before.items():
            (copied.path / file).write_bytes(content)
            os.utime(copied.path / file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def test_a_deleted_file_is_made_again_where_it_is_asked_for(self, whole, copied, made):
        asked = {file for job in made.values() if not job.outputs for file in job.inputs}
        # What decides which cells there are is asked for, too: not what is exported already.
        asked |= {file for job in made.values() for file in job.outputs if "/growth/" in file}
        away = copied.path / "away"
        steps = [file for file in kinds(made) if file not in asked]
        away.mkdir()
        for number, file in enumerate(steps):
            (copied.path / file).rename(away / str(number))
        assert self.planned(copied) == set()
        for number, file in enumerate(steps):
            (away / str(number)).rename(copied.path / file)
        away.rmdir()
        table, expected = {}, {}
        for file in sorted({min((f for f in asked if Path(f).name == name), key=len) for name in names(asked)}):
            (maker,) = (job for job in made.values() if file in job.outputs)
            (copied.path / file).rename(away)
            table[file], expected[file] = (
                self.planned(copied),
                self.expected(whole, made, set(maker.outputs), maker.name),
            )
            away.rename(copied.path / file)
        assert table == expected


def names(files: Iterable[str]) -> set[str]:
    return {Path(file).name for file in files}
