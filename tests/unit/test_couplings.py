"""Any network: which filters go together, that a network without them answers as one in which they are silent."""

import copy
import functools

import numpy as np
import pandas as pd
import pytest
import torch
import torch_pruning
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.ops import MLP

from winnow.files import InputError
from winnow.importance import masks
from winnow.networks import backbones, channels, consumers, couplings, models, pointwise, surgery, tracing
from winnow.networks.backbones import Backbone
from winnow.tables import SCHEMAS

from .fabricated import table_of

FAMILIES = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "densenet121",
    "googlenet",
    "efficientnet_b0",
    "alexnet",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "timm/convnext_atto",
    "timm/tf_efficientnet_lite0",
)


def backbone_of(network, architecture=None):
    """A backbone of a network's shapes, with drawn weights in which no channel is like another."""
    state = couplings.drawn(network).float().state_dict()
    found = channels.of(network)
    manifest = {"architecture": architecture, "head": "classifier", "classes": 5}
    manifest |= {"layers": [vars(layer) for layer in found.layers], "left_out": [vars(each) for each in found.left_out]}
    return Backbone(manifest, {name: tensor.detach() for name, tensor in state.items()}, found.table)


@functools.cache
def backbone(architecture):
    return backbone_of(backbones.build(architecture, "classifier", 5), architecture)


def units_of(backbone):
    """Each unit's layer: that of its first member in network order."""
    order = [layer["layer"] for layer in backbone.manifest["layers"]]
    units = backbone.channels.to_pandas().drop_duplicates(["unit", "layer"])
    units["order"] = units["layer"].map(order.index)
    return units.sort_values("order").groupby("unit").first()["layer"].to_numpy()


def keep_of(backbone, scope, ratio, seed=0):
    layers = units_of(backbone)
    return masks.mask(layers, np.random.default_rng(seed).random(layers.size), scope, ratio).keep


def removed(backbone, keep, network=None):
    state = surgery.slice_state(backbone.state, backbone.channels, keep)
    network = copy.deepcopy(network) if network else backbones.build(backbone.manifest["architecture"], "classifier", 5)
    surgery.resize(network.to("meta"), {name: tensor.shape for name, tensor in state.items()})
    network.load_state_dict(state, assign=True)
    return network.eval()


class Silenced(fx.Interpreter):
    """The unpruned network in which the removed units' members give zero, at the step that is their activation."""

    def __init__(self, network, backbone, keep):
        module, names = tracing.trace(network)
        super().__init__(module)
        self.names, self.gates = names, {}
        gone = backbone.channels.filter(~keep[backbone.channels["unit"].to_numpy()]).to_pandas()
        for layer in backbone.manifest["layers"]:
            gate = self.gates.setdefault(layer["activation"], torch.ones(layer["filters"]))
            gate[gone.loc[gone["layer"] == layer["layer"], "filter"].unique()] = 0

    def run_node(self, node):
        result = super().run_node(node)
        gate = self.gates.get(self.names.get(node))
        return result if gate is None else result * gate[:, None, None]


def deaf(network, backbone, keep):
    """The unpruned network in which layers hear zero from the removed units, whatever normalises them before."""
    rows = backbone.channels.to_pandas()
    inputs = rows[(rows["dimension"] == 1) & ~keep[rows["unit"]]]
    for tensor, part in inputs.groupby("tensor"):
        columns = np.concatenate([np.arange(f, f + n) for f, n in zip(part["first"], part["length"], strict=True)])

        def gate(module, arguments, columns=columns):
            heard = arguments[0].clone()
            heard[:, columns] = 0
            return (heard,)

        network.get_submodule(tensor.removesuffix(".weight")).register_forward_pre_hook(gate)
    return network


def difference(expected, found):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def images_of(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_removed_equals_masked(architecture):
    net = backbone(architecture)
    images = images_of(64)
    with torch.inference_mode():
        for scope, ratio in (("layer", 0.4), ("global", 0.2)):
            keep = keep_of(net, scope, ratio)
            assert np.count_nonzero(~keep) > 0
            found = removed(net, keep)(images)
            assert found.std() > 0, "answers that are all alike say nothing"
            assert difference(deaf(net.network(), net, keep)(images), found) <= 1e-4
            # A dense block normalises its inputs together: there, a filter that gives zero is not silent.
            if architecture != "densenet121":
                assert difference(Silenced(net.network(), net, keep).run(images), found) <= 1e-4


@pytest.mark.parametrize("v2", [False, True])
def test_a_swins_widths_within_its_blocks_are_units(v2):
    options = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if v2 else {}
    network = SwinTransformer([4, 4], 24, [1, 2], [2, 4], [4, 4], num_classes=5, **options)
    linear = {name: tuple(part.shape) for name, part in network.state_dict().items()}
    pointwise.convolve(network, MLP)
    assert {name: tuple(part.squeeze().shape) for name, part in network.state_dict().items()} == {
        name: tuple(torch.empty(shape).squeeze().shape) for name, shape in linear.items()
    }
    net = backbone_of(network)
    # What is between the two layers of a block; not its residual stream, which layer norms and attention take.
    widths = {"features.1.0.mlp.0": 96, "features.3.0.mlp.0": 192, "features.3.1.mlp.0": 192}
    assert {layer["layer"]: layer["filters"] for layer in net.manifest["layers"]} == widths
    assert {layer["function"] for layer in net.manifest["layers"]} == {"gelu"}
    whole, keep, images = copy.deepcopy(network), keep_of(net, "layer", 0.4), images_of(64)
    whole.load_state_dict(net.state)
    whole.eval()
    with torch.inference_mode():
        found = removed(net, keep, network)(images)
        assert difference(Silenced(whole, net, keep).run(images), found) <= 1e-4
        assert difference(whole(images), found) > 1e-3


@pytest.mark.parametrize("architecture", FAMILIES[:7])
def test_the_table_cuts_what_torch_pruning_cuts(architecture):
    net = backbone(architecture)
    network = net.network().requires_grad_()
    graph = torch_pruning.DependencyGraph().build_dependency(network, images_of(64, 1), verbose=False)
    keep, layers = np.ones(net.units, dtype=bool), units_of(net)
    rows = net.channels.to_pandas().drop_duplicates("unit").sort_values("unit")
    for layer in list(dict.fromkeys(layers))[::3]:
        gone = np.flatnonzero(layers == layer)[1::3]
        keep[gone] = False
        convolution = network.get_submodule(layer)
        filters = rows["filter"].to_numpy()[gone].tolist()
        graph.get_pruning_group(convolution, torch_pruning.prune_conv_out_channels, filters).prune()
    expected, ours = network.state_dict(), removed(net, keep)
    assert {name: tensor.shape for name, tensor in expected.items()} == {
        name: tensor.shape for name, tensor in ours.state_dict().items()
    }
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in expected.items())
    with torch.inference_mode():
        assert torch.equal(network(images_of(64)), ours(images_of(64)))


def by_layers(network):
    """A VGG's table as its layers say, one by one, and these layers. Units are numbered by layer, then filter."""
    features = dict(network.features.named_children())
    names = [f"features.{name}" for name, part in features.items() if isinstance(part, nn.Conv2d)]
    rows, layers, unit = [], [], 0
    for name, after in zip(names, [*names[1:], "classifier.0"], strict=True):
        convolution, position = network.get_submodule(name), int(name.split(".")[1])
        relu = next(at for at in range(position, len(features)) if isinstance(features[str(at)], nn.ReLU))
        layers.append(channels.Layer(name, convolution.out_channels, f"features.{relu}", "relu"))
        tensors = [f"{name}.weight", f"{name}.bias"]
        if relu - position == 2:
            tensors += [f"features.{position + 1}.{each}" for each in ("weight", "bias", "running_mean", "running_var")]
        columns = network.get_submodule(after).weight.shape[1] // convolution.out_channels
        slices = [*((tensor, 0, 1) for tensor in tensors), (f"{after}.weight", 1, columns)]
        for index in range(convolution.out_channels):
            rows += [(unit + index, name, index, *each[:2], index * each[2], each[2], 1) for each in slices]
        unit += convolution.out_channels
    return pd.DataFrame(rows, columns=SCHEMAS["channels"].names), layers


@pytest.mark.parametrize("head", ["gap", "classifier"])
@pytest.mark.parametrize("architecture", ["vgg_digits", "vgg11_bn"])
def test_the_graph_gives_a_vgg_the_table_that_follows_from_its_layers(architecture, head):
    network = backbones.build(architecture, head, 5)
    found = channels.of(network)
    expected, layers = by_layers(network)
    columns = list(expected.columns)
    table = found.table.to_pandas().sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(table, expected.sort_values(columns, ignore_index=True), check_dtype=False)
    assert found.layers == layers
    assert found.left_out == []


class Heads(nn.Module):
    """Linear layers of which some hear each other alone."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.alone = nn.Sequential(nn.Linear(8, 100), nn.ReLU(), nn.Dropout(), nn.Linear(100, 90))
        self.shared, self.normed, self.norm = nn.Linear(90, 90), nn.Linear(90, 90), nn.LayerNorm(90)
        self.last = nn.Linear(90, 5)

    def forward(self, images):
        shared = self.shared(self.alone(self.body(images)))
        return self.last(torch.relu(self.norm(self.normed(shared + 1) + shared)))


def test_what_only_linear_layers_hear_of_one_another_is_narrowed_and_nothing_else():
    assert tracing.linear_pairs(Heads()) == [("alone.0", "alone.3"), ("alone.3", "shared")]
    before = Heads()
    shapes = {name: tuple(part.shape) for name, part in couplings.narrowed(before).state_dict().items()}
    changed = {name: shape for name, shape in shapes.items() if shape != tuple(before.state_dict()[name].shape)}
    assert changed == {
        "alone.0.weight": (64, 8),
        "alone.0.bias": (64,),
        "alone.3.weight": (64, 64),
        "alone.3.bias": (64,),
        "shared.weight": (90, 64),
    }
    assert before.alone[0].weight.shape == (100, 8)
    assert {row["tensor"] for row in channels.of(before).table.to_pylist()} == {
        "body.0.weight",
        "body.0.bias",
        "alone.0.weight",
    }


def test_the_units_of_a_residual_stream_have_a_member_in_every_layer_that_adds_to_it():
    net = backbone("resnet18")
    rows = net.channels.to_pandas()
    members = rows[["unit", "layer", "filter"]].drop_duplicates()
    stream = members[members["unit"] == 5]
    assert sorted(stream["layer"]) == ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    assert set(stream["filter"]) == {5}
    # The four streams, and what is within their eight blocks.
    assert net.units == 3 * (64 + 128 + 256 + 512)
    steps = {layer["layer"]: layer["activation"] for layer in net.manifest["layers"]}
    assert steps["layer1.0.conv1"] == "layer1.0.relu"
    assert steps["layer1.0.conv2"] == "layer1.0.relu_1"
    assert steps["layer2.0.downsample.0"] == "layer2.0.relu_1"


def test_every_channel_belongs_to_one_unit_at_most():
    for architecture in FAMILIES:
        rows = backbone(architecture).channels.to_pandas()
        assert set(rows["stride"]) == {1}
        for (tensor, dimension), part in rows.groupby(["tensor", "dimension"]):
            indices = np.concatenate([np.arange(f, f + n) for f, n in zip(part["first"], part["length"], strict=True)])
            assert len(set(indices)) == indices.size, (architecture, tensor, dimension)


def test_groups_go_whole_and_what_hears_them_hears_channels_one_by_one():
    net = backbone("regnet_y_400mf")
    rows, grouped = net.channels.to_pandas(), net.network().trunk_output.block2[0].f.b[0]
    own = rows[rows["tensor"] == "trunk_output.block2.block2-0.f.b.0.weight"]
    assert net.manifest["left_out"] == []
    assert grouped.groups == own["unit"].nunique() > 1
    assert set(own.groupby("unit")["length"].sum()) == {grouped.out_channels // grouped.groups}
    network, hears = net.network(), consumers.consumers(net.network(), net.channels)
    assert {
        consumers.block(net.channels, each.layer, network.get_submodule(each.layer).weight.shape[1]) for each in hears
    } == {1}


class Own(nn.Module):
    """A network with everything that cannot go, and layers that can: one by one filter, two by groups."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.normed = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.free = nn.Conv2d(8, 12, 3, padding=1)
        self.before = nn.Conv2d(12, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.after = nn.Conv2d(8, 8, 1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.unused = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        x = F.local_response_norm(F.relu(self.stem(x)), 5, alpha=1e-4)
        x = F.relu(self.norm(self.normed(x)))
        x = F.silu(self.free(x))
        x = self.after(F.relu(self.grouped(F.relu(self.before(x)))))
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.last(x).mean((2, 3))


def test_what_cannot_go_is_named_with_the_reason():
    found = channels.of(Own())
    names = [(layer.layer, layer.activation, layer.function) for layer in found.layers]
    assert names == [("free", "silu", "silu"), ("before", "relu_2", "relu"), ("grouped", "relu_3", "relu")]
    # Of a convolution of two groups one goes, with what it hears.
    rows = found.table.to_pandas()
    members = rows[["unit", "layer", "filter"]].drop_duplicates()
    group = [(name, each) for name in ("before", "grouped") for each in range(4)]
    assert [*members[members["unit"] == 12][["layer", "filter"]].itertuples(index=False, name=None)] == group
    assert {each.layer: each.reason for each in found.left_out} == {
        "stem": couplings.INEXACT,
        "normed": couplings.UNKNOWN.format("norm", "GroupNorm"),
        "after": couplings.REUSED.format("twice"),
        "twice": couplings.REUSED.format("twice"),
        "last": couplings.OUTPUT,
        "unused": couplings.UNUSED,
    }
    net = backbone_of(Own())
    keep = np.arange(14) % 3 > 0
    whole = Own().eval()
    whole.load_state_dict(net.state)
    with torch.inference_mode():
        found = removed(net, keep, Own())(images_of(16))
        assert difference(deaf(whole, net, keep)(images_of(16)), found) <= 1e-5


class Shuffled(Own):
    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.last(torch.cat(x.chunk(2, 1), 1).roll(1, 1)).mean((2, 3))


class Twice(Own):
    def forward(self, x):
        return self.last(self.twice(self.twice(x.repeat(1, 3, 1, 1)[:, :8]))).mean((2, 3))


class Interleaved(Own):
    def forward(self, x):
        x = self.stem(x)
        return self.last(x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)).mean((2, 3))


class Branching(Own):
    def forward(self, x):
        return self.last(self.stem(x if x.sum() > 0 else -x)).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Shuffled, "Shuffled has no filter that can be removed: stem: .* does not cover it: .* rearranged"),
        (Branching, "Branching cannot be traced"),
        (Twice, "Twice has no filter that can be removed: twice: twice is used more than once; last: its outputs"),
        (Interleaved, "Interleaved (is not covered by torch-pruning's graph|has no filter that can be removed: stem)"),
        (functools.partial(nn.Conv2d, 3, 4, 1), "Conv2d gives no logits"),
    ],
)
def test_a_network_of_which_nothing_can_go_is_an_error(network, says):
    with pytest.raises(InputError, match=says):
        channels.of(network())


def test_the_statistics_of_shared_and_functional_activations_equal_brute_force():
    network = Own().eval()
    layers = [vars(layer) for layer in channels.of(network).layers]
    images, labels = images_of(16, 6), torch.tensor([0, 1, 0, 1, 1, 0])
    seen = []
    network.free.register_forward_hook(lambda module, arguments, output: seen.append(F.silu(output)))
    with torch.inference_mode():
        network(images)
    table = statistics_of(network, layers, images, labels)
    a = seen[0].abs().double()
    found = table_of(table)
    for row in found[found["layer"] == "free"].to_dict("records"):
        x = a[labels == row["class"], row["filter"]]
        assert row["sum"] == pytest.approx(x.sum().item(), rel=1e-5)
        assert row["max"] == pytest.approx(x.max().item())
        assert row["zeros"] == 0


def statistics_of(network, layers, images, labels):
    from winnow.importance import statistics

    return statistics.measure(network, layers, [(images[:3], labels[:3]), (images[3:], labels[3:])], 2)


def test_layers_that_share_a_step_have_its_statistics_once_each():
    net = backbone("resnet18")
    images, labels = images_of(64, 4), torch.tensor([0, 1, 0, 1])
    found = statistics_of(net.network(), net.manifest["layers"], images, labels)
    table = table_of(found)
    one, other = (table[table["layer"] == name] for name in ("layer2.0.conv2", "layer2.0.downsample.0"))
    names = [name for name in table.columns if name != "layer"]
    assert one[names].reset_index(drop=True).equals(other[names].reset_index(drop=True))
    blocks = []
    network = net.network()
    network.layer2[0].register_forward_hook(lambda module, arguments, output: blocks.append(output))
    with torch.inference_mode():
        network(images)
    expected = blocks[0].double().sum((0, 2, 3)).numpy()
    np.testing.assert_allclose(one.groupby("filter")["sum"].sum().to_numpy(), expected, rtol=1e-4, atol=1e-3)
    assert len(table) == 2 * sum(layer["filters"] for layer in net.manifest["layers"])


@pytest.mark.parametrize("architecture", FAMILIES[:7])
def test_a_pruned_network_takes_a_step_and_comes_back_from_its_file(architecture, tmp_path):
    net = backbone(architecture)
    before = {name: tensor.clone() for name, tensor in net.state.items()}
    network = surgery.pruned(net, keep_of(net, "layer", 0.5), 3, "inherited", 0).train()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.startswith(backbones.last_layer(network)) and tensor.dim() > 1:
                tensor.mul_(10)
    images, labels = images_of(64, 4), torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(torch.equal(tensor, net.state[name]) for name, tensor in before.items())
    description = {"architecture": architecture, "head": "classifier", "classes": ["p", "q", "r"]}
    models.save(tmp_path, network, description)
    rebuilt, _ = models.load(tmp_path)
    with torch.inference_mode():
        answers = network.eval()(images)
        assert answers.std() > 0
        # Not to the bit: a kernel may be chosen by how its weights lie in memory.
        torch.testing.assert_close(rebuilt(images), answers)


@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet1_1"])
def test_all_weights_can_be_drawn_anew(architecture):
    net = backbone(architecture)
    drawn = [surgery.pruned(net, keep_of(net, "layer", 0.5), 3, "random", seed) for seed in (0, 0, 1)]
    first, again, other = (dict(network.named_parameters()) for network in drawn)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(next(iter(first.values())), next(iter(other.values())))
    assert first[f"{backbones.last_layer(drawn[0])}.weight"].std().item() == pytest.approx(0.01, rel=0.2)
