"""Latency: what is timed and in what order, and the program's file."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from winnow import tables
from winnow.files import InputError, read_json, write_json
from winnow.importance import budgets, masks
from winnow.networks import backbones, latency, logits, prices, surgery
from winnow.training import precision

from . import programs
from .test_backbones import imported

SPEC = {"dataset": "d", "backbone": "b", "criterion": "any", "scope": "layer", "ratio": "0.500", "precision": "auto"}


class Clock:
    """Stands in for ``time``: it advances only where it is told."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Slow(torch.nn.Module):
    """A network whose pass takes the next of its seconds on the clock, and writes down how it was run."""

    def __init__(self, name, seconds, clock, runs):
        super().__init__()
        self.name, self.seconds, self.clock, self.runs = name, iter(seconds), clock, runs
        self.last = torch.nn.Linear(3, 2)

    def forward(self, images):
        self.clock.now += next(self.seconds)
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        conditions = (bf16, channels_last, torch.is_inference_mode_enabled(), self.training)
        self.runs.append((self.name, tuple(images.shape), *conditions))


@pytest.fixture
def timed(monkeypatch):
    """A comparison of two networks that take the given seconds, and the order of their runs."""
    clock, runs = Clock(), []
    monkeypatch.setattr(latency, "time", clock)

    def compare(seconds, unpruned_seconds, precision="fp32"):
        networks = Slow("pruned", seconds, clock, runs), Slow("unpruned", unpruned_seconds, clock, runs)
        return latency.compare(*networks, precision, 2, 4, "cpu"), runs

    return compare


def forever(seconds):
    while True:
        yield seconds


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_two_take_turns_as_evaluation_runs_them(timed, precision):
    found, runs = timed(forever(1.0), forever(4.0), precision)
    # One pair is warm-up; five are the least.
    assert found["repeats"] == 5
    unpruned, pruned = runs[:2]
    assert unpruned == ("unpruned", (2, 3, 4, 4), precision == "bf16", True, True, False)
    assert pruned == ("pruned", *unpruned[1:])
    assert runs == [unpruned, pruned] * 6
    assert found["ms"] == {"median": 1000.0, "q1": 1000.0, "q3": 1000.0}
    assert found["unpruned_ms"]["median"] == 4000.0
    assert found["speedup"]["median"] == 4.0


def test_the_speed_up_is_taken_pair_by_pair(timed):
    """A machine that becomes slower and slower: times differ a lot, the speed-up not at all."""
    drift = [1.0, *range(1, 6)]
    found, _ = timed(iter(drift), iter([2 * second for second in drift]))
    assert found["ms"] == {"median": 3000.0, "q1": 2000.0, "q3": 4000.0}
    assert found["speedup"] == {"median": 2.0, "q1": 2.0, "q3": 2.0}


@pytest.mark.parametrize(("seconds", "pairs"), [(1e-6, latency.MOST_PAIRS), (0.03125, 48), (10.0, latency.LEAST_PAIRS)])
def test_repeats_end_with_the_budget_but_not_before_five(timed, seconds, pairs):
    found, runs = timed(forever(seconds), forever(seconds))
    assert found["repeats"] == pairs
    warm_up = len(runs) // 2 - pairs
    assert 1 <= warm_up <= latency.WARM_UP_PAIRS


def test_bf16_is_evaluations_arithmetic_with_weights_converted_once(monkeypatch):
    for name, value in ("MOST_PAIRS", 20), ("SECONDS", 1e9), ("WARM_UP_SECONDS", 1e9):
        monkeypatch.setattr(latency, name, value)
    torch.manual_seed(0)
    network, unpruned = (
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(288, 5)
        )
        for _ in range(2)
    )
    images = torch.randn(2, 3, 8, 8)
    context = torch.autocast("cpu", torch.bfloat16)
    with torch.inference_mode(), context, logits.float32_logits(network):
        expected = network.eval()(images)
    assert expected.dtype == torch.float32
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = latency.compare(network, unpruned, "bf16", 1, 8, "cpu")
    with torch.inference_mode(), context, logits.float32_logits(network):
        assert torch.equal(network(images), expected)
    passes = 2 * (found["repeats"] + latency.WARM_UP_PAIRS)
    (copies,) = [event.count for event in profile.key_averages() if event.key == "aten::_to_copy"]
    # The images of each pass and the features before its last layer, and a few at the start.
    assert 2 * passes <= copies < 2.2 * passes


def test_quartiles_are_those_of_the_order_statistics():
    assert latency.quartiles([4, 1, 3, 2, 5]) == {"median": 3, "q1": 2, "q3": 4}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a data set's manifest, the demo's network as a backbone and a by-layer mask at ratio 0.5."""
    root = tmp_path_factory.mktemp("inputs")
    write_json(root / "store" / "manifest.json", {"classes": ["p", "q", "r"], "image_size": 8})
    imported(root / "net")
    layers = read_json(root / "net" / "manifest.json")["layers"]
    names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
    index = np.concatenate([np.arange(layer["filters"]) for layer in layers])
    mask = masks.mask(names, np.zeros(names.size), "layer", 0.5)
    rows = {"layer": names, "filter": index, "keep": mask.keep, "rank": mask.rank}
    tables.write_table(root / "mask.parquet", pa.table(rows), "mask", {"requested": 0.5, "achieved": mask.achieved})
    return root


def clocked(inputs, output, mask=True, spec=SPEC):
    arguments = ["--dataset", inputs / "store", "--backbone", inputs / "net", "--output", output]
    programs.run("clock", spec, *arguments, *(["--mask", inputs / "mask.parquet"] if mask else []))
    return read_json(output)


def test_the_file_says_what_was_timed_where_and_how(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = clocked(inputs, tmp_path / "latency.json")
    assert set(found["batches"]) == {"1", "32"}
    for batch in found["batches"].values():
        assert batch["repeats"] == 7
        for name in ("ms", "unpruned_ms", "speedup"):
            assert 0 < batch[name]["q1"] <= batch[name]["median"] <= batch[name]["q3"]
    backbone = backbones.load(inputs / "net")
    keep, _, achieved = surgery.read_mask(inputs / "mask.parquet", backbone)
    for mask, prefix in ((keep, ""), (None, "unpruned_")):
        network = surgery.pruned(backbone, mask, 3, "inherited", 0)
        assert (found[f"{prefix}params"], found[f"{prefix}macs"]) == surgery.cost(network, 8)
    assert found["mac_reduction"] == found["unpruned_macs"] / found["macs"] > 3
    assert (found["requested_ratio"], found["achieved_ratio"]) == (0.5, achieved)
    assert (found["image_size"], found["precision"]) == (8, "fp32")
    assert found["threads"] == 1
    assert found["device"]
    assert found["versions"] == {"torch": torch.__version__}
    assert found["spec"] == SPEC


def test_the_recipes_precision_is_that_of_both_networks(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 5)
    found = clocked(inputs, tmp_path / "latency.json", spec=SPEC | {"precision": "bf16"})
    assert found["precision"] == "bf16"


def test_the_unpruned_networks_size_decides_the_precision_of_both(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 5)
    monkeypatch.setattr(precision, "_has_bf16_arithmetic", lambda: True)
    backbone = backbones.load(inputs / "net")
    keep, _, _ = surgery.read_mask(inputs / "mask.parquet", backbone)
    pruned, unpruned = (surgery.cost(surgery.pruned(backbone, mask, 3, "inherited", 0), 8)[1] for mask in (keep, None))
    for limit, expected in ((unpruned, "bf16"), (unpruned + 1, "fp32")):
        monkeypatch.setattr(precision, "BF16_MACS", limit)
        assert pruned < limit
        assert clocked(inputs, tmp_path / "latency.json")["precision"] == expected


def test_the_unpruned_network_is_timed_next_to_itself(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 5)
    found = clocked(inputs, tmp_path / "latency.json", mask=False)
    assert found["mac_reduction"] == 1
    assert found["params"] == found["unpruned_params"]
    assert found["achieved_ratio"] == 0


def test_it_leaves_the_backbone_that_a_worker_keeps_as_it_was(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 5)
    backbone = backbones.load(inputs / "net")
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in backbone.state.items()}
    monkeypatch.setattr(backbones, "load", lambda _: backbone)
    clocked(inputs, tmp_path / "latency.json")
    for name, (tensor, stride) in before.items():
        assert torch.equal(backbone.state[name], tensor)
        assert backbone.state[name].stride() == stride


def test_a_mask_of_another_backbone_or_none_at_all_is_told(inputs, tmp_path):
    for name in ("store", "net"):
        (tmp_path / name).symlink_to(inputs / name)
    output = tmp_path / "latency.json"
    with pytest.raises(InputError, match=r"mask\.parquet does not exist"):
        clocked(tmp_path, output)
    table = tables.read_table(inputs / "mask.parquet", "mask")
    tables.write_table(tmp_path / "mask.parquet", table.slice(0, 10), "mask", {"requested": 0.5, "achieved": 0.5})
    with pytest.raises(InputError, match=r"a mask of 10 filters, the backbone has 224"):
        clocked(tmp_path, output)
    (tmp_path / "mask.parquet").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"mask\.parquet cannot be read"):
        clocked(tmp_path, output)
    assert not output.exists()


def priced(inputs, output, **spec):
    arguments = ["--dataset", inputs / "store", "--backbone", inputs / "net", "--output", output]
    programs.run("price", {"dataset": "d", "backbone": "b"} | spec, *arguments)
    return read_json(output)


def test_prices_of_latency_agree_with_what_the_largest_and_the_smallest_network_take(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 7)
    monkeypatch.setattr(prices, "MOST_ROUNDS", 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = priced(inputs, tmp_path / "latency.json", measure="latency", precision="auto")
    assert (found["measure"], found["unit"], found["image_size"], found["threads"]) == ("latency", "ms", 8, 1)
    assert found["device"]
    assert found["versions"] == {"torch": torch.__version__}
    fixed, *layers = found["terms"]
    assert fixed["tensor"] == ""
    assert [layer["tensor"] for layer in layers[:2]] == ["features.0.weight", "features.2.weight"]
    # The images' channels stay, and so do the classes; in between there are four widths, and one.
    assert (layers[0]["outputs"], layers[0]["inputs"]) == ([1, 4, 8, 12, 16], [0, 3])
    assert (layers[-1]["outputs"], layers[-1]["inputs"]) == ([0, 3], [1, 16, 32, 48, 64])
    for layer in layers:
        values = np.array(layer["values"])
        assert values.shape == (len(layer["outputs"]), len(layer["inputs"]))
        assert (np.diff(values, axis=0) >= 0).all()
        assert (np.diff(values, axis=1) >= 0).all()
    backbone = backbones.load(inputs / "net")
    costs = budgets.Costs.read(tmp_path / "latency.json", backbone.channels)
    whole = np.ones(backbone.units, dtype=bool)
    assert costs.total(whole) >= found["whole"]["unpruned_ms"]["median"] * (1 - 1e-9)
    half = whole.copy()
    half[::2] = False
    assert costs.total(half) < costs.total(whole)


def test_prices_of_arithmetic_are_exact_and_damaged_ones_are_named(inputs, tmp_path):
    backbone = backbones.load(inputs / "net")
    keep, _, _ = surgery.read_mask(inputs / "mask.parquet", backbone)
    params, macs = surgery.cost(surgery.pruned(backbone, keep, 3, "inherited", 0), 8)
    for measure, count in (("macs", macs), ("params", params)):
        path = tmp_path / f"{measure}.json"
        priced(inputs, path, measure=measure)
        assert round(budgets.Costs.read(path, backbone.channels).total(keep)) == count
    path.write_text('{"terms": [{}]}')
    with pytest.raises(InputError, match=r"params\.json has no prices of a network \('outputs'\): delete it"):
        budgets.Costs.read(path, backbone.channels)
