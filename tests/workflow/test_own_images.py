"""Somebody's own images: one command, from a folder to a verdict, a report and a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from .checkout import ROOT, Checkout

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture
def photos(tmp_path) -> Path:
    """60 images of each of three digits, in a folder a class."""
    folder = tmp_path / "my photos"
    digits = load_digits()
    for digit in (5, 6, 7):
        (folder / str(digit)).mkdir(parents=True)
        for number in np.flatnonzero(digits.target == digit)[:60]:
            pixels = (digits.images[number] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24)).save(folder / str(digit) / f"{number}.png")
    return folder


def make(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess:
    """The Makefile's command, with this interpreter for an installed .venv."""
    command = ["make", "-o", "install", "run", f"BIN={Path(sys.executable).parent}", "CORES=2", *arguments]
    return subprocess.run(
        command, cwd=checkout.path, env=checkout.environment(), capture_output=True, text=True, timeout=500
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_folder_of_images_becomes_a_verdict_a_report_and_a_model(tmp_path, photos):
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    shutil.copy2(ROOT / "Makefile", checkout.path)
    arguments = (f"DATA={photos}", "BACKBONE=vgg_digits")

    # The defaults are written first; a user changes some, for less to train.
    names = subprocess.run(
        [sys.executable, "scripts/configure.py", photos, "--backbone", "vgg_digits"],
        cwd=checkout.path,
        env=checkout.environment(),
        capture_output=True,
        text=True,
    )
    assert names.stdout == "my_photos\n", names.stderr
    own = checkout.path / "own" / "my_photos.yaml"
    text = own.read_text()
    for old, new in [("epochs: 60", "epochs: 3"), ("[0.2, 0.4, 0.6, 0.8]", "[0.4]"), ("[0, 1, 2, 3, 4]", "[0, 1]")]:
        assert old in text
        text = text.replace(old, new)
    own.write_text(text)

    done = make(checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "How small can it be?" in done.stdout
    assert "My photos, vgg_digits: " in done.stdout
    for made in ("report.html", "models/my_photos-vgg_digits"):
        assert f"results/experiments/my_photos/{made}" in done.stdout
        assert (checkout.path / "results/experiments/my_photos" / made).exists()

    model = checkout.path / "results/experiments/my_photos/models/my_photos-vgg_digits"
    assert json.loads((model / "model.json").read_text())["classes"] == ["5", "6", "7"]
    answer = subprocess.run(
        [
            sys.executable,
            checkout.path / "scripts/predict.py",
            model,
            photos,
            "--onnx",
            "--output",
            tmp_path / "out.csv",
        ],
        env=checkout.environment(),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 181

    # Once more there is nothing to do, and the edited file is as it was.
    again = make(checkout, *arguments)
    assert again.returncode == 0, again.stderr
    assert "How small can it be?" in again.stdout
    assert own.read_text() == text
    # Another backbone is another study, which has to be said.
    refused = make(checkout, f"DATA={photos}", "BACKBONE=vgg11")
    assert refused.returncode != 0
    assert "give another name" in refused.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_in_a_hurry_the_same_grid_is_screened(tmp_path, photos):
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    shutil.copy2(ROOT / "Makefile", checkout.path)
    arguments = (f"DATA={photos}", "BACKBONE=vgg_digits", "QUICK=1")
    command = [sys.executable, "scripts/configure.py", photos, "--backbone", "vgg_digits", "--quick"]
    subprocess.run(command, cwd=checkout.path, env=checkout.environment(), check=True, capture_output=True)
    own = checkout.path / "own" / "my_photos.yaml"
    text = own.read_text()
    changes = [("epochs: 60", "epochs: 4"), ("[0.2, 0.4, 0.6, 0.8]", "[0.4]"), ("latency: true", "latency: false")]
    for old, new in [*changes, ("[0, 1, 2, 3, 4]", "[0, 1]")]:
        assert old in text
        text = text.replace(old, new)
    own.write_text(text)

    done = make(checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout[done.stdout.index("How small can it be?") :].split())
    # Of 3 criteria one is left: 4 short trainings, 3 longer ones, and 2 x 2 of 2 x 5 in full.
    assert "Screened: of 3 networks, short trainings chose the 1 that were trained in full: 65 % of the whole" in said
    assert (checkout.path / "results/experiments/my_photos/models/my_photos-vgg_digits/model.onnx").exists()
    own.write_text(text.replace("screening: true", "screening: false"))
    refused = make(checkout, *arguments)
    assert refused.returncode != 0
    assert "has no screening: true" in refused.stderr


def test_make_run_without_data_says_what_it_needs(tmp_path):
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    shutil.copy2(ROOT / "Makefile", checkout.path)
    done = make(checkout)
    assert done.returncode != 0
    assert "make run DATA=folder" in done.stderr
