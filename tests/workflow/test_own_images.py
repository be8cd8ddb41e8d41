"""Somebody's own images: one command, from a folder to a verdict, a report and a model."""

from __future__ import annotations

import json
import re
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

pytestmark = pytest.mark.slow("images become verdict, report and model by whole grids")

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
    # So few images, and so much that they may cost, that one round of trainings answers.
    for folder in photos.iterdir():
        for image in sorted(folder.iterdir())[15:]:
            image.unlink()
    checkout = Checkout(tmp_path / "checkout", CONFIG | {"tolerance": 90})
    shutil.copy2(ROOT / "Makefile", checkout.path)
    arguments = (f"DATA={photos}", "BACKBONE=vgg_digits")

    # Nothing is prepared, and no file is edited.
    done = make(checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    # What so few images can tell is said before any of them is trained on, and what it takes at most.
    promised = "my_photos: 9 test images: no drop below "
    assert promised in done.stderr
    assert (
        "my_photos: 16 short trainings choose, then two networks and the unpruned one are trained 3 times each, and "
        "more where that is not enough; " in done.stderr
    )
    assert re.search(r"cells 1/\d+, .* so far, about .* left", done.stderr)
    # On one screen, when it is decoded, and before the answer.
    screen = done.stdout.partition("How small can it be?")[0]
    assert "45 images of 3 classes: 27 train, 9 val, 9 test\n  5: 15: 9 train, 3 val, 3 test\n" in screen
    assert promised in screen
    own = checkout.path / "own" / "my_photos.yaml"
    text = own.read_text()
    first_lines = " ".join(re.search(r"How small can it be\?\n(.*?)\n\n", done.stdout, re.DOTALL)[1].split())
    assert "My photos, vgg_digits: " in done.stdout
    for made in ("report.html", "models/my_photos-vgg_digits"):
        assert f"results/experiments/my_photos/{made}" in done.stdout
        assert (checkout.path / "results/experiments/my_photos" / made).exists()

    model = checkout.path / "results/experiments/my_photos/models/my_photos-vgg_digits"
    assert json.loads((model / "model.json").read_text())["classes"] == ["5", "6", "7"]
    assert ", which short trainings had found, seed" in (model / "README.md").read_text()
    assert (model / "README.md").read_text().split("\n\n")[1] == first_lines
    page = (checkout.path / "results/experiments/my_photos/report.html").read_text()
    assert page.index('<h2 id="answer">') < page.index('<h2 id="images">') < page.index('<h2 id="verdict">')
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
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 46

    # Once more there is nothing to do, and the file, which now is the user's, is as it was.
    again = make(checkout, *arguments)
    assert again.returncode == 0, again.stderr
    assert "How small can it be?" in again.stdout
    assert own.read_text() == text
    # Another backbone is another study, which has to be said.
    refused = make(checkout, f"DATA={photos}", "BACKBONE=vgg11")
    assert refused.returncode != 0
    assert "give another name" in refused.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_within_a_budget_the_best_is_looked_for(tmp_path, photos):
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    shutil.copy2(ROOT / "Makefile", checkout.path)
    arguments = (f"DATA={photos}", "BACKBONE=vgg_digits", "BUDGET=30 kparams")
    command = [sys.executable, "scripts/configure.py", photos, "--backbone", "vgg_digits", "--budget", "30 kparams"]
    subprocess.run(command, cwd=checkout.path, env=checkout.environment(), check=True, capture_output=True)
    own = checkout.path / "own" / "my_photos.yaml"
    promised = "my_photos: 180 images in 5 folds: no drop below 2.6 to 3.9 points can be told from none. "
    assert promised in checkout.snakemake("-n", "my_photos", "--configfile", str(own))
    text = own.read_text()
    changes = [
        ("epochs: 28", "epochs: 4"),
        ("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]", "[0.2, 0.4]"),
        ("tolerance: 2", "tolerance: 70"),
        # So that two are within it.
        ("criteria: [taylor]", "criteria: [average_weight, mean_activation, taylor]"),
        ("scopes: [global_normalized]", "scopes: [layer]"),
        ("latency: true", "latency: false"),
    ]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    own.write_text(text)

    done = make(checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout[done.stdout.index("How small can it be?") :].split())
    assert re.search(r"it takes 2\d\.\d k parameters; of those that take 30\.0 k parameters or less validation", said)
    # Each of 3 criteria and 2 ratios for a fourth of the epochs, the better half for half of them.
    assert "6 networks were compared on validation images, by 12 short trainings" in said
    assert (checkout.path / "results/experiments/my_photos/models/my_photos-vgg_digits/model.onnx").exists()
    refused = make(checkout, *arguments[:2], "BUDGET=3 ms")
    assert refused.returncode != 0
    assert "says budget: {'params': 30000}, and --budget (BUDGET= of make) asks for {'latency_ms': 3}" in refused.stderr


def test_a_network_that_never_says_the_rare_class_fails_and_the_class_is_named_first(tmp_path):
    # Who answers the first always is right in 5 of 6; of so small an image nobody can tell the other.
    generator = np.random.default_rng(0)
    for name, count in (("ok", 100), ("defect", 20)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(generator.normal(120, 45, (20, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "parts" / name / f"{number}.png")
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    command = [sys.executable, "scripts/configure.py", tmp_path / "parts", "--backbone", "vgg_digits"]
    subprocess.run(command, cwd=checkout.path, env=checkout.environment(), check=True, capture_output=True)
    own = checkout.path / "own" / "parts.yaml"
    text = own.read_text()
    for old, new in [
        ("epochs: 40", "epochs: 4"),
        ("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]", "[0.4]"),
        ("latency: true", "latency: false"),
        # As many of each in an epoch, and the networks do say it now and then.
        ("sampling: balanced", "sampling: uniform"),
    ]:
        assert old in text
        text = text.replace(old, new)
    own.write_text(text)
    checkout.snakemake("parts", "--configfile", "own/parts.yaml")
    answer = json.loads((checkout.path / "results/experiments/parts/recommendation.json").read_text())
    assert answer["lines"][0].startswith("Parts, vgg_digits: FAILS: the class “defect” is lost.")
    (told,) = answer["answer"]
    assert (told["verdict"], told["chosen"]["lost_classes"]) == ("fails", ["defect"])
    # One round of the folds shows it; no more is trained.
    assert told["trainings"] == 10


def test_make_run_without_data_says_what_it_needs(tmp_path):
    checkout = Checkout(tmp_path / "checkout", CONFIG)
    shutil.copy2(ROOT / "Makefile", checkout.path)
    done = make(checkout)
    assert done.returncode != 0
    assert "make run DATA=folder" in done.stderr
