"""Benchmarks run: each on a network so small that its figures mean nothing."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
        del sys.modules[name], sys.modules["paired"]
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
    assert "conventional loop / ours" in run("training", "conventional", "--images", str(tmp_path), *small)
