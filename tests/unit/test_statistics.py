"""The statistics pass against brute force, for any batch size, class subset and last partial batch."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.data.augmentation import normalise
from winnow.data.preprocessing import evaluation_view
from winnow.files import InputError, read_json
from winnow.importance import criteria, passes, statistics, sums
from winnow.networks import backbones, channels

from . import programs
from .fabricated import table_of
from .test_backbones import imported


@pytest.fixture(scope="module")
def small():
    # In float64, what a convolution gives does not depend on the batch that it is in; how well float32 adds up is
    # looked at below.
    network = backbones.initialised("vgg_digits", "gap", 3, 0).eval().double()
    layers = [vars(layer) for layer in channels.of(network).layers]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(11, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 2, 0, 1, 1, 1, 0, 2, 0, 1])
    return network, layers, images, labels


def outputs(network, layers, images):
    """Each layer's output after its ReLU, by running the features one by one."""
    wanted = {layer["activation"] for layer in layers}
    found, x = [], images
    with torch.no_grad():
        for name, module in network.features.named_children():
            x = module(x)
            if f"features.{name}" in wanted:
                found.append(x.clone())
    return found


def brute_force(network, layers, images, labels, classes):
    rows = []
    for layer, a in zip(layers, outputs(network, layers, images), strict=True):
        a = a.double()
        for k in range(layer["filters"]):
            for c in range(classes):
                x = a[labels == c, k]
                largest = x.max().item() if x.numel() else 0.0
                sums = x.sum().item(), (x * x).sum().item(), int((x == 0).sum()), largest
                rows.append((layer["layer"], k, c, x.shape[0], a.shape[2] * a.shape[3], *sums))
    return rows


def check(table, rows):
    found = table_of(table).to_dict("records")
    assert len(found) == len(rows)
    exact = ("layer", "filter", "class", "images", "positions", "zeros")
    for got, row in zip(found, rows, strict=True):
        expected = dict(zip(found[0], row, strict=True))
        assert {name: got[name] for name in exact} == {name: expected[name] for name in exact}
        for name in ("sum", "sum_sq", "max"):
            assert got[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-12)


def batched(images, labels, size):
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


@given(st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_equals_brute_force_at_any_batch_size(small, size):
    network, layers, images, labels = small
    table = statistics.measure(network, layers, batched(images, labels, size), 3)
    check(table, brute_force(network, layers, images, labels, 3))


@pytest.mark.parametrize("classes", [[0], [1, 2], [2]])
def test_any_subset_of_classes_is_a_query_and_a_class_without_images_has_zeros(small, classes):
    network, layers, images, labels = small
    chosen = torch.isin(labels, torch.tensor(classes))
    part = statistics.measure(network, layers, batched(images[chosen], labels[chosen], 4), 3)
    whole = statistics.measure(network, layers, batched(images, labels, 4), 3)
    for got, full in zip(*(table_of(each).to_dict("records") for each in (part, whole)), strict=True):
        if got["class"] in classes:
            assert (got["images"], got["zeros"], got["max"]) == (full["images"], full["zeros"], full["max"])
            assert got["sum"] == pytest.approx(full["sum"], rel=1e-6)
        else:
            assert (got["images"], got["zeros"], got["sum"]) == (0, 0, 0.0)


@pytest.mark.parametrize("architecture", ["vgg11", "vgg11_bn"])
def test_real_architectures_with_and_without_batch_norm(architecture):
    network = backbones.initialised(architecture, "gap", 2, 0).eval().double()
    layers = [vars(layer) for layer in channels.of(network).layers]
    images, labels = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 1])
    table = statistics.measure(network, layers, batched(images, labels, 2), 2)
    check(table, brute_force(network, layers, images, labels, 2))


@pytest.mark.parametrize("block", [1, 100, 2**18])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_and_memory_layout_do_not_change_the_sums(monkeypatch, block, layout):
    monkeypatch.setattr(statistics, "BLOCK_ELEMENTS", block)
    maps = torch.relu(torch.randn(3, 5, 7, 6)).contiguous(memory_format=layout)
    x = maps.double()
    expected = torch.stack([x.sum((2, 3)), (x * x).sum((2, 3)), (x > 0).double().sum((2, 3)), x.amax((2, 3))])
    torch.testing.assert_close(statistics.reduce_maps(maps), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_maps_are_summed_up_to_a_millionth_and_counted_exactly(layout):
    maps = torch.relu(torch.randn(2, 64, 224, 224)).contiguous(memory_format=layout)
    x = maps.double()
    expected = torch.stack([x.sum((2, 3)), (x * x).sum((2, 3)), (x > 0).double().sum((2, 3)), x.amax((2, 3))])
    found = statistics.reduce_maps(maps)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-6, atol=0)
    assert (found[2:] == expected[2:]).all()


def test_torchs_own_reductions_on_a_gpu_come_to_the_same(monkeypatch):
    # What they are does not depend on the device.
    monkeypatch.setattr(statistics, "POSITIONS", 20)
    monkeypatch.setattr(statistics, "_in_blocks", statistics._by_torch)
    maps = torch.relu(torch.randn(3, 5, 7, 6))
    x = maps.double()
    expected = torch.stack([x.sum((2, 3)), (x * x).sum((2, 3)), (x > 0).double().sum((2, 3)), x.amax((2, 3))])
    torch.testing.assert_close(statistics.reduce_maps(maps), expected, rtol=1e-6, atol=0)


INTERPRETED = """
import torch
from winnow.importance import kernels, statistics

statistics._in_blocks = kernels.reduce_rows
for images, filters, height, width in [(1, 1, 1, 1), (2, 3, 40, 21), (1, 70, 17, 31), (3, 64, 2, 2)]:
    scale = 10.0 ** torch.randint(-3, 4, (filters, 1, 1))
    whole = torch.relu(torch.randn(images, filters, height + 1, width + 2)) * scale
    for layout in (torch.contiguous_format, torch.channels_last):
        part = whole.contiguous(memory_format=layout)[:, :, 1:, 1:-1]
        for maps in (part, part.contiguous(memory_format=layout), part[:, ::2]):
            x = maps.double()
            wanted = torch.stack([x.sum((2, 3)), (x * x).sum((2, 3)), (x > 0).double().sum((2, 3)), x.amax((2, 3))])
            found = statistics.reduce_maps(maps)
            torch.testing.assert_close(found[:2], wanted[:2], rtol=1e-6, atol=0)
            assert (found[2:] == wanted[2:]).all(), (maps.shape, maps.stride())
print("equal")
"""


def test_the_kernel_of_a_gpu_comes_to_the_same_in_memory_of_any_order():
    pytest.importorskip("triton", reason="torch's wheel brought no Triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(programs.SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


def test_where_there_is_no_kernel_one_line_says_so_and_torch_reduces(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "winnow.importance.kernels", raising=False)
    statistics._on_gpu.cache_clear()
    try:
        assert statistics._on_gpu() is statistics._on_gpu() is statistics._by_torch
    finally:
        statistics._on_gpu.cache_clear()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "Triton makes no kernel here (ModuleNotFoundError" in said[0]


def test_outputs_that_are_not_finite_are_an_error_that_names_the_layer(small):
    network, layers, images, labels = small
    broken = images.clone()
    broken[4, 0, 2, 2] = torch.inf
    with pytest.raises(InputError, match=r"outputs of features\.1, after features\.0, are not finite"):
        statistics.measure(network, layers, batched(broken, labels, 4), 3)


def test_the_program_measures_the_centre_of_the_training_images(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 12, 3), dtype=np.uint8)
    labels, splits = [0, 1, 2] * 3, ["train"] * 6 + ["test"] * 3
    programs.stored(tmp_path / "store", pixels, labels, splits, size=8)
    imported(tmp_path / "net")
    spec = {"dataset": "d", "backbone": "b", "code": "0"}
    arguments = [*programs.dataset(tmp_path / "store"), "--backbone", tmp_path / "net", "--output", tmp_path / "a.json"]
    programs.run("measure", spec, *arguments)
    table = sums.read(tmp_path / "a.json", "activations")
    assert read_json(tmp_path / "a.json")["spec"] == spec

    backbone = backbones.load(tmp_path / "net")
    rows = np.arange(6)
    views = evaluation_view(torch.from_numpy(pixels[rows]), 8)
    assert (views.numpy() == pixels[rows, 2:10, 2:10]).all()
    images = normalise(views, backbone.manifest["mean"], backbone.manifest["std"])
    network, layers = backbone.network(), backbone.manifest["layers"]
    expected = brute_force(network, layers, images, torch.tensor(labels)[rows], 3)
    check(table, expected)

    # Where memory runs out it begins anew with smaller batches, and nothing is counted twice.
    asked = []
    monkeypatch.setattr(passes, "batches_of", programs.short_of_memory(passes.batches_of, 4, asked))
    programs.run("measure", spec, *arguments)
    assert asked == [256, 128, 64, 32, 16, 8, 4]
    check(sums.read(tmp_path / "a.json", "activations"), expected)


def test_the_classifier_does_not_run_and_no_hook_stays(small):
    network, layers, images, labels = small
    calls = []
    handle = network.classifier[0].register_forward_hook(lambda *_: calls.append(1))
    statistics.measure(network, layers, batched(images, labels, 4), 3)
    handle.remove()
    assert calls == []
    assert all(not module._forward_hooks for module in network.modules())


def test_filters_that_never_fire_change_no_logit_when_removed(small):
    from winnow.networks.backbones import Backbone
    from winnow.networks.surgery import pruned

    network, layers, images, labels = small
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    dead = [3, 17, 40]  # of the first and third layers, by unit
    for unit in dead:
        layer = layers[0] if unit < 16 else layers[1] if unit < 32 else layers[2]
        index = unit if unit < 16 else unit - 16 if unit < 32 else unit - 32
        state[f"{layer['layer']}.bias"][index] = -1e3
    manifest = {"architecture": "vgg_digits", "head": "gap", "classes": 3, "layers": layers}
    backbone = Backbone(manifest, state, channels.of(network).table)
    table = statistics.measure(backbone.network(), layers, batched(images, labels, 11), 3)
    silent = [criteria.apoz(table.over_classes(layer["layer"], layer["filters"])) for layer in layers]
    never = np.concatenate(silent) == 1
    assert set(dead) <= set(np.flatnonzero(never))
    keep = ~never
    whole, cut = (pruned(backbone, part, 3, "inherited", 5).double().eval() for part in (None, keep))
    # The new last layer is drawn for its own shape: give both the same on what is left.
    weight = whole.classifier[0].weight.detach()
    cut.classifier[0].weight.data = weight[:, torch.from_numpy(keep[-64:])].clone()
    cut.classifier[0].bias.data = whole.classifier[0].bias.detach().clone()
    with torch.no_grad():
        torch.testing.assert_close(cut(images), whole(images), rtol=1e-10, atol=1e-12)
