"""Backbones: weights of every origin in one form, pruned networks with inherited or drawn weights."""

import enum
import functools
import hashlib
import io
import json
import math

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torchvision.models._api import Weights, WeightsEnum

from winnow.data import downloads
from winnow.files import InputError
from winnow.networks import backbones, channels
from winnow.workflow import config

from . import programs

DIGITS = {"architecture": "vgg_digits", "head": "gap", "weights": "random", "weights_url": None, "weights_file": None}
DIGITS |= {"mean": [0.5] * 3, "std": [0.5] * 3}


def imported(output, file=None, **changes):
    """Run the program; its spec is that of the demo's network with drawn weights, changed."""
    spec = {"name": "net", "backbone": DIGITS | changes, "code": "0"}
    programs.run("import_backbone", spec, "--output", output, *(["--weights", file] if file else []))


def in_memory(architecture, head):
    network = backbones.initialised(architecture, head, 5, 0)
    layers = [vars(layer) for layer in channels.layers_of(network)]
    manifest = {"architecture": architecture, "head": head, "classes": 5, "layers": layers}
    return backbones.Backbone(manifest, network.state_dict(), channels.derive(network))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone") / "net"
    imported(folder)
    return backbones.load(folder)


def test_the_configuration_knows_every_architecture():
    assert set(config.ARCHITECTURES) == set(backbones.ARCHITECTURES)


@pytest.mark.parametrize("name", ["vgg11", "vgg16", "vgg19_bn"])
def test_the_vgg_family_is_torchvisions(name):
    with torch.device("meta"):
        reference = torchvision.models.get_model(name, num_classes=17)
    network = backbones.build(name, "classifier", 17)
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in reference.state_dict().items()
    }
    assert str(network) == str(reference)


@pytest.mark.parametrize(("architecture", "head"), [("vgg17", "gap"), ("vgg16", "mlp")])
def test_an_unknown_name_is_an_error_with_those_that_are_known(architecture, head):
    with pytest.raises(InputError, match=r"unknown .* allowed: "):
        backbones.build(architecture, head, 2)


def test_drawn_weights_have_torchvisions_spread_and_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (backbones.initialised("vgg11", "gap", 10, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for (name, a), b, c in zip(first.state_dict().items(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if a.dim() == 4:
            assert not torch.equal(a, c)
            assert a.std().item() == pytest.approx(math.sqrt(2 / (a.shape[0] * 9)), rel=0.1), name
    assert first.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not first.classifier[0].bias.any()


def test_a_pruned_network_inherits_its_filters_and_gets_a_new_last_layer(backbone):
    keep = np.arange(backbone.units) % 2 == 0
    network = backbones.pruned(backbone, keep, 4, "inherited", 0)
    expected = backbone.state["features.2.weight"][::2, ::2]
    assert torch.equal(network.features[2].weight, expected)
    assert network.classifier[0].weight.shape == (4, 32)
    assert all(parameter.requires_grad for parameter in network.parameters())
    other = backbones.pruned(backbone, keep, 4, "inherited", 1)
    assert torch.equal(network.features[0].weight, other.features[0].weight)
    assert not torch.equal(network.classifier[0].weight, other.classifier[0].weight)


def test_random_weights_are_drawn_for_the_pruned_widths(backbone):
    keep = np.arange(backbone.units) % 4 == 0
    network = backbones.pruned(backbone, keep, 4, "random", 0)
    inherited = backbones.pruned(backbone, keep, 4, "inherited", 0)
    assert [p.shape for p in network.parameters()] == [p.shape for p in inherited.parameters()]
    weight = network.features[12].weight  # 16 filters are left of 64
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    assert torch.equal(weight, backbones.pruned(backbone, keep, 4, "random", 0).features[12].weight)


# A warm worker cuts the next cell from the same backbone. Tensors of a layer that loses nothing are not sliced, nor are
# the classifier's hidden layers and batch norm's counters, whatever is removed.
@pytest.mark.parametrize("removed", [None, "half", "the last filter"])
@pytest.mark.parametrize(("architecture", "head"), [("vgg_digits", "classifier"), ("vgg11_bn", "gap")])
def test_training_a_cell_leaves_the_backbone_as_it_is(architecture, head, removed):
    backbone = in_memory(architecture, head)
    units = np.arange(backbone.units)
    keep = {None: None, "half": units % 2 == 0, "the last filter": units < backbone.units - 1}[removed]
    before = {name: tensor.clone() for name, tensor in backbone.state.items()}
    network = backbones.pruned(backbone, keep, 4, "inherited", 0)
    for tensor in network.state_dict().values():
        tensor.add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state.items())


def test_weights_from_a_file_come_out_as_they_went_in(tmp_path):
    network = backbones.initialised("vgg_digits", "gap", 6, 3)
    torch.save({f"module.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "w.pt")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        output = tmp_path / name.replace(".", "_")
        imported(output, tmp_path / name, weights=None)
        state = load_file(output / "weights.safetensors")
        assert all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items())
        manifest = json.loads((output / "manifest.json").read_text())
        assert manifest["classes"] == 6
        first = {"layer": "features.0", "filters": 16, "activation": "features.1", "function": "relu"}
        assert manifest["layers"][0] == first
        assert manifest["left_out"] == []


class Malicious:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not a file of weights", "cannot be read|holds more than tensors"),
        ({"x": Malicious()}, "holds more than tensors"),
        ([torch.zeros(1)], "is not a state dict"),
        ({"features.0.weight": torch.zeros(1)}, r"features\.0\.weight needs shape \(16, 3, 3, 3\), found \(1,\)"),
        ({"other": torch.zeros(1)}, "found nothing of that name; .*; and 10 more"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_first_difference(tmp_path, capsys, content, says):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=says):
        imported(tmp_path / "net", path, weights=None)
    assert "code from the file ran" not in capsys.readouterr().out
    assert not (tmp_path / "net" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("features.99.weight", torch.zeros(1), r"features\.99\.weight belongs to no layer"),
        ("features.12.bias", torch.full((64,), math.inf), r"features\.12\.bias holds values that are not finite"),
        ("classifier.0.bias", torch.zeros(4), r"classifier\.0\.bias needs shape \(5,\), found \(4,\)"),
    ],
)
def test_nothing_of_a_file_is_left_out_in_silence(tmp_path, name, value, says):
    save_file(in_memory("vgg_digits", "gap").state | {name: value}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=says):
        imported(tmp_path / "net", tmp_path / "w.safetensors", weights=None)


def test_no_weights_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="give a file of them with --weights"):
        imported(tmp_path / "net", weights=None)


@pytest.mark.parametrize(
    ("architecture", "known"), [("vgg16", "IMAGENET1K_V1, IMAGENET1K_FEATURES, .*"), ("vgg_digits", "")]
)
def test_unknown_weights_are_an_error_with_those_that_are_known(tmp_path, architecture, known):
    with pytest.raises(InputError, match=f"unknown weights 'IMAGENET' of {architecture}; allowed: {known}random$"):
        imported(tmp_path / "net", architecture=architecture, weights="IMAGENET")


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_weights_that_want_other_images_than_the_backbone_says_are_an_error(tmp_path):
    with pytest.raises(
        InputError, match=r"mean \[0\.48235, 0\.45882, 0\.40784\] and std \[0\.0039.*set its mean and std"
    ):
        imported(tmp_path / "net", architecture="vgg16", weights="IMAGENET1K_FEATURES", **IMAGENET)


def published(monkeypatch, state, address):
    """Make ``state`` what torchvision publishes for the demo's network, under ``address``; the file and its name."""
    file = io.BytesIO()
    torch.save(state, file)
    content = file.getvalue()
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    transforms = functools.partial(torchvision.transforms._presets.ImageClassification, crop_size=224)
    members = enum.Enum("Published", {"V1": Weights(f"{address}/{name}", transforms, {})}, type=WeightsEnum)
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda architecture: members)
    return name, content


@pytest.mark.parametrize("mirror", [False, True])
def test_weights_are_downloaded_from_torchvisions_address_or_a_mirror(tmp_path, server, monkeypatch, mirror):
    monkeypatch.chdir(tmp_path)
    state = in_memory("vgg_digits", "gap").state
    name, content = published(monkeypatch, state, "http://127.0.0.1:9" if mirror else server.url)
    server.files["mirrored" if mirror else name] = content
    imported(tmp_path / "net", weights="V1", weights_url=f"{server.url}/mirrored" if mirror else None, **IMAGENET)
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert (
        json.loads((tmp_path / "net" / "manifest.json").read_text())["source"] == f"torchvision vgg_digits V1 ({name})"
    )
    assert (tmp_path / downloads.FOLDER / name).read_bytes() == content
    server.files.clear()
    imported(tmp_path / "again", weights="V1", **IMAGENET)
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (
        tmp_path / "net" / "weights.safetensors"
    ).read_bytes()


def test_without_a_file_at_the_address_the_place_for_it_is_named(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, _ = published(monkeypatch, in_memory("vgg_digits", "gap").state, server.url)
    with pytest.raises(InputError, match=f"put the file at {tmp_path / downloads.FOLDER / name} by hand"):
        imported(tmp_path / "net", weights="V1", **IMAGENET)


def test_torchvisions_file_is_downloaded_from_a_mirror_and_held_against_its_name(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official = torchvision.models.get_model_weights("vgg11")["IMAGENET1K_V1"].url.rsplit("/", 1)[1]
    server.files[official] = b"not these weights"
    with pytest.raises(InputError, match=f"is not the expected file.*{official.split('-')[1].split('.')[0]}"):
        imported(
            tmp_path / "net",
            architecture="vgg11",
            weights="IMAGENET1K_V1",
            weights_url=f"{server.url}/{official}",
            **IMAGENET,
        )
    assert not list(tmp_path.rglob("*.pth*"))


def test_weights_placed_by_hand_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = in_memory("vgg_digits", "gap").state
    name, content = published(monkeypatch, state, "http://127.0.0.1:9")
    place = tmp_path / downloads.FOLDER / name
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    imported(tmp_path / "net", weights="V1", **IMAGENET)
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("absent", ["not a number", "not there"])
def test_weights_of_the_features_alone_get_a_drawn_classifier_and_the_manifest_says_so(tmp_path, absent):
    state = in_memory("vgg_digits", "classifier").state
    state = {name: tensor for name, tensor in state.items() if absent == "not a number" or "features" in name}
    for name in state:
        if "classifier" in name:
            state[name] = torch.full_like(state[name], math.nan)
    torch.save(state, tmp_path / "w.pt")
    imported(tmp_path / "net", tmp_path / "w.pt", weights=None, head="classifier")
    source = json.loads((tmp_path / "net" / "manifest.json").read_text())["source"]
    assert source.startswith("w.pt; not in it and drawn, seed 0: classifier.0.weight, ")
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert loaded["classifier.3.weight"].std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.equal(loaded["features.5.weight"], state["features.5.weight"])


def test_the_head_gap_takes_only_the_features_from_a_network_with_a_classifier(tmp_path):
    state = in_memory("vgg_digits", "classifier").state
    save_file(state, tmp_path / "w.safetensors")
    imported(tmp_path / "net", tmp_path / "w.safetensors", weights=None)
    backbone = backbones.load(tmp_path / "net")
    assert backbone.manifest["classes"] == 1000
    assert backbone.state["classifier.0.weight"].shape == (1000, 64)
    assert not backbone.state["classifier.0.bias"].any()
    assert torch.equal(backbone.state["features.5.weight"], state["features.5.weight"])


def test_batch_norms_counter_may_be_missing_and_stays_an_integer(tmp_path):
    state = in_memory("vgg11_bn", "gap").state
    torch.save(
        {name: tensor.double() for name, tensor in state.items() if "num_batches" not in name}, tmp_path / "w.pt"
    )
    imported(tmp_path / "net", tmp_path / "w.pt", weights=None, architecture="vgg11_bn")
    loaded = backbones.load(tmp_path / "net").state
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {name: t.dtype for name, t in state.items()}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_backbone_is_named(tmp_path, damage):
    imported(tmp_path / "net")
    weights = tmp_path / "net" / "weights.safetensors"
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[:-8])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    else:
        weights.unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        backbones.load(tmp_path / "net")
