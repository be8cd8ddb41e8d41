"""Repairs of a cut: nothing is lost where nothing is missing, and the regression is the one that brute force finds."""

import dataclasses
import functools
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.exports import cards
from winnow.files import InputError, read_json
from winnow.importance import compensation, moments, passes, recalibration, regression, sums
from winnow.networks import backbones, channels, consumers, couplings, models, surgery
from winnow.networks.backbones import Backbone
from winnow.tables import read_table
from winnow.training import cells, phases, protocols, repair, trunks
from winnow.workflow import grid

from . import programs
from .test_couplings import keep_of, units_of
from .test_finetune import RECIPE, inputs  # noqa: F401 - a fixture
from .test_finetune import job as finetuning
from .test_phases import trunk_job

# Plain; concatenations; residuals with batch norms; Inception; depthwise convolutions; those with gates.
FAMILIES = ("vgg_digits", "squeezenet1_1", "resnet18", "googlenet", "mobilenet_v2", "mobilenet_v3_small")
CLASSES = 5


def shaped(network):
    """A backbone of a network with drawn weights, in double precision, that knows no architecture."""
    drawn = couplings.drawn(network)
    found = channels.of(network)
    manifest = {"layers": [vars(layer) for layer in found.layers]}
    return drawn, Backbone(manifest, {name: part.detach() for name, part in drawn.state_dict().items()}, found.table)


@functools.cache
def backbone_of(architecture):
    head = "gap" if architecture == "vgg_digits" else "classifier"
    return shaped(couplings.narrowed(backbones.build(architecture, head, CLASSES)))


def images_of(size, count=6, seed=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches_of(images, batch=4):
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(batch)]


def measured(network, backbone, images):
    return moments.measure(network, backbone.channels, batches_of(images), 1, head=True)


def cut(network, backbone, keep, found=None, ridge=1e-11):
    """The network less units, compensated where there are moments."""
    state = backbone.state
    if found is not None:
        state = compensation.compensated(network, state, backbone.channels, found, keep, ridge=ridge)
    sliced = surgery.slice_state(state, backbone.channels, keep)
    smaller = surgery.resize(couplings._skeleton(network), {name: part.shape for name, part in sliced.items()})
    smaller.load_state_dict(sliced, assign=True)
    return smaller.eval()


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def twins(network, backbone, keep):
    """Make every removed unit the double, or half, of one that stays in its layer: their outputs are multiples."""
    layers, rng = units_of(backbone), np.random.default_rng(0)
    rows = backbone.channels.to_pandas()
    owned = rows[rows["dimension"] == 0]
    state = {name: part.clone() for name, part in backbone.state.items()}
    for unit in np.flatnonzero(~keep):
        model = rng.choice(np.flatnonzero(keep & (layers == layers[unit])))
        for one, other in zip(
            owned[owned["unit"] == unit].itertuples(), owned[owned["unit"] == model].itertuples(), strict=True
        ):
            assert (one.tensor, one.length) == (other.tensor, other.length)
            state[one.tensor][one.first : one.first + one.length] = state[other.tensor][
                other.first : other.first + other.length
            ]
    network.load_state_dict(state)
    return Backbone(backbone.manifest, state, backbone.channels)


@pytest.mark.slow("networks of many families are cut and compared in double precision")
@pytest.mark.parametrize("architecture", FAMILIES)
def test_nothing_is_lost_where_the_removed_are_like_those_that_stay(architecture):
    network, backbone = backbone_of(architecture)
    keep = keep_of(backbone, "layer", 0.3)
    backbone = twins(network, backbone, keep)
    images = images_of(64)
    with torch.inference_mode():
        expected = network(images)
        found = measured(network, backbone, images)
        assert difference(cut(network, backbone, keep)(images), expected) > 1e-3
        assert difference(cut(network, backbone, keep, found)(images), expected) < 1e-6


class Small(nn.Module):
    """All that a repair meets, in one small network: a constant filter, a layer with batch norm behind it and no bias,
    one with neither, a pool, a flattened map and a second linear layer."""

    def __init__(self, padding):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 6, 3, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.three = nn.Conv2d(6, 7, 3, 2, padding, bias=False)
        self.four = nn.Conv2d(7, 6, 3, padding=padding)
        self.hidden = nn.Linear(6 * 9, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = F.relu(self.norm(self.two(F.relu(self.one(x)))))
        x = F.relu(self.four(F.relu(self.three(x))))
        return self.head(F.relu(self.hidden(torch.flatten(F.adaptive_max_pool2d(x, 3), 1))))


def small(padding=1):
    network, backbone = shaped(Small(padding))
    keep = np.ones(backbone.units, dtype=bool)
    for layer in np.unique(units_of(backbone)):
        keep[np.flatnonzero(units_of(backbone) == layer)[[1, 3, 4]]] = False
    return network, backbone, keep


def test_every_layer_of_a_small_network_knows_where_its_inputs_come_from_and_what_takes_a_constant():
    network, backbone, _ = small()
    found = {each.layer: each for each in consumers.consumers(network, backbone.channels)}
    assert {name: each.shift for name, each in found.items()} == {
        "two": "norm.running_mean",
        "three": None,
        "four": "four.bias",
        "hidden": "hidden.bias",
    }
    assert consumers.block(backbone.channels, "hidden", 54) == 9
    assert consumers.block(backbone.channels, "two", 8) == 1
    assert consumers.unnormalised(network) == ["one", "four", "hidden", "head"]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("layer", ["two", "three", "four", "hidden"])
def test_the_regression_is_the_one_that_least_squares_finds_pixel_by_pixel(layer, padding):
    """Brute force: each pixel that a layer hears is a row, padding as often as im2col's columns have it."""
    network, backbone, keep = small(padding)
    images, ridge = images_of(16, 20), 0.05
    heard = []
    hook = network.get_submodule(layer).register_forward_hook(lambda module, given, output: heard.append(given[0]))
    with torch.inference_mode():
        network(images)
        hook.remove()
        found = measured(network, backbone, images)
        state = compensation.compensated(network, backbone.state, backbone.channels, found, keep, ridge=ridge)
    module, maps = network.get_submodule(layer), heard[0].reshape(20, -1, 9) if layer == "hidden" else heard[0]
    block = 9 if layer == "hidden" else 1
    gone = consumers.gone(backbone.channels, layer, module.weight.shape[1], keep)[::block]
    pixels = maps.flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    padded = 0.0
    if layer != "hidden":
        columns = F.unfold(torch.ones_like(maps[:1, :1]), module.kernel_size, 1, module.padding, module.stride)
        padded = 1 - columns.mean().item()
    assert (padded > 0) == (padding == 1 and layer != "hidden")
    constant = layer != "three"

    # A row of zeros of the weight of all padding; a column of ones; and a row a kept input for the ridge.
    kept, lost = (np.vstack([pixels[:, which], np.zeros(which.sum())]) for which in (~gone, gone))
    weight = np.r_[np.full(len(pixels), 1.0), len(pixels) * padded / (1 - padded) if constant else 0.0]
    share = weight / weight.sum()
    mean = share @ kept * constant
    penalty = ridge * (share @ (kept - mean) ** 2).mean()
    root, inputs_kept = np.sqrt(share)[:, None], kept.shape[1]
    design = np.vstack(
        [root * np.c_[kept, np.full(len(kept), constant)], np.sqrt(penalty) * np.eye(inputs_kept, inputs_kept + 1)]
    )
    wanted = np.vstack([root * lost, np.zeros((inputs_kept, lost.shape[1]))])
    solution = np.linalg.lstsq(design, wanted, rcond=None)[0].T
    slope, shift = solution[:, :-1], solution[:, -1]

    taps = backbone.state[f"{layer}.weight"].reshape(module.weight.shape[0], gone.size, -1).numpy()
    expected = taps[:, ~gone] + np.einsum("ort,rs->ost", taps[:, gone], slope)
    own = state[f"{layer}.weight"].reshape(taps.shape).numpy()
    assert np.abs(own[:, ~gone] - expected).max() < 1e-8
    assert np.array_equal(own[:, gone], taps[:, gone])
    added = taps[:, gone].sum(2) @ shift
    for name, sign in ((f"{layer}.bias", 1), ("norm.running_mean" if layer == "two" else None, -1)):
        if name in state:
            assert np.abs((state[name] - backbone.state[name]).numpy() - sign * added).max() < 1e-8


def test_a_constant_is_made_up_for_where_something_takes_it():
    network, backbone, keep = small(padding=0)
    state = {name: part.clone() for name, part in backbone.state.items()}
    gone = ~keep & (units_of(backbone) == "one")
    filters = backbone.channels.filter(gone[backbone.channels["unit"].to_numpy()]).to_pandas()["filter"].unique()
    state["one.weight"][filters], state["one.bias"][filters] = 0, 2.0
    network.load_state_dict(state)
    backbone = Backbone(backbone.manifest, state, backbone.channels)
    images = images_of(16, 20)
    with torch.inference_mode():
        expected, found = network(images), measured(network, backbone, images)
        assert difference(cut(network, backbone, ~gone)(images), expected) > 1e-3
        assert difference(cut(network, backbone, ~gone, found)(images), expected) < 1e-8


@pytest.mark.parametrize("architecture", ["small", "squeezenet1_1"])
def test_a_network_that_has_lost_units_is_compensated_for_the_next(architecture):
    network, backbone = small()[:2] if architecture == "small" else backbone_of(architecture)
    keep = keep_of(backbone, "layer", 0.4)
    backbone = twins(network, backbone, keep)
    # First half of the removed, then the others.
    half = keep | (np.cumsum(~keep) % 2 == 0)
    images = images_of(64, 4)
    with torch.inference_mode():
        expected = network(images)
        first = cut(network, backbone, half, measured(network, backbone, images))
        found = moments.measure(first, backbone.channels, batches_of(images), 1, head=True)
        state = compensation.compensated(first, first.state_dict(), backbone.channels, found, keep, half, ridge=1e-11)
        sliced = surgery.slice_state(state, backbone.channels, keep, half)
        surgery.resize(first, {name: part.shape for name, part in sliced.items()})
        first.load_state_dict(sliced, assign=True)
        assert difference(first(images), expected) < 1e-6


def test_moments_do_not_depend_on_batches_and_are_of_all_images():
    network, backbone, _ = small()
    images = images_of(16, 20)
    labels = torch.arange(20) % 3

    def found(batch):
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        return moments.measure(network, backbone.channels, parts, 4)

    whole, parts = found(20), found(3)
    assert whole.images.tolist() == [7, 7, 6, 0]
    assert whole.layers == parts.layers
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(parts.arrays[name], array, rtol=1e-10)
    assert whole.arrays["relu.gram"][-1, -1] == 20 * 16 * 16
    assert not any(name.startswith("head") for name in whole.arrays)


def test_what_is_not_finite_is_named():
    network, backbone, _ = small()
    with torch.no_grad():
        network.two.weight[0] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        measured(network, backbone, images_of(16))


def test_moments_of_another_network_are_refused():
    network, backbone, keep = small()
    found = measured(network, backbone, images_of(16))
    found.arrays["relu.gram"] = found.arrays["relu.gram"][1:, 1:]
    with pytest.raises(InputError, match="7 inputs of two, the network has 8"):
        cut(network, backbone, keep, found)


def test_recalibration_leaves_every_output_as_large_and_as_spread_as_it_was():
    network, backbone, keep = small()
    images = images_of(16, 30)
    found = measured(network, backbone, images)
    goals = recalibration.targets(found, backbone.channels, keep)
    # Only layers without batch norm have goals, of the filters that stay.
    assert {name: len(mean) for name, (mean, _) in goals.items()} == {"one": 5, "four": 3, "hidden": 16}
    smaller = cut(network, backbone, keep)
    # A filter that has hardly anything left to say is not made to shout, nor is a dead one.
    with torch.no_grad():
        smaller.four.weight[0] *= 1e-4
        smaller.hidden.weight[0] = 0
    recalibration.recalibrate(smaller, goals, batches_of(images, 30))
    outputs = {}
    for name, module in smaller.named_modules():
        module.register_forward_hook(
            lambda module, given, output, name=name: outputs.update({name: (given[0], output)})
        )
    with torch.inference_mode():
        smaller(images)
    heard = outputs["norm"][0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(smaller.norm.running_mean, heard.mean(1))
    torch.testing.assert_close(smaller.norm.running_var, heard.var(1, correction=0))
    for name, first in (("one", 0), ("four", 1), ("hidden", 1)):
        rows = outputs[name][1].transpose(0, 1).flatten(1)[first:]
        mean, variance = (each[first:] for each in goals[name])
        torch.testing.assert_close(rows.mean(1), mean)
        torch.testing.assert_close(rows.var(1, correction=0), variance)
    whisper = outputs["four"][1][:, 0]
    torch.testing.assert_close(whisper.mean(), goals["four"][0][0])
    assert 0 < whisper.var() < 1e-2 * goals["four"][1][0]
    assert outputs["hidden"][1].isfinite().all()


STILL = RECIPE | {"learning_rate": 1e-12, "momentum": 0.0}


@pytest.fixture(scope="module")
def made(inputs):  # noqa: F811
    """The inputs with the backbone's moments and scores."""
    places = (*programs.dataset(inputs / "store"), "--backbone", inputs / "net")
    programs.run("correlate", {"code": "0"}, *places, "--output", inputs / "moments.json")
    spec = {"criterion": "average_weight", "source": None, "seed": None, "code": "0"}
    programs.run("score", spec, "--backbone", inputs / "net", "--output", inputs / "average_weight.parquet")
    return inputs


def cell(made, output, protocol, *more, **options):
    spec, *arguments = finetuning(made, output, protocol=protocol, **options)
    programs.run("finetune", spec, *arguments, *more)
    return models.load(output)[0], read_json(output / "metrics.json")


def features_of(network, made):
    """What comes to the last layer on the training images, (images, features)."""
    store, found = Store.open(made / "store"), []
    rows = Split.open(made / "store.parquet", store).rows("train")
    network.get_submodule(backbones.last_layer(network)).register_forward_pre_hook(
        lambda module, given: found.append(given[0])
    )
    manifest = read_json(made / "net" / "manifest.json")
    with torch.inference_mode():
        for images, _ in passes.batches_of(store, rows, manifest, "cpu", 64):
            network(images)
    return torch.cat(found)


def told(network, made):
    """The share of training images that a network tells."""
    store = Store.open(made / "store")
    rows, manifest = Split.open(made / "store.parquet", store).rows("train"), read_json(made / "net" / "manifest.json")
    ((images, labels),) = passes.batches_of(store, rows, manifest, "cpu", rows.size)
    with torch.inference_mode():
        return (network(images).argmax(1) == labels).double().mean().item()


def test_a_cell_begins_with_what_the_library_makes_of_its_moments(made, tmp_path):
    backbone = backbones.load(made / "net")
    keep = surgery.read_mask(made / "mask.parquet", backbone)[0]
    found = sums.read(made / "moments.json", moments.KIND)
    network, metrics = cell(made, tmp_path, "compensated", "--moments", made / "moments.json", recipe=STILL)
    state = compensation.compensated(backbone.network(), backbone.state, backbone.channels, found, keep)
    expected = surgery.slice_state(state, backbone.channels, keep)
    assert any(not torch.equal(state[name], part) for name, part in backbone.state.items())
    head = backbones.last_layer(network)
    for name, part in network.state_dict().items():
        if not name.startswith(head):
            torch.testing.assert_close(part, expected[name])
    assert metrics["seconds"]["repair"] > 0


def test_each_repair_does_its_part_and_all_go_together(made, tmp_path):
    whole = features_of(backbones.load(made / "net").network(), made)
    keep = surgery.read_mask(made / "mask.parquet", backbones.load(made / "net"))[0]
    gone = consumers.gone(backbones.load(made / "net").channels, "classifier.0", whole.shape[1], keep)
    errors, right = {}, {}
    for repairs in ("one_shot", "compensated", "recalibrated", "compensated_recalibrated_fitted"):
        options = [] if repairs == "one_shot" else ["--moments", made / "moments.json"]
        network, _ = cell(made, tmp_path / repairs, repairs, *options, recipe=STILL)
        errors[repairs] = (features_of(network, made) - whole[:, ~gone]).square().mean().item()
        right[repairs] = told(network, made)
    assert errors["compensated"] < 0.5 * errors["one_shot"]
    assert errors["recalibrated"] < errors["one_shot"]
    # The last layer knows its classes before any training.
    assert right["compensated_recalibrated_fitted"] > max(0.9, right["one_shot"], right["compensated"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What fits a last layer: 36 images of three kinds, each a colour of its own under noise."""
    folder, rng = tmp_path_factory.mktemp("plain") / "store", np.random.default_rng(0)
    labels, kinds = np.arange(36) % 3, rng.integers(0, 255, (3, 1, 1, 3))
    pixels = (3 * kinds[labels] + rng.integers(0, 255, (36, 64, 64, 3))) // 4
    programs.stored(folder, pixels.astype(np.uint8), labels.tolist(), ["train"] * 30 + ["val"] * 3 + ["test"] * 3)
    store = Store.open(folder)
    manifest = SimpleNamespace(manifest={"mean": [0.5] * 3, "std": [0.25] * 3})
    split, lease = Split.open(folder.with_suffix(".parquet"), store), SimpleNamespace(device="cpu")
    return SimpleNamespace(store=store, split=split, lease=lease, backbone=manifest)


@pytest.mark.parametrize(
    ("architecture", "head"),
    [(name, "classifier") for name in ("vgg11", "resnet18", "squeezenet1_1", "googlenet")] + [("vgg11", "gap")],
)
def test_a_fitted_last_layer_knows_the_training_images_and_can_be_trained_from(plain, request, architecture, head):
    network = couplings.drawn(couplings.narrowed(backbones.build(architecture, head, 3))).float()
    name = backbones.last_layer(network)
    heard = network.get_submodule(name)
    # Features of very different size.
    widths = heard.weight.shape[1]
    sizes = torch.logspace(-4, 1, widths)[torch.randperm(widths, generator=torch.Generator().manual_seed(0))]
    sizes = sizes.view(-1, 1, 1) if isinstance(heard, nn.Conv2d) else sizes

    def sized(module, given):
        return (given[0] * sizes,) if module is network.get_submodule(name) else None

    hook = nn.modules.module.register_module_forward_pre_hook(sized)
    request.addfinalizer(hook.remove)
    rows = plain.split.rows("train")
    ((images, labels),) = passes.batches_of(plain.store, rows, plain.backbone.manifest, "cpu", rows.size)

    def judged(precision=torch.float32):
        with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = network.eval()(images).float()
        assert logits.isfinite().all()
        right = (logits.argmax(1) == labels).double().mean().item()
        return F.cross_entropy(logits, labels.long()).item(), right, logits.abs().max().item()

    size = heard.weight.square().mean().sqrt().item()
    before = judged()
    repair.fitted(network, plain)
    loss, right, largest = judged()
    assert right >= max(before[1], 0.9)
    assert loss < np.log(3)
    # Of a size that the training's step and precision are made for.
    assert network.get_submodule(name).weight.square().mean().sqrt().item() <= size * (1 + 1e-5)
    assert largest < 100
    assert judged(torch.bfloat16)[0] == pytest.approx(loss, abs=0.1)
    assert all(part.requires_grad for part in network.parameters())


def test_a_training_that_spoils_a_fitted_network_ends_with_the_one_that_it_began_with(made, tmp_path):
    spoiling = RECIPE | {"learning_rate": 3.0, "clip_norm": 1.0}
    moved = ("--moments", made / "moments.json")
    for protocol, epochs in (("compensated_recalibrated_fitted", {0}), ("compensated_recalibrated", {1, 2, 3})):
        network, metrics = cell(made, tmp_path / protocol, protocol, *moved, recipe=spoiling)
        assert metrics["epoch"] in epochs
        assert (told(network, made) > 0.8) == (metrics["epoch"] == 0)
    for name, epochs in (("fitted_fine_tune_first", {0}), ("compensated_fine_tune_first", {1, 2, 3})):
        found = grid.Cell("d", "b", "average_weight", "layer", 0.5, None, "inherited", 3, name)
        spec, *arguments = trunk_job(made, tmp_path / name, found, spoiling)
        programs.run("trunk", spec, *arguments, *moved)
        assert read_json(tmp_path / name / trunks.MANIFEST)["epoch"] in epochs


def test_the_penalty_is_the_one_that_tells_held_out_images_best():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    noise = torch.randn(60, 50, generator=generator)
    clear = noise.clone()
    clear[:, :3] += 10 * torch.eye(3)[labels]
    # What says nothing is not believed, and the more a clear sign is believed the better.
    assert repair.penalty_for(noise, labels, 3, noise.std(0))[0] == repair.PENALTIES[-1]
    penalty, (weight, bias) = repair.penalty_for(clear, labels, 3, clear.std(0))
    assert penalty < repair.PENALTIES[-1]
    assert repair.penalty_for(clear[:3], labels[:3], 3, clear.std(0)) == (repair.PENALTIES[-1], None)
    # The layer of the images that were not held out, as from zero.
    seen = torch.arange(60) // 3 % 3 != 1
    cold = regression.fit(clear[seen], labels[seen], 3, penalty, clear.std(0))
    torch.testing.assert_close(weight, cold[0], rtol=1e-3, atol=1e-3 * weight.abs().max().item())
    torch.testing.assert_close(bias, cold[1], rtol=1e-3, atol=1e-3)


def test_what_needs_moments_says_so(made, tmp_path):
    for repairs in ("compensated", "recalibrated"):
        with pytest.raises(InputError, match="--moments"):
            cell(made, tmp_path, repairs)
    network, _ = cell(made, tmp_path, "fitted", recipe=STILL)
    assert features_of(network, made).isfinite().all()


def test_a_class_without_training_images_has_a_last_layer_that_can_be_trained(made, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (33, 8, 8, 3), dtype=np.uint8)
    splits = ["train", "train", "train", "val", "val", *["test"] * 6] * 2 + ["val"] * 5 + ["test"] * 6
    programs.stored(tmp_path / "store", pixels, [n // 11 for n in range(33)], splits)
    spec, *_ = finetuning(made, tmp_path / "cell", protocol="fitted", recipe=RECIPE | {"weight_decay": 1e-3})
    arguments = [*programs.dataset(tmp_path / "store"), "--backbone", made / "net", "--mask", made / "mask.parquet"]
    programs.run("finetune", spec, *arguments, "--output", *programs.cell(tmp_path / "cell"))
    metrics = read_json(tmp_path / "cell" / "metrics.json")
    assert (metrics["status"], metrics["per_class"]["r"]) == ("finished", 0.0)


def test_a_card_says_how_a_network_was_repaired():
    cell = {"backbone": "net", "criterion": "apoz", "scope": "layer", "init": "inherited"}
    text = cards.method(cell | {"protocol": "compensated_fitted_iterative_2"}, {"achieved_ratio": 0.5})
    assert "After the cut, what removed inputs gave was predicted from those that stayed" in text
    assert "the last layer began as the logistic regression" in text
    assert "in 2 steps" in text
    assert "After the cut" not in cards.method(cell | {"protocol": "one_shot"}, {"achieved_ratio": 0.5})


@pytest.mark.parametrize("criterion", ["average_weight", "apoz"])
def test_a_cut_after_training_is_repaired_by_what_the_trained_network_hears(plain, monkeypatch, criterion):
    """Brute force: all that a layer hears at any position of a training image, in eval mode, by trained weights."""
    _, backbone = shaped(couplings.narrowed(backbones.build("vgg11", "classifier", 3)))
    backbone.manifest.update(architecture="vgg11", head="classifier", classes=3, **plain.backbone.manifest)
    network = couplings.narrowed(backbones.build("vgg11", "classifier", 3)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    trained = {
        name: (part + 0.02 * torch.randn(part.shape, generator=generator)).float()
        for name, part in backbone.state.items()
    }
    spec = {"cell": {"scope": "layer", "round_to": None, "criterion": criterion, "seed": 0}, "min_filters": 1}
    bench = SimpleNamespace(
        **vars(plain)
        | {"backbone": backbone, "repairs": ("compensated",), "arguments": SimpleNamespace(spec=spec, prices=None)}
    )
    given = []
    monkeypatch.setattr(compensation, "compensated", lambda *arguments: given.append(arguments) or arguments[1])
    behind = SimpleNamespace(state=trained)
    phases.cut(network.train(), behind, cells.Before(), Fraction(2, 5), True, bench)
    ((_, state, _, found, keep, _),) = given
    assert state is trained
    assert 0 < (~keep).sum() < keep.size
    heard = []
    hook = network.features[3].register_forward_hook(lambda module, pixels, output: heard.append(pixels[0]))
    rows = plain.split.rows("train")
    with torch.inference_mode():
        network.load_state_dict(trained)
        for images, _ in passes.batches_of(plain.store, rows, backbone.manifest, "cpu", 7):
            network.eval()(images)
    hook.remove()
    pixels = torch.cat(heard).double().transpose(0, 1).flatten(1)
    pixels = torch.cat([pixels, torch.ones_like(pixels[:1])]).numpy()
    np.testing.assert_allclose(found.of("features.2", moments.GRAM), pixels @ pixels.T, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["fine_tune_first", "iterative_2"])
def test_each_cut_of_a_cell_that_prunes_while_it_trains_is_repaired(made, tmp_path, protocol):
    errors = {}
    for repairs in ("none", "compensated", "compensated_recalibrated_fitted"):
        name = protocols.repaired(repairs, protocol)
        found = grid.Cell("d", "b", "average_weight", "layer", 0.5, None, "inherited", 3, name)
        spec, *arguments = trunk_job(made, tmp_path / name / "trunk", found, STILL)
        assert ("--scores" in arguments) == (protocol != "fine_tune_first")
        programs.run("trunk", spec, *arguments, *(["--moments", made / "moments.json"] if repairs != "none" else []))
        spec = {"cell": dataclasses.asdict(found), "recipe": STILL, "min_filters": 1, "code": "0"}
        arguments = [
            *programs.dataset(made / "store"),
            "--backbone",
            made / "net",
            "--trunk",
            tmp_path / name / "trunk",
        ]
        programs.run("finetune", spec, *arguments, "--output", *programs.cell(tmp_path / name))
        network, backbone = models.load(tmp_path / name)[0], backbones.load(made / "net")
        keep = read_table(tmp_path / name / "mask.parquet", "mask")["keep"].to_numpy(zero_copy_only=False)
        whole = features_of(backbone.network(), made)
        gone = consumers.gone(backbone.channels, "classifier.0", whole.shape[1], keep)
        errors[repairs] = (features_of(network, made) - whole[:, ~gone]).square().mean().item()
    assert errors["compensated"] < 0.7 * errors["none"]
    assert errors["compensated_recalibrated_fitted"] < 0.7 * errors["none"]
