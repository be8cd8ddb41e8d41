"""Backbones that are no VGG: torchvision's other families and networks of one's own, from import to a trained cell."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from winnow import tables
from winnow.files import InputError, read_json
from winnow.importance import criteria, sums
from winnow.networks import architectures, backbones, factories, models, weights

from . import programs
from .fabricated import table_of
from .test_backbones import IMAGENET, imported
from .test_finetune import RECIPE

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights"
here = pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{WEIGHTS} is not here")


def stored(directory, size):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, size, size, 3), dtype=np.uint8)
    programs.stored(directory, pixels, [n // 6 for n in range(12)], (["train"] * 4 + ["val", "test"]) * 2)


def scored(folder, criterion, seed=None):
    arguments = ["--backbone", folder / "net", "--statistics", folder / "a.json"]
    output = folder / f"{criterion}.parquet"
    programs.run("score", {"criterion": criterion, "seed": seed, "code": "0"}, *arguments, "--output", output)
    return tables.read_table(output, "scores").to_pandas()


def measured(folder, size):
    stored(folder / "store", size)
    arguments = [*programs.dataset(folder / "store"), "--backbone", folder / "net", "--output", folder / "a.json"]
    programs.run("measure", {"code": "0"}, *arguments)


def cell(folder, criterion, ratio=0.4, scope="layer"):
    """A mask and a cell by it; the cell's metrics."""
    spec = {"scope": scope, "ratio": ratio, "round_to": None, "min_filters": 1, "code": "0"}
    programs.run("mask", spec, "--scores", folder / f"{criterion}.parquet", "--output", folder / "mask.parquet")
    recipe = RECIPE | {"epochs": 1, "learning_rate": 1e-3}
    names = {"dataset": "d", "backbone": "b", "criterion": criterion, "scope": scope, "ratio": ratio, "round_to": None}
    spec = {
        "cell": names | {"init": "inherited", "seed": 0, "protocol": "one_shot"},
        "recipe": recipe,
        "code": "0",
    }
    arguments = [*programs.dataset(folder / "store"), "--backbone", folder / "net", "--mask", folder / "mask.parquet"]
    programs.run("finetune", spec, *arguments, "--output", *programs.cell(folder / "cell"))
    return read_json(folder / "cell" / "metrics.json")


@pytest.mark.slow("a network of each family is trained")
@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet1_1"])
def test_from_import_to_a_trained_cell(architecture, tmp_path):
    imported(tmp_path / "net", architecture=architecture, head="classifier", weights="random")
    measured(tmp_path, 64)
    backbone = backbones.load(tmp_path / "net")
    members = backbone.channels.to_pandas()[["unit", "layer", "filter"]].drop_duplicates()
    order = [layer["layer"] for layer in backbone.manifest["layers"]]
    members["place"] = members["layer"].map(order.index)
    members = members.sort_values(["unit", "place"], ignore_index=True)
    first = members.groupby("unit").first()

    activations = table_of(sums.read(tmp_path / "a.json", "activations"))
    summed = activations.groupby(["layer", "filter"])[["sum", "zeros", "images"]].sum()
    summed["positions"] = activations.groupby(["layer", "filter"])["positions"].first()
    for name, column in (("mean_activation", "sum"), ("apoz", "zeros")):
        found = scored(tmp_path, name)
        assert found["layer"].tolist() == first["layer"].tolist()
        assert found["filter"].tolist() == first["filter"].tolist()
        own = summed.loc[[*zip(members["layer"], members["filter"], strict=True)]].reset_index(drop=True)
        value = (own[column] / own["images"] / own["positions"]).groupby(members["unit"]).mean()
        np.testing.assert_allclose(found["value"], value, rtol=1e-12)
        np.testing.assert_allclose(found["score"], 1 - value if name == "apoz" else value, rtol=1e-12)
    weights = scored(tmp_path, "average_weight")["value"].to_numpy()
    unit = members["unit"].max()
    rows = members[members["unit"] == unit]
    values = [backbone.state[f"{row.layer}.weight"][row.filter].abs().mean().item() for row in rows.itertuples()]
    assert weights[unit] == pytest.approx(np.mean(values), rel=1e-5)
    drawn = scored(tmp_path, "random", seed=3)["value"].to_numpy()
    np.testing.assert_array_equal(drawn, np.random.Generator(np.random.PCG64(3)).random(backbone.units))

    metrics = cell(tmp_path, "apoz")
    assert metrics["status"] == "finished"
    assert abs(metrics["achieved_ratio"] - 0.4) < 0.02
    network, _ = models.load(tmp_path / "cell")
    assert metrics["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_apoz_says_which_layer_has_no_relu(tmp_path):
    imported(tmp_path / "net", architecture="mobilenet_v3_small", head="gap", weights="random")
    measured(tmp_path, 32)
    scored(tmp_path, "mean_activation")
    with pytest.raises(
        InputError, match=r"apoz needs .* relu, relu6: that of layer features\.1\.block\.2\.0 is none, as for"
    ):
        scored(tmp_path, "apoz")
    manifest = read_json(tmp_path / "net" / "manifest.json")
    assert backbones.load(tmp_path / "net").state["classifier.0.weight"].shape == (1000, 576)
    assert criteria.CRITERIA["apoz"].activations == ("relu", "relu6")
    assert {"hardswish", "relu", "none"} == {layer["function"] for layer in manifest["layers"]}


def test_a_head_that_there_is_not_is_an_error():
    with pytest.raises(InputError, match="resnet18 has no head gap, its own is as small; allowed: classifier"):
        backbones.build("resnet18", "gap", 2)


@pytest.mark.slow("every architecture is looked through")
@pytest.mark.parametrize("architecture", architectures.TORCHVISION)
def test_every_architecture_is_torchvisions_and_publishes_weights(architecture):
    network = backbones.build(architecture, "classifier", 7)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert network.get_submodule(backbones.last_layer(network)).weight.shape[0] == 7
    assert "IMAGENET1K_V1" in torchvision.models.get_model_weights(architecture).__members__


def test_weights_as_torchvision_publishes_them_fit(tmp_path):
    with torch.device("cpu"):
        reference = torchvision.models.googlenet(weights=None, init_weights=False).eval()
        torch.save(reference.state_dict(), tmp_path / "w.pth")
    imported(tmp_path / "net", tmp_path / "w.pth", weights=None, architecture="googlenet", head="classifier")
    reference.transform_input = True  # what torchvision sets with its weights
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(backbones.load(tmp_path / "net").network()(images), reference(images))


@pytest.mark.parametrize("architecture", ["convnext_tiny", "mnasnet0_5", "swin_t", "swin_v2_t"])
def test_a_network_that_is_built_another_way_answers_as_torchvisions(architecture):
    reference = torchvision.models.get_model(architecture, num_classes=5).eval()
    # As a file has them: tensors alone.
    network, drawn, left = weights.fitted(architecture, "classifier", dict(reference.state_dict()))
    assert drawn == left == []
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), reference(images))


@pytest.mark.parametrize("architecture", ["swin_tiny_patch4_window7_224", "resnetblur50"])
def test_what_timm_makes_with_a_network_and_writes_to_no_file_is_made(architecture):
    reference = timm.create_model(architecture, num_classes=5).eval()
    network, drawn, left = weights.fitted(f"timm/{architecture}", "classifier", dict(reference.state_dict()))
    assert drawn == left == []
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(images), reference(images), rtol=1e-4, atol=1e-5)


def test_what_no_recipe_draws_is_as_its_author_makes_it():
    drawn = backbones.initialised("timm/convnext_atto", "classifier", 5, 0)
    gamma = drawn.stages[0].blocks[0].gamma
    assert torch.equal(gamma, torch.full_like(gamma, 1e-6))
    # Of a layer that scales its weights nobody says what they are once it is narrower.
    narrow = backbones.build("timm/nf_resnet26", "classifier", 5)
    convolution = narrow.stem.conv
    convolution.weight = torch.nn.Parameter(convolution.weight[:8])
    with pytest.raises(InputError, match=r"ScaledStdConv2d.* cannot be drawn"):
        backbones.initialise(
            narrow.to_empty(device="cpu"),
            torch.Generator().manual_seed(0),
            lambda: backbones.build("timm/nf_resnet26", "classifier", 5, "cpu"),
        )


def test_old_names_of_a_densenets_tensors_are_understood():
    names = ["features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.conv.2.weight"]
    names += ["features.transition1.norm.weight", "classifier.weight"]
    found = weights.renamed("densenet121", dict.fromkeys(names))
    assert list(found) == [re.sub(r"(norm|conv)\.([12])", r"\1\2", name) for name in names]
    assert set(found) <= set(backbones.build("densenet121", "classifier", 2).state_dict())


SOURCE = """
    from torch import nn

    def Net(classes):
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *pool, nn.Linear(8, classes))

    answer = 42

    def broken(classes):
        raise RuntimeError("no network today")
"""


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SOURCE))
    return path


def test_a_network_of_ones_own_goes_all_the_way(module, tmp_path):
    identity = factories.identity(f"{module}:Net")
    imported(tmp_path / "net", architecture=identity, head="classifier", weights="random")
    measured(tmp_path, 16)
    scored(tmp_path, "apoz")
    assert cell(tmp_path, "apoz")["achieved_ratio"] == 3 / 8
    network, description = models.load(tmp_path / "cell")
    assert network[0].weight.shape == (5, 3, 3, 3)
    assert description["architecture"] == identity
    module.write_text(module.read_text() + "\nmore = 1\n")
    assert factories.identity(f"{module}:Net") != identity
    with pytest.raises(InputError, match=r"mine\.py:Net was changed since its network was imported"):
        models.load(tmp_path / "cell")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py:Other", "mine.py has no function or class 'Other'"),
        ("mine.py:answer", "mine.py has no function or class 'answer'"),
        ("mine.py:broken", "fails: RuntimeError: no network today"),
        ("mine.py:int", "has no function or class 'int'"),
        ("gone.py:Net", "gone.py does not exist"),
    ],
)
def test_a_factory_that_is_of_no_use_is_named(module, name, says):
    with pytest.raises(InputError, match=says):
        backbones.build(factories.identity(f"{module.parent}/{name}"), "classifier", 2)


@here
def test_real_weights_of_a_network_of_ones_own(tmp_path):
    identity = factories.identity(f"{WEIGHTS}/bvlc_googlenet.py:GoogLeNet")
    file = WEIGHTS / "bvlc_googlenet-imagenet-fp16.pt"
    imported(tmp_path / "net", file, weights=None, architecture=identity, head="classifier", **IMAGENET)
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["classes"] == 1000
    assert len(manifest["layers"]) == 55
    # The first and the third convolution are normalised across their channels.
    assert [each["layer"] for each in manifest["left_out"]] == ["conv1", "conv2"]
    state = load_file(tmp_path / "net" / "weights.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    measured(tmp_path, 64)
    scored(tmp_path, "apoz")
    assert cell(tmp_path, "apoz", scope="global")["status"] == "finished"


@here
def test_real_weights_of_a_squeezenet(tmp_path):
    file = WEIGHTS / "squeezenet1_1-imagenet.pt"
    imported(tmp_path / "net", file, weights=None, architecture="squeezenet1_1", head="classifier", **IMAGENET)
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["classes"] == 1000
    assert [each["layer"] for each in manifest["left_out"]] == ["classifier.1"]
    measured(tmp_path, 64)
    scored(tmp_path, "mean_activation")
    assert cell(tmp_path, "mean_activation")["status"] == "finished"
