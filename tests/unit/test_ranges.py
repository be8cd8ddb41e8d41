"""More than 8 bits: which values become black and white, and that one code reads them for the store and for a model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import ranges
from winnow.data.preprocessing import Form, decode
from winnow.data.store import Store
from winnow.files import InputError, read_json
from winnow.workflow import config

from . import programs


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_cameras_bits_are_found(bits):
    values = np.random.default_rng(bits).uniform(0.1, 0.8, 5000) * (2**bits - 1)
    assert ranges.bounds(values, "integers") == (0, 2**bits - 1)


def test_a_dead_pixel_changes_no_range():
    values = np.random.default_rng(0).uniform(100, 3000, 20_000)
    values[:5] = 65_535
    assert ranges.bounds(values, "integers") == (0, 4095)


def test_thermal_counts_are_stretched_with_room_at_either_end():
    low, high = ranges.bounds(np.random.default_rng(0).uniform(29_000, 31_000, 20_000), "integers")
    assert 28_800 < low < 29_000
    assert 31_000 < high < 31_200


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.0, 1.0), (0, 1)), ((3.0, 250.0), (0, 255)), ((-1.0, 1.0), (-1.1, 1.1)), ((20.0, 20.5), (19.975, 20.525))],
)
def test_floating_point_is_of_a_scale_or_is_stretched(values, expected):
    found = ranges.bounds(np.linspace(*values, 100_001), "floats")
    assert found == pytest.approx(expected, abs=0.01 * (expected[1] - expected[0]))


def file(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("dtype", "kind", "scale"),
    [
        ("uint16", "PNG", 4095),
        ("uint16", "TIFF", 16383),
        ("uint16", "PPM", 65535),
        ("int32", "TIFF", 1023),
        ("float32", "TIFF", 1),
        ("float32", "TIFF", 65535),
    ],
)
def test_every_depth_becomes_the_picture_of_8_bits(dtype, kind, scale):
    shares = np.random.default_rng(0).uniform(0, 1, (40, 40))
    plain = decode(file(np.rint(shares * 255).astype(np.uint8), "PNG"), Form(40)).pixels
    pixels = (shares * scale).astype(dtype) if dtype == "float32" else np.rint(shares * scale).astype(dtype)
    form = Form(40, integers=(0, scale), floats=(0, scale))
    assert np.abs(decode(file(pixels, kind), form).pixels.astype(int) - plain).max() <= 1


def test_what_lies_outside_the_range_is_cut_off_and_what_is_no_number_is_black():
    pixels = np.array([[-5, 0, 1, 9], [np.nan, np.inf, -np.inf, 0.5]] * 2, dtype=np.float32)
    found = decode(file(pixels, "TIFF"), Form(4, floats=(0, 1))).pixels[:2, :, 0]
    assert found.tolist() == [[0, 0, 255, 255], [0, 255, 0, 128]]


def waves(root: Path, bits: int | None) -> Path:
    """Two textures of one mean, 20 images of each; in the lower bits of 16, or in 8."""
    y, x = np.mgrid[:32, :32]
    generator = np.random.default_rng(0)
    for label, name in enumerate(("across", "down")):
        (root / name).mkdir(parents=True)
        for number in range(20):
            phase = generator.uniform(0, 6)
            shares = np.sin((x if label else y) * 0.9 + phase) * 0.12 + 0.45 + generator.normal(0, 0.02, (32, 32))
            values = shares * (2**bits - 1)
            Image.fromarray(values.astype(np.uint8 if bits == 8 else np.uint16)).save(root / name / f"{number:02d}.png")
    return root


def stored(folder: Path, output: Path, **keys) -> Store:
    dataset = {"source": "folder", "path": str(folder), "store_size": 32, "image_size": 32} | keys
    programs.run("decode", {"name": "set", "dataset": dataset}, "--output", output)
    return Store.open(output)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_store_of_12_bits_is_that_of_8(tmp_path, bits):
    eight = stored(waves(tmp_path / "eight", 8), tmp_path / "a")
    more = stored(waves(tmp_path / "more", bits), tmp_path / "b")
    assert np.abs(eight.images.astype(int) - more.images).max() <= 1
    assert more.manifest["reading"]["integers"] == [0, 2**bits - 1]
    assert more.manifest["ranges"] == {"integers": {"bounds": [0, 2**bits - 1], "images": 40}}
    assert eight.manifest["reading"]["integers"] is None


def test_a_range_can_be_stated_and_official_test_and_validation_have_no_say_in_one_that_is_found(tmp_path):
    folder = waves(tmp_path / "images", 12)
    assert stored(folder, tmp_path / "a", range=[0, 8190]).manifest["reading"]["integers"] == [0, 8190]
    (folder / "train").mkdir()
    for kind in ("across", "down"):
        (folder / kind).rename(folder / "train" / kind)
        for part in ("test", "val"):
            (folder / part / kind).mkdir(parents=True)
            Image.fromarray(np.full((32, 32), 60_000, np.uint16)).save(folder / part / kind / "0.png")
    store = stored(folder, tmp_path / "b")
    assert store.manifest["ranges"]["integers"] == {"bounds": [0, 4095], "images": 40}


def test_gray_images_are_stored_gray(tmp_path):
    gray = stored(waves(tmp_path / "images", 12), tmp_path / "a", channels=1)
    color = stored(tmp_path / "images", tmp_path / "b")
    assert gray.images.shape == (40, 32, 32, 1)
    assert (gray.images == color.images[..., :1]).all()
    assert gray.path.stat().st_size < color.path.stat().st_size / 2.9


NETWORK = """
from torch import nn


def Gray(classes):
    body = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""


def test_a_network_of_one_channel_is_trained_exported_and_asked_with_the_range_of_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(NETWORK)
    from winnow.networks.factories import identity

    folder = waves(tmp_path / "images", 12)
    store = stored(folder, tmp_path / "store", channels=1)
    where = ["--dataset", store.directory, "--output", tmp_path / "store.parquet"]
    programs.run("split", {"dataset": {}, "fold": None}, *where)
    backbone = {"architecture": identity("mine.py:Gray"), "head": "classifier", "weights": "random"}
    backbone |= {"mean": [0.5], "std": [0.25]}
    programs.run("import_backbone", {"name": "net", "backbone": backbone, "digest": None}, "--output", tmp_path / "net")
    cell = {"dataset": "d", "backbone": "net", "criterion": "unpruned", "scope": "none", "ratio": 0.0, "round_to": None}
    cell |= {"init": "inherited", "seed": 0, "protocol": "one_shot"}
    recipe = config.Recipe(epochs=8, batch_size=4, learning_rate=0.05).model_dump()
    spec = {"cell": cell, "recipe": recipe | {"augmentation": {"scale": [0.9, 1.0], "ratio": [0.9, 1.1], "flip": True}}}
    files = programs.cell(tmp_path / "cell")
    programs.run(
        "finetune", spec, *programs.dataset(store.directory), "--backbone", tmp_path / "net", "--output", *files
    )
    assert read_json(tmp_path / "cell" / "metrics.json")["accuracy"] == 1.0
    programs.run(
        "export",
        {"code": "0"},
        "--cell",
        tmp_path / "cell",
        *programs.dataset(store.directory),
        "--output",
        tmp_path / "out",
    )
    model = json.loads((tmp_path / "out" / "model.json").read_text())
    assert model["reading"] == store.manifest["reading"]
    assert model["onnx"]["input"]["shape"] == ["batch", 1, 32, 32]
    # predict.py's pixels are the store's, and so are the answers.
    form = Form.of(model["store_size"], model["reading"])
    files = sorted(folder.rglob("*.png"))
    squares = np.stack([decode(path.read_bytes(), form).pixels for path in files])
    assert (squares == store.images).all()
    for options in ([], ["--onnx"]):
        programs.run("predict", None, tmp_path / "out", folder, *options, "--output", tmp_path / "answers.csv")
        answers = [line.split(",")[:2] for line in (tmp_path / "answers.csv").read_text().splitlines()[1:]]
        assert all(name.startswith(answer) for name, answer in answers)


def test_a_gray_backbone_needs_gray_images():
    raw = {
        "targets": ["x"],
        "datasets": {"d": {"source": "folder", "path": "p", "store_size": 8, "image_size": 8, "recipe": "r"}},
        "backbones": {"b": {"architecture": "vgg_digits", "weights": "random", "mean": [0.5], "std": [0.5]}},
        "recipes": {"r": {"epochs": 1, "batch_size": 1, "learning_rate": 1}},
        "experiments": {
            "x": {
                "datasets": ["d"],
                "backbones": ["b"],
                "criteria": ["apoz"],
                "scopes": ["layer"],
                "ratios": [0],
                "seeds": [0],
            }
        },
    }
    with pytest.raises(InputError, match=r"b takes gray images, d is stored in RGB: set datasets\.d\.channels to 1"):
        config.load(raw)
    raw["datasets"]["d"]["channels"] = 1
    config.load(raw)
    raw["backbones"]["b"]["std"] = [0.5, 0.5]
    with pytest.raises(InputError, match="mean has 1 values and std 2: allowed are three each, or one each"):
        config.load(raw)
