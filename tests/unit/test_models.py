"""A fine-tuned network as a file: rebuilt without the dense one, held against what was written."""

import json
import pickletools
import struct

import numpy as np
import pytest
import torch

from winnow.files import InputError
from winnow.networks import backbones, channels, models, surgery
from winnow.networks.backbones import Backbone

DESCRIPTION = {"architecture": "vgg_digits", "head": "gap", "classes": ["x", "y", "z"], "accuracy": 0.5}


@pytest.fixture
def network():
    dense = backbones.initialised("vgg_digits", "gap", 5, 0)
    found = channels.of(dense)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": "vgg_digits", "head": "gap", "classes": 5, "layers": layers}
    backbone = Backbone(manifest, dense.state_dict(), found.table)
    return surgery.pruned(backbone, np.arange(backbone.units) % 3 > 0, 3, "inherited", 0)


def test_a_rebuilt_network_answers_the_same(network, tmp_path):
    written = models.save(tmp_path, network, DESCRIPTION)
    rebuilt, description = models.load(tmp_path)
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network.eval()(images))
    assert description == DESCRIPTION
    assert written["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert models.stored_bytes(network) == sum(4 * p.numel() for p in network.parameters())


def test_the_file_is_no_pickle_and_the_same_every_time(network, tmp_path):
    for name in "ab":
        models.save(tmp_path / name, network, DESCRIPTION)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second
    with pytest.raises(ValueError, match=r"opcode|pickle"):
        list(pickletools.genops(first))


def test_the_weights_alone_rebuild_the_network(network, tmp_path):
    models.save(tmp_path, network, DESCRIPTION)
    (tmp_path / "model.json").unlink()
    rebuilt, description = models.load(tmp_path)
    assert description == DESCRIPTION
    assert [tensor.shape for tensor in rebuilt.parameters()] == [tensor.shape for tensor in network.parameters()]
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        models.load(tmp_path)


def test_nothing_dense_is_made_on_the_way(network, tmp_path, monkeypatch):
    models.save(tmp_path, network, DESCRIPTION)
    devices = []
    build = backbones.build

    def watched(*arguments):
        built = build(*arguments)
        devices.extend(parameter.device.type for parameter in built.parameters())
        return built

    monkeypatch.setattr(backbones, "build", watched)
    models.load(tmp_path)
    assert set(devices) == {"meta"}


def test_a_changed_description_is_named(network, tmp_path):
    models.save(tmp_path, network, DESCRIPTION)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"accuracy": 0.5', '"accuracy": 0.9'))
    with pytest.raises(InputError, match=r"model\.json describes: one of them was changed"):
        models.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "foreign"])
def test_a_damaged_file_is_named(network, tmp_path, damage):
    models.save(tmp_path, network, DESCRIPTION)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-4])
    elif damage == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "gone":
        path.unlink()
    else:
        header = json.dumps({}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        models.load(tmp_path)
