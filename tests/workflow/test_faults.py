"""What goes wrong around a run: it is named, it costs as little as it can, and it is mended by running again."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout

CELL = "results/cells/digits/net/apoz/layer/0.500/inherited/0"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which needs root")


@pytest.fixture
def mounted(tmp_path):
    """Mount a tmpfs with the given options; it is gone after the test."""
    places = []

    def mount(place: Path, options: str) -> Path:
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def one_cell() -> dict[str, Any]:
    """The smallest grid: one data set, one criterion that looks at its images, and the baseline."""
    config = copy.deepcopy(SMALL_GRID)
    config["experiments"]["small"] |= {"datasets": ["digits"], "criteria": ["apoz"]}
    return config


def test_logs_are_lines_without_bars(finished):
    logs = {log: log.read_bytes() for log in (finished.path / "results/logs").rglob("*.log")}
    assert {"decode", "measure", "finetune"} <= {log.relative_to(finished.path).parts[2] for log in logs}
    assert [log for log, content in logs.items() if b"\r" in content] == []


def test_a_diverged_cell_says_so_and_the_others_go_on(checkout):
    config = checkout.config
    config["recipes"]["quick"]["learning_rate"] = 1e12
    checkout.configure(config)
    output = checkout.snakemake()
    metrics = json.loads((checkout.path / CELL / "metrics.json").read_text())
    assert metrics["status"] == "diverged"
    assert "epoch 1" in metrics["reason"]
    assert "learning rate" in metrics["reason"]
    rows = read_table(checkout.path / "results/experiments/small/summary.parquet", "summary").to_pylist()
    assert {row["failed_seeds"] for row in rows if row["dataset"] == "digits"} == {"0"}
    assert {row["failed_seeds"] for row in rows if row["dataset"] == "others"} == {""}
    assert all(row["accuracy"] is None for row in rows if row["dataset"] == "digits")
    assert "failed" in output


def test_a_failed_cell_names_itself_shows_its_logs_end_and_the_others_go_on(checkout):
    shutil.rmtree(checkout.path / "results" / "cells" / "digits")
    mask = checkout.path / "results/masks/digits/net/apoz/layer/0.500.parquet"
    mask.write_bytes(mask.read_bytes()[:-30])
    os.utime(mask, ns=(0, 0))
    output = checkout.snakemake(status=1)
    assert "FAILED finetune digits/net/apoz/layer/0.500/inherited/0" in output
    assert "results/masks/digits/net/apoz/layer/0.500.parquet cannot be read" in output
    assert "delete it and run again" in output
    assert len(list((checkout.path / "results" / "cells").rglob("metrics.json"))) == 5
    mask.unlink()
    checkout.snakemake()


def test_a_corrupted_store_is_named(checkout):
    shutil.rmtree(checkout.path / "results" / "cells" / "digits")
    images = checkout.path / "results/datasets/digits/images.npy"
    content = bytearray(images.read_bytes())
    for position in range(len(content) - 2000, len(content), 7):
        content[position] ^= 0xFF
    for position in range(500, len(content) - 2000, 501):
        content[position] ^= 0xFF
    images.write_bytes(content)
    os.utime(images, ns=(0, 0))
    output = checkout.snakemake(status=1)
    assert "results/datasets/digits/images.npy" in output


@pytest.mark.slow("a disk is filled by a run")
@needs_root
def test_a_full_disk_is_said_and_leaves_nothing_that_looks_finished(tmp_path, mounted):
    checkout = Checkout(tmp_path / "checkout", one_cell())
    mounted(checkout.path / "results", "size=64k")
    output = checkout.snakemake(status=1)
    assert "No space left on device" in output
    assert list((checkout.path / "results").rglob("metrics.json")) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(checkout.path / "results")], check=True)
    checkout.snakemake()


@needs_root
def test_results_that_cannot_be_written_are_named(tmp_path, mounted):
    checkout = Checkout(tmp_path / "checkout")
    mounted(checkout.path / "results", "size=64k,ro")
    output = checkout.snakemake(status=1)
    assert "Read-only file system" in output
    assert "results" in output


@pytest.mark.slow("a grid of its own is run")
@needs_root
def test_a_read_only_folder_of_images_and_a_path_with_spaces_and_unicode(tmp_path, mounted):
    images = mounted(tmp_path / "mes images à moi", "size=4m")
    for index, name in enumerate(("chat", "Füchse")):
        (images / name).mkdir()
        for number in range(12):
            Image.new("RGB", (20, 24), (index * 200, 20 * number, 0)).save(images / name / f"{number} é.png")
    subprocess.run(["mount", "-o", "remount,ro", str(images)], check=True)
    config = one_cell()
    config["datasets"]["digits"] = {
        "source": "folder",
        "path": str(images),
        "split": {"val": 0.2, "test": 0.3},
        "store_size": 8,
        "image_size": 8,
        "recipe": "quick",
    }
    checkout = Checkout(tmp_path / "a checkout, “quoted” it's" / "$HOME", config)
    checkout.snakemake()
    manifest = json.loads((checkout.path / "results/datasets/digits/manifest.json").read_text())
    assert manifest["classes"] == sorted(["chat", "Füchse"])
    assert checkout.planned() == set()


def test_a_bad_configuration_stops_before_any_job(checkout):
    config = checkout.config
    config["experiments"]["small"]["criteria"].append("apozz")
    checkout.configure(config)
    output = checkout.snakemake(status=1)
    assert "experiments.small.criteria: unknown criterion 'apozz' (did you mean 'apoz'?)" in output
    assert "Traceback" not in output


def test_a_download_that_fails_stops_its_job_and_says_what_to_do(tmp_path):
    config = copy.deepcopy(SMALL_GRID)
    config["datasets"]["digits"] = {
        "source": "flowers102",
        "store_size": 8,
        "image_size": 8,
        "recipe": "quick",
        "urls": {"setid.mat": str(tmp_path / "nowhere.mat")},
    }
    checkout = Checkout(tmp_path / "checkout", config)
    output = checkout.snakemake("results/downloads/digits/setid.mat", status=1)
    assert "FAILED download digits/setid.mat" in output
    assert "nowhere.mat does not exist" in output
    assert "put the file at" in output
    assert "output files are missing" not in output
