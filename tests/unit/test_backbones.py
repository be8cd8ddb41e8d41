"""Backbones: weights of every origin in one form, pruned networks with inherited or drawn weights."""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from winnow.files import InputError, file_digest, read_json
from winnow.networks import architectures, backbones, channels, published, surgery, weights
from winnow.workflow import config

from . import programs

DIGITS = {"architecture": "vgg_digits", "head": "gap", "weights": "random", "mean": [0.5] * 3, "std": [0.5] * 3}


def imported(output, file=None, digest=None, **changes):
    """Run the program; its spec is that of the demo's network with drawn weights, changed."""
    spec = {"name": "net", "backbone": DIGITS | changes, "digest": digest, "code": "0"}
    programs.run("import_backbone", spec, "--output", output, *(["--weights", file] if file else []))


def in_memory(architecture, head):
    network = backbones.initialised(architecture, head, 5, 0)
    found = channels.of(network)
    layers = [vars(layer) for layer in found.layers]
    manifest = {"architecture": architecture, "head": head, "classes": 5, "layers": layers}
    return backbones.Backbone(manifest, network.state_dict(), found.table)


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
    network = surgery.pruned(backbone, keep, 4, "inherited", 0)
    expected = backbone.state["features.2.weight"][::2, ::2]
    assert torch.equal(network.features[2].weight, expected)
    assert network.classifier[0].weight.shape == (4, 32)
    assert all(parameter.requires_grad for parameter in network.parameters())
    other = surgery.pruned(backbone, keep, 4, "inherited", 1)
    assert torch.equal(network.features[0].weight, other.features[0].weight)
    assert not torch.equal(network.classifier[0].weight, other.classifier[0].weight)


def test_random_weights_are_drawn_for_the_pruned_widths(backbone):
    keep = np.arange(backbone.units) % 4 == 0
    network = surgery.pruned(backbone, keep, 4, "random", 0)
    inherited = surgery.pruned(backbone, keep, 4, "inherited", 0)
    assert [p.shape for p in network.parameters()] == [p.shape for p in inherited.parameters()]
    weight = network.features[12].weight  # 16 filters are left of 64
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    assert torch.equal(weight, surgery.pruned(backbone, keep, 4, "random", 0).features[12].weight)


# A warm worker cuts the next cell from the same backbone. Tensors of a layer that loses nothing are not sliced, nor are
# the classifier's hidden layers and batch norm's counters, whatever is removed.
@pytest.mark.parametrize("removed", [None, "half", "the last filter"])
@pytest.mark.parametrize(("architecture", "head"), [("vgg_digits", "classifier"), ("vgg11_bn", "gap")])
def test_training_a_cell_leaves_the_backbone_as_it_is(architecture, head, removed):
    backbone = in_memory(architecture, head)
    units = np.arange(backbone.units)
    keep = {None: None, "half": units % 2 == 0, "the last filter": units < backbone.units - 1}[removed]
    before = {name: tensor.clone() for name, tensor in backbone.state.items()}
    network = surgery.pruned(backbone, keep, 4, "inherited", 0)
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
        ({"x": Malicious(), "state_dict": {"y": Malicious()}}, "holds more than tensors"),
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


def wrapped(state, how):
    """A checkpoint as trainers write them; those of two networks have the right one once, the other is all zeros."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}

    def under(prefix, tensors=state):
        return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}

    return {
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        "torchvision": {
            "model": zeros,
            "model_ema": under("module.") | {"n_averaged": torch.tensor(5)},
            "args": OPTIONS,
        },
        "timm": {"state_dict": zeros, "state_dict_ema": state, "arch": "net", "metric": np.float64(0.9)},
        "lightning": {
            "state_dict": under("model.") | {"criterion.weight": torch.ones(3)},
            "hyper_parameters": OPTIONS,
            "pytorch-lightning_version": "2.5",
        },
        "compiled": under("_orig_mod.module."),
        "nested": {"model": {"state_dict": under("net._orig_mod.")}},
        "with an average": under("model.", zeros) | under("model_ema.module."),
    }[how]


OPTIONS = argparse.Namespace(lr=0.1, path=Path("somewhere"))


@pytest.mark.slow("full-size checkpoints are written and read")
@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("state_dict", "epoch, optimizer"),
        ("torchvision", "model, args, n_averaged"),
        ("timm", "state_dict, arch, metric"),
        ("lightning", "hyper_parameters, pytorch-lightning_version, criterion.weight"),
        ("compiled", ""),
        ("nested", ""),
        ("with an average", "model.features.0.weight, .* more"),
    ],
)
def test_a_checkpoint_is_read_as_its_trainer_left_it_and_what_is_left_out_is_named(tmp_path, how, left):
    state = in_memory("vgg_digits", "gap").state
    torch.save(wrapped(state, how), tmp_path / "w.pt")
    imported(tmp_path / "net", tmp_path / "w.pt", weights=None)
    backbone = backbones.load(tmp_path / "net")
    assert all(torch.equal(backbone.state[name], tensor) for name, tensor in state.items())
    assert re.fullmatch(f"w.pt; in it and left out: {left}" if left else "w.pt", backbone.manifest["source"])


def test_two_networks_in_one_file_are_an_error_that_names_them(tmp_path):
    state = in_memory("vgg_digits", "gap").state
    torch.save(
        {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in state.items()}, tmp_path / "w.pt"
    )
    with pytest.raises(InputError, match=r"more than one network, 'student\.' and 'teacher\.'"):
        imported(tmp_path / "net", tmp_path / "w.pt", weights=None)


@pytest.mark.parametrize("head", ["wider", "of its own"])
def test_another_head_is_left_out_and_named_and_a_new_one_drawn(tmp_path, head):
    state = in_memory("vgg_digits", "classifier").state
    features = {name: tensor for name, tensor in state.items() if name.startswith("features")}
    own = (
        {"classifier.1.weight": torch.ones(7, 64)}
        if head == "of its own"
        else {"classifier.6.weight": torch.ones(7, 9)}
    )
    torch.save(features | own, tmp_path / "w.pt")
    imported(tmp_path / "net", tmp_path / "w.pt", weights=None, head="classifier")
    source = read_json(tmp_path / "net" / "manifest.json")["source"]
    assert "not in it and drawn, seed 0: classifier.0.weight" in source
    assert source.endswith(f"in it and left out: {next(iter(own))}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"  <!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git-LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        (
            torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)),
            r"is a whole model as Python objects \(torch\.nn\.modules.*Seq",
        ),
        ({"model": torch.nn.Linear(2, 2), "epoch": 1}, "is a whole model as Python objects"),
        (torch.jit.script(torch.nn.Linear(2, 2)), "is a TorchScript archive"),
    ],
    ids=["html", "lfs", "hdf5", "model", "model in a checkpoint", "script"],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, content, says, name):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif name == "w.safetensors":
        return
    elif isinstance(content, torch.jit.ScriptModule):
        content.save(path)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=says) as error:
        imported(tmp_path / "net", path, weights=None)
    assert "weights_only" not in str(error.value)


def test_no_weights_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not drawn: give a file of them with --weights"):
        imported(tmp_path / "net", weights=None)


def test_the_table_of_published_weights_is_torchvisions():
    whole = set()
    for architecture in architectures.NAMES:
        try:
            members = torchvision.models.get_model_weights(architecture).__members__
        except ValueError:  # the demo's network is nobody's
            members = {}
        assert set(published.names(architecture)) == set(members), architecture
        for name, member in members.items():
            weights, transforms = published.weights(architecture, name), member.transforms()
            assert weights.file.url == member.url
            assert weights.file.name == member.url.rsplit("/", 1)[1]
            algorithm, digest = weights.file.digest.split(":")
            assert algorithm == "sha256"
            assert len(digest) in (8, 10, 64)
            assert digest[:8] in weights.file.name
            whole |= {digest} if len(digest) == 64 else set()
            assert [*weights.mean, *weights.std] == pytest.approx([*transforms.mean, *transforms.std], rel=1e-3)

    assert whole == set(published._SHA256.values()), "a digest that no file has"


@pytest.mark.parametrize(
    ("architecture", "known"), [("vgg16", "IMAGENET1K_V1, IMAGENET1K_FEATURES, .*"), ("alexnet", "")]
)
def test_unknown_weights_are_an_error_with_those_that_are_known(architecture, known):
    with pytest.raises(InputError, match=f"unknown weights 'IMAGENET' of {architecture}; allowed: {known}.*random$"):
        published.weights(architecture, "IMAGENET")


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_weights_that_want_other_images_than_the_backbone_says_are_an_error():
    with pytest.raises(
        InputError, match=r"mean \[0\.48235, 0\.45882, 0\.40784\] and std \[0\.0039.*set its mean and std"
    ):
        published.check_images("vgg16", "IMAGENET1K_FEATURES", **IMAGENET)
    published.check_images("vgg16", "IMAGENET1K_V1", **IMAGENET)


def published_file(folder):
    """Weights of the demo's network as a file that is named after its digest, as torchvision's are."""
    state = in_memory("vgg_digits", "gap").state
    torch.save(state, folder / "w.pth")
    digest = file_digest(folder / "w.pth")
    return state, (folder / "w.pth").rename(folder / f"net-{digest[:8]}.pth"), f"sha256:{digest[:8]}"


def test_published_weights_are_named_in_the_manifest(tmp_path):
    state, file, digest = published_file(tmp_path)
    imported(tmp_path / "net", file, digest, weights="V1")
    loaded = load_file(tmp_path / "net" / "weights.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    manifest = read_json(tmp_path / "net" / "manifest.json")
    assert manifest["source"] == f"torchvision vgg_digits V1 ({file.name})"
    assert manifest["source_sha256"] == file_digest(file)


def test_a_file_of_weights_is_held_against_its_digest(tmp_path):
    _, file, digest = published_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{file} is not the expected file.*expected is {digest.split(':')[1]}"):
        imported(tmp_path / "net", file, digest, weights="V1")
    assert not (tmp_path / "net").exists()


HEAD = "classifier.1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({HEAD: None}, rf"squeezenet1_1's V1 .*: {HEAD}\.weight is not in it, {HEAD}\.bias is not in it"),
        ({HEAD: 10}, "it has 10 classes, not 1000"),
        ({"classifier.9": 1000}, r"classifier\.9\.weight is nothing of it"),
        ({"features.0": 64}, r"features\.0\.weight needs torch\.float32, found torch\.int64"),
    ],
)
def test_what_torchvision_publishes_is_all_of_a_network_and_nothing_else(tmp_path, change, says):
    state = dict(backbones.initialised("squeezenet1_1", "classifier", 1000, 0).state_dict())
    weights.check_published("squeezenet1_1", "V1", *weights.fitted("squeezenet1_1", "classifier", state))
    for name, filters in change.items():
        state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
        if filters:
            shape, kind = ((3, 3, 3), torch.int64) if name == "features.0" else ((512, 1, 1), torch.float32)
            state |= {f"{name}.weight": torch.ones(filters, *shape, dtype=kind), f"{name}.bias": torch.zeros(filters)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=says):
        imported(tmp_path / "net", tmp_path / "w.pth", weights="V1", head="classifier", architecture="squeezenet1_1")
    if change == {HEAD: None}:
        # Of the features alone that is how they are.
        found = weights.fitted("squeezenet1_1", "classifier", state)
        weights.check_published("squeezenet1_1", published.FEATURES, *found)


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
