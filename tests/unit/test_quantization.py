"""int8 files: what they are made of, that they are worth what floating point is, and that bad ones are not exported."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import timm.layers
import torch
from torch import nn

from winnow.exports import cards, graphs, prediction, quantization
from winnow.files import read_json

from .test_export import exported, made  # noqa: F401 - a fixture


def sabotaged(monkeypatch, share):
    """Let one image calibrate, and that at a share of its brightness."""
    real = quantization._Reader._read

    def read(store, rows, description):
        (batch,) = real(store, rows[:1], description)
        yield {name: share * images for name, images in batch.items()}

    monkeypatch.setattr(quantization._Reader, "_read", staticmethod(read))


def test_an_int8_file_is_quantized_channel_by_channel_and_its_relus_are_in_the_ranges(made):  # noqa: F811
    model = onnx.load(made / "export" / "model.int8.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import if not each.domain] == [("", 13)]
    assert model.ir_version <= 8
    kinds = [node.op_type for node in model.graph.node]
    assert not {"Relu", "Clip"} & set(kinds)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert layers
    for layer in layers:
        images, weights = (made_by[name] for name in layer.input[:2])
        stored, scale = constants[weights.input[0]], constants[weights.input[1]]
        assert stored.dtype == "int8"
        assert scale.shape == stored.shape[:1]
        # 7 bits, so that two products fit into 16 with any processor.
        assert abs(stored.astype(int)).max() <= 64
        assert constants[images.input[2]].dtype == "uint8"


def test_an_int8_file_says_what_the_others_say_and_is_read_like_them(made):  # noqa: F811
    export = made / "export"
    int8, onnx_file = prediction.load(export / "model.int8.onnx"), prediction.load(export, onnx=True)
    for name in ("classes", "form", "image_size", "mean", "std", "runtime"):
        assert getattr(int8, name) == getattr(onnx_file, name)
    said = read_json(export / "model.json")["int8"]
    assert said["calibration"] == 15
    assert said["decided_on"] == {"part": "val", "images": 12}
    assert [each["images"] for each in said["latency"]] == [1, 32]
    for each in said["latency"]:
        assert each["pairs"] >= 5
        assert each["int8_ms"]["median"] > 0 < each["fp32_ms"]["median"]
    card = (export / "README.md").read_text()
    assert "`model.int8.onnx` has" in card
    assert "a scale a channel, 7 bits of each weight, ranges measured on 15 training images." in card
    assert "What rounding the weights adds on average is taken off the biases." in card


def test_a_calibration_by_one_image_of_the_wrong_range_is_caught_and_not_exported(made, tmp_path, monkeypatch):  # noqa: F811
    sabotaged(monkeypatch, 0.01)
    exported(made, tmp_path / "export")
    assert not (tmp_path / "export" / "model.int8.onnx").exists()
    model = read_json(tmp_path / "export" / "model.json")
    tried = model["int8"]["tried"]
    assert [each["scheme"] for each in tried] == [scheme.name for scheme in quantization.SCHEMES]
    assert all(each["lost"] > 1 for each in tried)
    assert "model.int8.onnx" not in {each["file"] for each in model["certificates"]}
    card = (tmp_path / "export" / "README.md").read_text()
    assert "There is no int8 file: it loses more than 0.5 points on the images that decide" in card
    assert "model.int8.onnx" not in card


def test_what_the_deciding_images_do_not_show_the_test_images_do(made, tmp_path, monkeypatch):  # noqa: F811
    sabotaged(monkeypatch, 0.01)
    real = quantization.write

    def lenient(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(quantization, "allowed", lambda images: images)
            return real(*arguments)

    monkeypatch.setattr(quantization, "write", lenient)
    exported(made, tmp_path / "export")
    assert not (tmp_path / "export" / "model.int8.onnx").exists()
    model = read_json(tmp_path / "export" / "model.json")
    assert "fewer of the 27 test images than in floating point" in model["int8"]["left_out"]
    # Nothing is said of a file that is not there.
    assert model["int8"].keys() == {"calibration", "decided_on", "tried", "left_out"}
    card = (tmp_path / "export" / "README.md").read_text()
    assert "There is no int8 file: it is right on" in card
    assert "model.int8.onnx" not in card


def test_the_schemes_are_tried_in_order_until_one_loses_little(made, tmp_path, monkeypatch):  # noqa: F811
    real = quantization.quantize
    tried = []

    def second(source, target, scheme, reader, description):
        if not tried:
            sabotage = {name: 0.01 * images[:1] for name, images in reader.get_next().items()}
            reader.begin = lambda: setattr(reader, "_batches", iter([sabotage]))
            reader.begin()
        tried.append(scheme)
        real(source, target, scheme, reader, description)

    monkeypatch.setattr(quantization, "quantize", second)
    exported(made, tmp_path / "export")
    assert tried == list(quantization.SCHEMES[:2])
    model = read_json(tmp_path / "export" / "model.json")
    assert [each["scheme"] for each in model["int8"]["tried"]] == [scheme.name for scheme in tried]
    assert "1 other way cost more than is allowed" in cards.card(model, "x")
    # 7 bits are the same with any processor; of all 8 the card says with which ones they are not.
    assert model["int8"]["weight_bits"] == 7
    assert "without VNNI" not in cards.card(model, "x")
    model["int8"]["weight_bits"] = 8
    assert "On x86 processors without VNNI it may answer otherwise" in cards.card(model, "x")


@pytest.mark.parametrize(
    ("lost", "changed", "distances", "taken"),
    [
        # One is within what is allowed: it is the last to be tried.
        ([9, 1], [9, 1], [0.1, 0.2], 1),
        # None is, and the loss of two of them may be chance: the nearer one is taken, whatever was lost.
        ([9, 9, 3, 2, 8], [9, 9, 5, 4, 8], [0.1, 0.1, 0.2, 0.3, 0.1], 2),
        # None may be: too much is lost, or too many images change sides.
        ([9, 9, 4, 3, 9], [9, 9, 4, 7, 9], [0.1] * 5, None),
    ],
)
def test_where_no_way_is_within_the_nearest_whose_loss_may_be_chance_is_taken(
    lost,
    changed,
    distances,
    taken,
    made,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    labels = np.zeros(100, int)

    def logits(place):
        """As far from the reference as is asked for, right on as many fewer, and on as many more where it was wrong."""
        answers = np.tile([2.0 - distances[place], 0.0], (100, 1)) if place >= 0 else np.tile([2.0, 0.0], (100, 1))
        answers[80:, 0] = -answers[80:, 0]
        if place >= 0:
            gains = (changed[place] - lost[place]) // 2
            answers[: lost[place] + gains, 0] *= -1
            answers[80 : 80 + gains, 0] *= -1
        return answers

    asked = iter(range(-1, len(lost)))
    monkeypatch.setattr(quantization.certificates, "answers", lambda *_: logits(next(asked)))
    monkeypatch.setattr(quantization.prediction, "load", lambda *_, **__: None)
    monkeypatch.setattr(quantization.graphs, "write", lambda *_: None)
    monkeypatch.setattr(quantization, "divergence", lambda reference, found: 2 - abs(found[50, 0]))
    monkeypatch.setattr(quantization, "_Reader", lambda *_: None)

    def quantize(base, target, scheme, *_):
        target.write_text(scheme.name)

    monkeypatch.setattr(quantization, "quantize", quantize)
    rows = SimpleNamespace(counts={"val": 100}, rows=lambda part: np.arange(100))
    (tmp_path / "model.onnx").write_bytes(bytes(1000))
    record = quantization.write(tmp_path, None, {}, SimpleNamespace(labels=labels), rows, 1)
    assert [each["lost"] for each in record["tried"]] == lost
    assert [each["changed"] for each in record["tried"]] == changed
    if taken is None:
        assert "it loses more than 0.5 points" in record["left_out"]
        assert not (tmp_path / "model.int8.onnx").exists()
    else:
        assert record["scheme"] == quantization.SCHEMES[taken].name
        assert record["weight_bits"] == (8 if quantization.SCHEMES[taken].whole else 7)
        assert (tmp_path / "model.int8.onnx").read_text() == record["scheme"]


def test_the_divergence_is_that_of_probabilities():
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(2, 7, 3))
    p, q = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (one, other))
    assert quantization.divergence(one, other) == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert quantization.divergence(one, one + 5) == pytest.approx(0, abs=1e-12)


class Calibration(quantization.CalibrationDataReader):
    """Images as the network gets them, eight at a time."""

    def __init__(self, images):
        self.images = images
        self.begin()

    def begin(self):
        self.batches = iter(np.split(self.images, len(self.images) // 8))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {graphs.INPUT: batch}


@pytest.mark.parametrize("scheme", quantization.SCHEMES[:2])
def test_rounded_weights_add_nothing_to_an_output_on_average(scheme, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    description = {"image_size": 12, "preprocessing": [], "classes": list("abcd")}
    graphs.write(tmp_path / "base.onnx", network, description, quantization.OPSET)
    images = np.random.default_rng(0).normal(1, 1, size=(64, 3, 12, 12)).astype(np.float32)
    expected = network(torch.from_numpy(images)).detach().numpy()

    def error():
        target = tmp_path / "made.onnx"
        quantization.quantize(tmp_path / "base.onnx", target, scheme, Calibration(images), description)
        session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
        return (session.run(None, {graphs.INPUT: images})[0] - expected).mean(0)

    centred = error()
    monkeypatch.setattr(quantization.centring, "centre", lambda *_: None)
    as_rounded = error()
    assert abs(centred).max() < 0.5 * abs(as_rounded).max()


def test_a_layers_mean_is_right_to_half_a_step_of_its_bias(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    description = {"image_size": 12, "preprocessing": [], "classes": list("abcdefgh")}
    graphs.write(tmp_path / "base.onnx", network, description, quantization.OPSET)
    # Of 256 values, one a step: images are not rounded.
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 12, 12)).astype(np.float32)
    images[0, 0, 0, :2] = 0, 255
    source = onnx.load(tmp_path / "base.onnx")
    quantization.quantize_static(
        tmp_path / "base.onnx",
        tmp_path / "made.onnx",
        Calibration(images),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QUInt8,
        op_types_to_quantize=["Conv"],
    )
    model = onnx.load(tmp_path / "made.onnx")
    # What comes out is compared as it is, not as it would be rounded for the next layer.
    (layer,) = (node for node in model.graph.node if node.op_type == "Conv")
    batches = Calibration(images)
    quantization.centring.centre(model.graph, source, iter(batches.get_next, None))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(layer.output[0]))
    found = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    means = found.run(None, {graphs.INPUT: images})[0].mean((0, 2, 3))
    wanted = network[0](torch.from_numpy(images)).detach().numpy().mean((0, 2, 3))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    step = constants[made_by[layer.input[2]].input[1]]
    assert (abs(means - wanted) <= 0.51 * step + 1e-3).all()
    assert (step < 0.05).all()


@pytest.mark.parametrize("pool", ["MaxPool2dSame", "AvgPool2dSame"])
def test_what_is_padded_beforehand_stays_exact(pool, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        timm.layers.Conv2dSame(3, 16, 3, stride=2),
        nn.ReLU6(),
        getattr(timm.layers.pool2d_same, pool)(3, stride=2),
        timm.layers.Conv2dSame(16, 16, 3, stride=2),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    ).eval()
    description = {"image_size": 46, "preprocessing": [], "classes": ["a", "b"]}
    graphs.write(tmp_path / "base.onnx", network, description, quantization.OPSET)
    images = np.random.default_rng(0).normal(size=(64, 3, 46, 46)).astype(np.float32)
    scheme = quantization.SCHEMES[-1]
    quantization.quantize(tmp_path / "base.onnx", tmp_path / "made.onnx", scheme, Calibration(images), description)
    session = onnxruntime.InferenceSession(tmp_path / "made.onnx", providers=["CPUExecutionProvider"])
    expected = network(torch.from_numpy(images)).detach().numpy()
    differences = session.run(None, {graphs.INPUT: images})[0] - expected
    assert differences.std() < 0.1 * expected.std(0).mean()


@pytest.mark.parametrize(("images", "most"), [(12, 1), (200, 1), (719, 3), (6_149, 30)])
def test_half_a_point_may_be_lost_or_one_image(images, most):
    assert int(quantization.allowed(images)) == most
