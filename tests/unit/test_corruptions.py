"""Corruptions of images, and what networks lose on them."""

import io

import numpy as np
import pytest
from PIL import Image

from winnow.answers import intervals
from winnow.data import corruptions
from winnow.data.corruptions import CORRUPTIONS, corrupt
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import prediction, robustness
from winnow.files import InputError

from . import programs, tiny


def squares(count, side, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_corrupted_alike_whatever_is_beside_it(name, channels):
    images, rows = squares(6, 40, channels), np.array([3, 17, 4, 900, 5, 6])
    before = images.copy()
    whole = corrupt(name, images, rows, 32)
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8
    assert (images == before).all()
    for place in (0, 3, 5):
        alone = corrupt(name, images[place : place + 1], rows[place : place + 1], 32)
        assert (alone[0] == whole[place]).all()
        assert (whole[place] != images[place]).any()
    if name in ("noise", "crop"):
        again = corrupt(name, images, rows + 1, 32)
        assert (again != whole).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(("size", "sigma"), [(64, 0.08), (65, 0.18), (224, 0.18)])
def test_noise_is_as_strong_as_it_says(size, sigma):
    gray = np.full((4, size, size, 3), 128, np.uint8)
    noise = corrupt("noise", gray, np.arange(4), size) / 255 - 128 / 255
    # What is cut off at 0 and 1 is 0.5 % of the strong noise.
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean()) < 0.003


def test_a_blur_spreads_a_point_by_its_width_and_keeps_its_light():
    point = np.zeros((1, 224, 224, 1), np.uint8)
    point[0, 106:119, 106:119] = 255
    blurred = corrupt("blur", point, np.array([0]), 224)[0, :, :, 0] / 255
    along, place = blurred.sum(axis=0), np.arange(224)
    variance = (along * (place - 112) ** 2).sum() / along.sum()
    assert variance == pytest.approx(3.0**2 + (13**2 - 1) / 12, rel=0.01)
    assert blurred.sum() == pytest.approx(169, rel=0.01)
    # Of a small image by less, and an even one stays even up to its edge.
    even = np.full((1, 32, 32, 3), 77, np.uint8)
    assert (corrupt("blur", even, np.array([0]), 32) == 77).all()


def test_brightness_raises_the_value_and_keeps_the_hue():
    colors = np.array([[[[100, 50, 0], [0, 0, 0], [250, 125, 0]]]], np.uint8)
    bright = corrupt("brightness", colors, np.array([0]), 224)[0, 0]
    assert bright.tolist() == [[176, 88, 0], [76, 76, 76], [255, 128, 0]]
    small = corrupt("brightness", colors, np.array([0]), 32)[0, 0]
    assert small[0].tolist() == [138, 69, 0]


@pytest.mark.parametrize(("size", "quality"), [(32, 58), (224, 15)])
def test_jpeg_is_of_the_quality_that_it_says(size, quality):
    images = squares(1, size)
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, format="JPEG", quality=quality)
    assert (corrupt("jpeg", images, np.array([0]), size)[0] == np.asarray(Image.open(buffer))).all()


def test_a_crop_is_a_window_of_the_square_anywhere_in_it():
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 200, 3))[None]
    across = ramp.transpose(0, 2, 1, 3)[:, :3].repeat(67, axis=1)[:, :200]
    starts = []
    for row in range(60):
        found = corrupt("crop", ramp, np.array([row]), 224)[0, :, 0, 0].astype(int)
        assert found[-1] - found[0] == pytest.approx(149, abs=2)
        starts.append(found[0])
        sideways = corrupt("crop", across, np.array([row]), 224)[0, 0, :, 0].astype(int)
        assert sideways[-1] - sideways[0] == pytest.approx(149, abs=2)
    assert min(starts) < 8
    assert max(starts) > 42


@pytest.fixture
def place(tmp_path):
    """A store of plain colors, and networks of which the second takes some for red."""
    generator = np.random.default_rng(0)
    colors = np.array([[60, 60, 160], [60, 160, 60], [160, 60, 60]])
    labels = np.repeat(np.arange(3), 40)
    pixels = np.clip(colors[labels][:, None, None] + generator.normal(0, 20, (120, 16, 16, 3)), 0, 255)
    programs.stored(tmp_path / "store", pixels.astype(np.uint8), labels.tolist(), ["train", "test"] * 60)
    classes = list("pqr")
    tiny.write(tmp_path / "unpruned" / "model.onnx", classes)
    weights = tiny.BY_COLOR.copy()
    weights[2] *= 2.6
    tiny.write(tmp_path / "export" / "model.int8.onnx", classes, tiny.BY_COLOR)
    tiny.write(tmp_path / "export" / "model.onnx", classes, weights)
    return tmp_path


def test_networks_are_compared_on_the_same_corrupted_test_images(place, monkeypatch):
    store = Store.open(place / "store")
    split = Split.open(place / "store.parquet", store)
    found = robustness.measured(place / "unpruned" / "model.onnx", place / "export", store, split, 1)
    assert [each["file"] for each in found["networks"]] == ["model.onnx", "model.onnx", "model.int8.onnx"]
    assert (found["images"], found["test_images"]) == (60, 60)
    assert [each["name"] for each in found["corruptions"]] == ["none", *CORRUPTIONS]
    # By hand, an image at a time.
    unpruned, smaller = (prediction.load(place / name / "model.onnx") for name in ("unpruned", "export"))
    rows = split.rows("test")
    images = corruptions.corrupt("noise", store.read(rows), rows, 12)
    right = [
        np.array([model.probabilities(image[None]).argmax() for image in images]) == store.labels[rows]
        for model in (unpruned, smaller)
    ]
    noisy = next(each for each in found["corruptions"] if each["name"] == "noise")
    assert noisy["accuracy"] == pytest.approx([right[0].mean(), right[1].mean(), right[0].mean()])
    assert right[1].mean() < right[0].mean()
    expected = intervals.paired_interval(right[0][None], right[1][None])
    assert noisy["drops"][0] == pytest.approx(expected._asdict())
    assert noisy["drops"][1]["drop"] == 0
    # Some of many images, of all classes.
    monkeypatch.setattr(robustness, "IMAGES", 9)
    few = robustness.measured(place / "unpruned" / "model.onnx", place / "export", store, split, 1)
    assert (few["images"], few["test_images"]) == (9, 60)
    assert few["corruptions"][0]["accuracy"][0] == 1


def test_a_network_of_other_classes_is_named(place):
    store = Store.open(place / "store")
    tiny.write(place / "export" / "model.onnx", list("abc"))
    with pytest.raises(InputError, match=r"export/model\.onnx does not tell the classes of .*store"):
        robustness.measured(
            *(place / "unpruned" / "model.onnx", place / "export", store),
            *(Split.open(place / "store.parquet", store), 1),
        )
