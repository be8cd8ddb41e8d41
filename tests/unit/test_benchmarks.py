"""Benchmarks run: each on a network so small that its figures mean nothing."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from winnow.data import preprocessing
from winnow.networks import backbones, models
from winnow.workflow import costs, grid

from . import tiny

pytestmark = pytest.mark.slow("benchmarks are run, small ones")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark in this process and return what it prints."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    # A machine's threads are the process's, which has other tests to run.
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)

    def run(name, *arguments):
        for loaded in (name, "paired"):
            monkeypatch.delitem(sys.modules, loaded, raising=False)
        module = importlib.import_module(name)
        # Their names are plain words: no other test is to find them.
        for loaded in (name, "paired", "copies", "demo", "front_door"):
            sys.modules.pop(loaded, None)
        module.main(module.parser().parse_args(arguments))
        return capsys.readouterr().out

    return run


def test_latency(run):
    text = run("latency", "--architecture", "vgg_digits", "--size", "8", "--ratios", "0.4", "--precision", "fp32")
    assert text.count("/ MAC reduction") == 8
    assert "global, ratio 0.4, round_to 16" in text


def test_layers(run):
    text = run("layers", "--architecture", "vgg_digits", "--size", "8", "--repeats", "2", "--precision", "fp32")
    assert "all else: " in text


def test_statistics(run):
    text = run("statistics_pass", "--architecture", "vgg_digits", "--size", "8", "--repeats", "1")
    assert "statistics / plain forward: " in text


def test_sharing():
    command = [sys.executable, ROOT / "benchmarks/sharing.py", "--device", "cpu", "--processes", "1"]
    text = subprocess.run([*command, "--seconds", "0.1"], capture_output=True, text=True, check=True).stdout
    said = [line.split(":")[0] for line in text.splitlines()]
    assert said == ["1 processes, kernel by kernel", "1 processes, recorded"]


def test_repair(run):
    text = run("repair", "--architecture", "vgg_digits", "--size", "8", "--repeats", "1")
    assert "moments / plain forward: " in text
    assert "compensation of a cell: " in text


def test_side_by_side(run):
    small = ("--architecture", "vgg_digits", "--size", "8", "--cells", "2", "--epochs", "1", "--images", "8")
    text = run("side_by_side", *small, "--repeats", "1")
    assert "threads: [1]" in text
    assert "side by side / one at a time: " in text


def test_surgery(run):
    text = run("surgery", "--architecture", "vgg_digits", "--repeats", "1")
    assert "Torch-Pruning / mask + surgery: " in text


def test_training(run, tmp_path):
    small = ("--architecture", "vgg_digits", "--size", "8", "--batch", "4", "--repeats", "1", "--threads", "1")
    assert "bare step / training" in run("training", "bare", *small)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8)
    for split in ("train", "val", "test"):
        for name, image in zip(("a", "b"), pixels, strict=True):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / split / name / "one.png")
    text = run("training", "conventional", "--images", str(tmp_path), "--precision", "bf16", *small)
    assert "conventional loop / ours, one cell end to end, 1 epochs, bf16: " in text
    assert "ours / its arithmetic and one decoding, 1 epochs, bf16: " in text


def test_training_of_a_network_that_is_no_vgg_rounded(run):
    small = ("--size", "32", "--batch", "2", "--repeats", "1", "--threads", "1", "--precision", "fp32")
    text = run("training", "bare", "--architecture", "squeezenet1_1", "--round-to", "8", *small)
    assert "squeezenet1_1 at 0.4, kept counts a multiple of 8, batch 2, 32 pixels, fp32" in text
    assert "bare step / training" in text


def test_what_breaks_in_one_section_of_the_gpu_check_is_recorded_and_the_others_run(run, tmp_path):
    output = tmp_path / "gpu.json"
    options = ("--device", "cpu", "--small", "--seconds", "4600", "--output", str(output))
    sections = ("conventional", "statistics", "latency", "recorded")
    text = run("gpu", *options, "--photos", str(tmp_path / "none"), "--only", *sections)
    found = json.loads(output.read_text())
    assert {name: part["status"] for name, part in found["sections"].items()} == {
        "recorded": "done",
        "statistics": "done",
        "conventional": "failed with status 1",
        "latency": "done",
    }
    assert str(tmp_path / "none") in "\n".join(found["sections"]["conventional"]["log"])
    figure = found["sections"]["statistics"]["figures"][0]
    ratio = figure["pairs"][0][0] / figure["pairs"][0][1]
    assert (figure["name"], figure["value"]) == ("statistics / plain forward", ratio)
    assert figure["met"] == (ratio <= 1.1)
    assert len(found["sections"]["latency"]["figures"]) == 12
    assert found["machine"]["torch"] == torch.__version__
    assert "layer, round_to 8, batch 1, fp32: speed-up / MAC reduction" in text


def test_a_section_of_the_gpu_check_ends_with_its_time(run, tmp_path):
    output = tmp_path / "gpu.json"
    run("gpu", "--device", "cpu", "--small", "--seconds", "12", "--output", str(output), "--only", "latency")
    latency = json.loads(output.read_text())["sections"]["latency"]
    assert latency["status"] in ("out of time", "no time left")


def test_sums(run, tmp_path):
    text = run("sums", "--classes", "3", "--filters", "600", "--repeats", "1", "--folder", str(tmp_path))
    assert "apoz, 3 classes x 600 filters, " in text


def test_predicting(run, tmp_path):
    text = run("predicting", str(tiny.write(tmp_path / "model.onnx")), "--images", "3", "60")
    assert [line.split()[:2] for line in text.splitlines()] == [["3", "photographs:"], ["60", "photographs:"]]


def test_regression(run):
    text = run("regression", "--images", "30", "--features", "12", "--classes", "3", "--repeats", "1")
    assert "scikit-learn / ours, 30 images x 12 features x 3 classes: " in text


def test_costs(run):
    names = "squeezenet1_1", "timm/lcnet_050"
    known = {**costs._MEASURED, **costs._OF_TIMM}
    assert run("costs", *names).splitlines() == [f'"{name}": {known[name]},' for name in names]


def test_what_timms_networks_cost_is_known_of_all_that_are_documented(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    architectures = importlib.import_module("architectures")
    del sys.modules["architectures"]
    assert set(costs._OF_TIMM) == {f"timm/{name}" for name in architectures.TIMM}


def test_promise(run, tmp_path, monkeypatch):
    images, folder = tmp_path / "images", tmp_path / "0"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 20, 20, 3), np.uint8)
    for kind, name in enumerate(("cats", "dogs")):
        for number, image in enumerate(pixels[kind]):
            path = images / "train" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    front_door = importlib.import_module("front_door")
    monkeypatch.setattr(front_door, "PHOTOGRAPHS", 4)
    front_door.draw(str(images), folder / "photos", 0)
    description = {
        **{"architecture": "vgg_digits", "head": "gap", "classes": ["kind_0", "kind_1"], "store_size": 8},
        **{"reading": preprocessing.Form(8).reading, "image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3},
        "preprocessing": [],
    }
    results = folder / "checkout/results"
    cell = grid.parse_path("photos/net/taylor/global/0.400/inherited/0")
    # The one answers with a class always, the other one with the other: half of the photographs are of each.
    for network, side in ((cell, 0), (cell.baseline, 1)):
        for seed in (1, 2):
            built = backbones.initialised("vgg_digits", "gap", 2, 0)
            last = [part for part in built.modules() if isinstance(part, torch.nn.Linear)][-1]
            torch.nn.init.zeros_(last.weight)
            last.bias.data = torch.eye(2)[side]
            place = (results / "models" / network.path).parent / str(seed)
            place.mkdir(parents=True)
            models.save(place, built, description)
    answer = {"verdict": "holds", "chosen": {"cell": cell.path, "ratio": 0.4, "drop": 0.0, "low": -0.01, "high": 0.01}}
    told = results / "experiments/photos/recommendation.json"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps({"answer": [answer]}))
    text = run("promise", "--images", str(images), str(folder))
    assert "holds, ratio 0.4, drop 0.0 (-1.0 to 1.0); of 8 others 0.0 with 2 trainings (0.0, 0.0), 50.0 % right" in text
    assert text.endswith("within\n")
    # Without the dogs that were not drawn the one that says cats is always right.
    for path in (images / "train/dogs").glob("*.jpg"):
        if not list(folder.glob(f"photos/kind_1/dogs_{path.name}")):
            path.unlink()
    text = run("promise", "--images", str(images), str(folder))
    assert "of 4 others -100.0 with 2 trainings" in text
    assert text.endswith("OUTSIDE\n")
    for path in results.glob("models/**/model.safetensors"):
        path.unlink()
    with pytest.raises(SystemExit, match="has no networks"):
        run("promise", "--images", str(images), str(folder))
