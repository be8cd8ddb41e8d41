"""ONNX files are as old as their operators allow, answer as PyTorch does, and run in the runtimes that they are for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import timm.layers
import torch
from torch import nn

from winnow.exports import graphs
from winnow.files import InputError

from .programs import SCRIPTS

_spec = importlib.util.spec_from_file_location("runtimes", SCRIPTS.parent / "benchmarks" / "runtimes.py")
runtimes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runtimes)

# What stands before a ReLU without a convolution before it cannot be folded into one.
UNFOLDED = {"densenet121": 62, "googlenet": 1, "inception_v3": 1}
QUICK = ["vgg_digits", "squeezenet1_1", "resnet18", "googlenet", "densenet121", "mobilenet_v2", "efficientnet_b0"]


def answered(path, batch):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    saved = np.load(batch)
    return session.run(None, {"image": saved["images"]})[0], saved["logits"]


@pytest.mark.parametrize("name", QUICK)
def test_a_file_is_as_old_as_its_operators_allow_and_answers_for_any_batch(name, tmp_path):
    path, batches, _ = runtimes.made(name, tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 5
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 10)]
    for node in model.graph.node:
        assert onnx.defs.get_schema(node.op_type, 10).since_version <= 10
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["BatchNormalization"] == UNFOLDED.get(name, 0)
    assert not operators["Identity"]
    for batch in batches:
        answers, logits = answered(path, batch)
        assert logits.std() > 0.1
        np.testing.assert_allclose(answers, logits, atol=1e-4 * max(1, np.abs(logits).max()))


class PadsAsTensorFlow(nn.Module):
    """timm's layers that work out what they pad: by nothing, on one side alone, or on both."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            timm.layers.Conv2dSame(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            timm.layers.Conv2dSame(8, 8, 5, stride=2, groups=8),
            timm.layers.pool2d_same.MaxPool2dSame(3, stride=2),
            timm.layers.Conv2dSame(8, 8, (3, 1), stride=(2, 1), dilation=2),
            timm.layers.pool2d_same.AvgPool2dSame(2, stride=2),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.layers(images).mean((2, 3)))


@pytest.mark.parametrize("opset", [10, 13])
@pytest.mark.parametrize("size", [33, 36, 46])
def test_what_is_padded_as_tensorflow_does_is_known_beforehand(size, opset, tmp_path):
    torch.manual_seed(0)
    network = PadsAsTensorFlow().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 2)
            part.running_mean.normal_()
    description = {"image_size": size, "preprocessing": [], "classes": ["a", "b", "c"]}
    graphs.write(tmp_path / "model.onnx", network, description, opset)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Conv"] == 3
    assert not {"Shape", "Ceil", "BatchNormalization"} & set(operators)
    # All but the pool of means pad for themselves.
    assert operators["Pad"] <= 1
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.randn(count, 3, size, size)
        expected = network(images).detach().numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], expected, atol=1e-5)


def test_what_is_called_with_images_of_several_sizes_works_out_what_it_pads(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = timm.layers.Conv2dSame(3, 3, 3, stride=2)

        def forward(self, images):
            return self.layer(self.layer(images)).mean((2, 3))

    torch.manual_seed(0)
    network = Twice().eval()
    description = {"image_size": 30, "preprocessing": [], "classes": ["a", "b", "c"]}
    graphs.write(tmp_path / "model.onnx", network, description, 13)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, 30, 30)
    np.testing.assert_allclose(
        session.run(None, {"image": images.numpy()})[0], network(images).detach().numpy(), atol=1e-5
    )


@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (3, 5), (10, 7)])
def test_a_pool_of_windows_of_several_sizes_is_torchs(sides):
    images = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.adaptive_avg_pool2d(images, (7, 4))
    torch.testing.assert_close(graphs.Pool(*sides, 7, 4)(images), expected)


def test_writing_changes_nothing_of_the_network(tmp_path):
    network = runtimes.backbones.initialised("googlenet", "classifier", 3, 0).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    described = {"image_size": 64, "classes": list("abc"), "preprocessing": []}
    graphs.write(tmp_path / "model.onnx", network, described)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert "_transform_input" not in vars(network)


def test_operators_of_later_opsets_raise_the_opset_and_those_of_none_are_named(tmp_path):
    class Network(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 1)
            self.last = last

        def forward(self, images):
            return self.last(self.convolution(images)).flatten(1)

    def sampled(images):
        return nn.functional.grid_sample(images, images.permute(0, 2, 3, 1)[..., :2], align_corners=False)

    described = {"image_size": 4, "classes": list("abcd"), "preprocessing": []}
    path = tmp_path / "model.onnx"
    graphs.write(path, Network(sampled), described)
    assert onnx.load(path).opset_import[0].version == 16
    with pytest.raises(InputError, match="no opset up to 20 of ONNX has all that the network is made of"):
        graphs.write(path, Network(torch.linalg.svdvals), described)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("runtimes")


@pytest.mark.slow("it installs each runtime")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the old runtimes have no wheels for this Python")
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_old_and_new_runtimes_take_the_files(runtime, elsewhere):
    try:
        python = runtimes.environment(runtime, elsewhere)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{runtime} cannot be installed: {error}")
    for name in ("squeezenet1_1", "googlenet", "mobilenet_v2", "efficientnet_b0"):
        path, batches, _ = runtimes.made(name, elsewhere)
        found = runtimes.differences(python, path, batches)
        if (runtime, name) == ("OpenCV 4.6.0", "efficientnet_b0"):
            # It multiplies channels by factors of the first image alone: one image at a time.
            assert isinstance(found.pop(), str)
        assert all(isinstance(each, float) and each <= 1e-4 for each in found), (name, found)
