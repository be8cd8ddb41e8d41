"""A grid on Kubernetes by its profile: results in S3, and each job in a folder that holds what Snakemake brings."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from winnow.workflow import wiring

from . import fake_kubernetes, s3
from .checkout import SMALL_GRID, Checkout

EXECUTOR = "snakemake_executor_plugin_kubernetes"
pytestmark = [
    pytest.mark.slow("each job of a grid starts Snakemake anew, twice"),
    pytest.mark.skipif(not importlib.util.find_spec(EXECUTOR), reason=f"{EXECUTOR}, of the extra cloud, is missing"),
]

CELL = "digits/net/apoz/layer/0.500/inherited"


def grid() -> dict[str, Any]:
    """Cells of each kind: with and without a mask, a trunk, a teacher."""
    raw = copy.deepcopy(SMALL_GRID)
    axes = {"datasets": ["digits"], "criteria": ["apoz"], "protocols": ["one_shot", "iterative_2", "distilled"]}
    raw["experiments"]["small"] |= axes | {"models": "keep"}
    # Something is chosen, and exported.
    raw |= {"tolerance": 70.0, "class_margin": 100.0}
    return raw


@dataclasses.dataclass
class Cloud:
    """A checkout, a cluster that is pretended, and a bucket for the results."""

    checkout: Checkout
    cluster: fake_kubernetes.Cluster
    bucket: Any
    storage: dict[str, str]

    def snakemake(self, *arguments: str, status: int = 0) -> str:
        # What git knows are the sources.
        subprocess.run(["git", "-C", str(self.checkout.path), "add", "--all"], check=True)
        place = ["--default-storage-prefix", "s3://winnow/place", "--container-image", "winnow"]
        # For two cores, and pods of seconds.
        pace = ["--jobs", "2", "--seconds-between-status-checks", "1"]
        environment = self.storage | {"KUBECONFIG": str(self.cluster.configuration)}
        return self.checkout.snakemake(
            *arguments, "--profile", "profiles/clouds", *place, *pace, status=status, seconds=900, **environment
        )

    def stored(self) -> dict[str, Any]:
        """What lies in the bucket, less Snakemake's hidden files."""
        found = {item.key.removeprefix("place/"): item for item in self.bucket.objects.all()}
        return {file: item for file, item in found.items() if not Path(file).name.startswith(".")}

    def pods(self, job: str) -> list[fake_kubernetes.Pod]:
        """Those that ran a job: a pattern of ``rule:wildcard=value,...``."""
        return [pod for pod in self.cluster.pods.values() if re.search(f"--target-jobs '{job}", pod.script)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory) -> Iterator[Cloud]:
    """One in which the grid has run, and its network is exported."""
    place = tmp_path_factory.mktemp("cloud")
    checkout = Checkout(place / "checkout", grid())
    (checkout.path / ".gitignore").write_text(".snakemake/\n__pycache__/\n")
    subprocess.run(["git", "init", "--quiet", str(checkout.path)], check=True)
    # The image has all that is needed: who installs into it fails.
    (place / "bin").mkdir()
    (place / "bin/pip").symlink_to("/bin/false")
    path = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.defpath])
    with s3.serving("winnow") as (bucket, options):
        storage = {f"SNAKEMAKE_STORAGE_S3_{name.replace('-', '_').upper()}": value for name, value in options.items()}
        with fake_kubernetes.running(place / "cluster", {"PATH": path}) as cluster:
            found = Cloud(checkout, cluster, bucket, storage)
            found.snakemake("all", "export")
            yield found


def test_a_grid_runs_without_a_shared_file_system(cloud, finished, tmp_path):
    assert not (cloud.checkout.path / "results").exists()
    assert "Nothing to be done" in cloud.snakemake("all", "export", "--dry-run")

    pods = list(cloud.cluster.pods.values())
    assert [pod.process.poll() for pod in pods] == [0] * len(pods)
    rules = [re.search(r"--allowed-rules (\w+)", pod.script)[1] for pod in pods]
    assert sorted(rules) == ["decode", *4 * ["finetune_kept"], "measure", "trunk", "write_certified"]
    without = {rule for rule, pod in zip(rules, pods, strict=True) if "nvidia.com/gpu" not in pod.limits}
    assert without == {"decode", "write_certified"}
    assert not cloud.cluster.jobs | cloud.cluster.secrets.keys()

    # What is computed there is what is computed here.
    for cell in (f"{CELL}/0", "digits/net/unpruned/none/0.000/inherited/0"):
        file = f"results/cells/{cell}/predictions.parquet"
        cloud.bucket.download_file(f"place/{file}", tmp_path / "there.parquet")
        there, here = pandas.read_parquet(tmp_path / "there.parquet"), pandas.read_parquet(finished.path / file)
        pandas.testing.assert_frame_equal(there, here)
    answers = ("report.html", "models.json", "models/digits-net/model.onnx")
    assert {f"results/experiments/small/{name}" for name in answers} <= cloud.stored().keys()


def test_a_cell_fetches_what_it_is_made_from_and_sends_what_it_is(cloud):
    """Under ``-rP`` its files are shown with their bytes, as docs/operations.md has them."""
    (pod,) = cloud.pods(r"finetune_kept:\S+,criterion=apoz,\S+,init=inherited,seed=0'")
    moved = {
        way: set(re.findall(rf"^{way} storage: s3://winnow/place/(\S+)$", pod.log.read_text(), re.MULTILINE))
        for way in ("Retrieving from", "Storing in")
    }
    store = {f"results/datasets/digits/{name}" for name in ("manifest.json", "images.npy", "index.parquet")}
    names = ("manifest.json", "weights.safetensors", "channels.parquet")
    backbone = {f"results/backbones/net/{name}" for name in names}
    made_from = {"results/splits/digits/only.parquet", "results/masks/digits/net/apoz/layer/0.500.parquet"}
    made = {f"results/cells/{CELL}/0/{name}" for name in wiring.CELL_FILES}
    network = {f"results/models/{CELL}/0/{name}" for name in wiring.MODEL_FILES}
    log = {f"results/logs/finetune/{CELL}/0.log"}
    assert moved == {"Retrieving from": store | backbone | made_from, "Storing in": made | network | log}

    (sources,) = pod.folder.glob("workdir/.snakemake/storage/**/snakemake-workflow-sources.*")
    print(f"{sources.stat().st_size:8} the sources")
    for way, files in moved.items():
        print(*(f"{cloud.stored()[file].size:8} {way} {file}" for file in sorted(files)), sep="\n")


def test_what_no_rule_declares_is_not_there_and_a_failed_job_is_submitted_again(cloud):
    split = "results/splits/digits/only.parquet"
    cloud.checkout.edit("rules/statistics.smk", "        split=needs(wiring.training_split),\n", "")
    cloud.checkout.edit("rules/statistics.smk", "{input.split:q}", split)
    output = cloud.snakemake("results/statistics/digits/net/activations.json", "--retries", "1", status=1)
    assert split in cloud.stored()
    # The log is the pod's, which has sent it.
    assert f"error: {split} does not exist" in output
    pods = cloud.pods("measure:")[-2:]
    assert [(pod.process.poll(), pod.limits["memory"]) for pod in pods] == [(1, "16000M"), (1, "32000M")]
