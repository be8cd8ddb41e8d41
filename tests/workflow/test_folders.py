"""Folders of kinds that people have, to a verdict and a model that reads files as the store did."""

from __future__ import annotations

import io
import json
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import preprocessing
from winnow.data.store import Store
from winnow.tables import read_table

from .checkout import SMALL_GRID, Checkout

pytestmark = pytest.mark.slow("a grid is run for each kind of folder")

KINDS = ("train_val_only", "csv", "heic", "gray_12_bit")


def picture(label: int, seed: int) -> np.ndarray:
    """Stripes across or down, under noise, (24, 24, 3) uint8."""
    y, x = np.mgrid[:24, :24]
    generator = np.random.default_rng((label, seed))
    waves = np.sin((x if label else y) * 0.8 + generator.uniform(0, 6)) * 60 + 120
    return np.clip(waves[..., None] + generator.normal(0, 25, (24, 24, 3)), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, quality=95)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    rows = ["file,label"]
    for label, name in enumerate(("across", "down")):
        for number in range(16):
            image = Image.fromarray(picture(label, number))
            part = "Train" if number < 10 else "valid"
            write(root / "train_val_only" / "data" / part / name / f"{number}.jpg", encoded(image, "JPEG"))
            write(root / "csv" / "photos" / f"{name[0]}{number}.png", encoded(image, "PNG"))
            rows.append(f"{name[0]}{number},{name}")
            write(root / "heic" / name / f"IMG_{number}.HEIC", encoded(image, "HEIF"))
            deep = Image.fromarray((picture(label, number)[..., 0].astype(np.uint16) * 16) + number)
            write(root / "gray_12_bit" / name / f"{number}.tif", encoded(deep, "TIFF"))
        write(root / "heic" / name / "IMG_99.HEIC", b"\0\0\0\x18ftypheic" + bytes(64))
    (root / "csv" / "labels.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def ran(tmp_path_factory, folders) -> Checkout:
    config = json.loads(json.dumps(SMALL_GRID))
    config["datasets"] = {
        name: {"source": "folder", "path": str(folders / name), "store_size": 12, "image_size": 8, "recipe": "quick"}
        for name in KINDS
    }
    config["recipes"]["quick"]["epochs"] = 4
    config["experiments"]["small"] |= {"datasets": list(KINDS), "criteria": ["apoz"], "seeds": [0, 1]}
    checkout = Checkout(tmp_path_factory.mktemp("run") / "checkout", config)
    checkout.run("small", "results/experiments/small/models")
    return checkout


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_becomes_a_verdict_and_a_model_that_reads_its_files_to_the_last_bit(ran, folders, kind):
    recommendation = json.loads((ran.path / "results/experiments/small/recommendation.json").read_text())
    assert {row["dataset"] for row in recommendation["verdicts"]} >= {kind}
    model = ran.path / "results/experiments/small/models" / f"{kind}-net"
    said = json.loads((model / "model.json").read_text())
    assert said["classes"] == ["across", "down"]
    store = Store.open(ran.path / "results/datasets" / kind)
    assert said["reading"] == store.manifest["reading"]
    # By the library's code, which predict.py runs, and by that which goes along with the model.
    exported = types.SimpleNamespace(**runpy.run_path(str(model / "preprocessing.py")))
    for code in (preprocessing, exported):
        form = code.Form.of(said["store_size"], said["reading"])
        for row in read_table(store.directory / "index.parquet", "index").to_pylist():
            pixels = code.decode((folders / kind / row["file"]).read_bytes(), form).pixels
            assert (pixels == store.images[row["image"]]).all()
    assert said["reading"]["integers"] == ([0, 4095] if kind == "gray_12_bit" else None)
    assert said["skipped"] == (2 if kind == "heic" else 0)
    assert ("2 of 34 files could not be read" in (model / "README.md").read_text()) == (kind == "heic")


@pytest.mark.parametrize("kind", KINDS)
def test_the_front_door_takes_it_without_a_file_edited(ran, folders, kind):
    command = [sys.executable, "scripts/configure.py", folders / kind, "--name", f"own_{kind}", "--backbone", "net"]
    done = subprocess.run(command, cwd=ran.path, env=ran.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "32 images of 2 classes" in done.stderr
    assert ("2 of 34 files cannot be read" in done.stderr) == (kind == "heic")
    done = subprocess.run(
        [sys.executable, "scripts/describe.py", "--dataset", f"results/datasets/{kind}"],
        cwd=ran.path,
        env=ran.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "32 images of 2 classes: " in done.stdout
    assert re.search(rf"^{kind}: \d+ test images: no drop below ", done.stdout, re.MULTILINE)
    assert ("0 … 4095 become 0 … 255, found over 32 images" in done.stdout) == (kind == "gray_12_bit")
