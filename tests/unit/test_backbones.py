"""Backbones: weights of every origin in one form, pruned networks with inherited or drawn weights."""

import json
import math

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from winnow import backbones, config
from winnow.files import InputError

from . import programs

DIGITS = {"architecture": "vgg_digits", "head": "gap", "weights": "random", "weights_url": None, "weights_file": None}
DIGITS |= {"mean": [0.5] * 3, "std": [0.5] * 3}


def imported(output, file=None, **changes):
    """Run the program; its spec is that of the demo's network with drawn weights, changed."""
    spec = {"name": "net", "backbone": DIGITS | changes, "code": "0"}
    programs.run("import_backbone", spec, "--output", output, *(["--weights", file] if file else []))


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


@pytest.mark.parametrize("keep", [None, "half", "most"])
def test_training_a_cell_leaves_the_backbone_as_it_is(backbone, keep):
    before = {name: tensor.clone() for name, tensor in backbone.state.items()}
    mask = None if keep is None else np.arange(backbone.units) % 2 == 0
    if keep == "most":  # so that most tensors lose nothing
        mask = np.arange(backbone.units) < backbone.units - 8
    network = backbones.pruned(backbone, mask, 4, "inherited", 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
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
        assert manifest["layers"][0] == {"layer": "features.0", "filters": 16, "activation": "features.1"}


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
        ({"other": torch.zeros(1)}, "found nothing of that name"),
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


def test_unknown_weights_are_an_error_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match=r"unknown weights 'IMAGENET' .* IMAGENET1K_V1, IMAGENET1K_FEATURES"):
        imported(tmp_path / "net", architecture="vgg16", weights="IMAGENET")


def test_torchvisions_file_is_downloaded_from_a_mirror_and_held_against_its_name(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official = torchvision.models.get_model_weights("vgg11")["IMAGENET1K_V1"].url.rsplit("/", 1)[1]
    server.files[official] = b"not these weights"
    with pytest.raises(InputError, match=f"is not the expected file.*{official.split('-')[1].split('.')[0]}"):
        imported(
            tmp_path / "net", architecture="vgg11", weights="IMAGENET1K_V1", weights_url=f"{server.url}/{official}"
        )
    assert not list(tmp_path.rglob("*.pth*"))


def test_weights_placed_by_hand_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from winnow import downloads

    official = torchvision.models.get_model_weights("vgg11")["IMAGENET1K_V1"].url.rsplit("/", 1)[1]
    place = tmp_path / downloads.FOLDER / official
    place.parent.mkdir(parents=True)
    state = backbones.initialised("vgg11", "gap", 5, 1).state_dict()
    torch.save(state, place)
    monkeypatch.setattr(downloads, "verify", lambda path, digest: None)
    imported(tmp_path / "net", architecture="vgg11", weights="IMAGENET1K_V1")
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_weights_of_the_features_alone_get_a_drawn_classifier(tmp_path, capsys):
    state = backbones.initialised("vgg_digits", "gap", 5, 1).state_dict()
    state["classifier.0.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "w.pt")
    imported(tmp_path / "net", tmp_path / "w.pt", weights=None)
    assert "drawn anew, since the file does not have them: classifier.0.weight" in capsys.readouterr().out
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert torch.isfinite(loaded["classifier.0.weight"]).all()
    assert torch.equal(loaded["features.5.weight"], state["features.5.weight"])


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_backbone_is_named(tmp_path, damage):
    imported(tmp_path / "net")
    weights = tmp_path / "net" / "weights.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        weights.unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        backbones.load(tmp_path / "net")
