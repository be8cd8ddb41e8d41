"""int8 files: what they are made of, that they are worth what floating point is, and that bad ones are not exported."""

from __future__ import annotations

import onnx
import pytest

from winnow.exports import cards, prediction, quantization
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
    left_out = read_json(tmp_path / "export" / "model.json")["int8"]["left_out"]
    assert "fewer of the 27 test images than in floating point" in left_out


def test_the_schemes_are_tried_in_order_until_one_loses_little(made, tmp_path, monkeypatch):  # noqa: F811
    real = quantization.quantize
    tried = []

    def second(source, target, scheme, reader, description):
        if not tried:
            sabotage = reader.get_next()
            reader._batches = iter([{name: 0.01 * images[:1] for name, images in sabotage.items()}])
        tried.append(scheme)
        real(source, target, scheme, reader, description)

    monkeypatch.setattr(quantization, "quantize", second)
    exported(made, tmp_path / "export")
    assert tried == list(quantization.SCHEMES[:2])
    model = read_json(tmp_path / "export" / "model.json")
    assert [each["scheme"] for each in model["int8"]["tried"]] == [scheme.name for scheme in tried]
    assert "1 way before it cost more than is allowed" in cards.card(model, "x")


@pytest.mark.parametrize(("images", "most"), [(12, 1), (200, 1), (719, 3), (6_149, 30)])
def test_half_a_point_may_be_lost_or_one_image(images, most):
    assert int(quantization.allowed(images)) == most
