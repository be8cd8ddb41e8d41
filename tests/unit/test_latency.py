"""Latency: what is timed and in what order, and the program's file."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from winnow import tables
from winnow.files import InputError, read_json, write_json
from winnow.importance import masks
from winnow.networks import backbones, latency, surgery

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

    def compare(seconds, unpruned_seconds, precisions=("fp32", "fp32")):
        networks = Slow("pruned", seconds, clock, runs), Slow("unpruned", unpruned_seconds, clock, runs)
        return latency.compare(*networks, precisions, 2, 4, "cpu"), runs

    return compare


def forever(seconds):
    while True:
        yield seconds


def test_the_two_take_turns_as_evaluation_runs_them(timed):
    found, runs = timed(forever(1.0), forever(4.0), ("fp32", "bf16"))
    # One pair is warm-up; five are the least.
    assert found["repeats"] == 5
    unpruned, pruned = runs[:2]
    assert unpruned == ("unpruned", (2, 3, 4, 4), True, True, True, False)
    assert pruned == ("pruned", (2, 3, 4, 4), False, True, True, False)
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
    monkeypatch.setattr(latency, "MOST_PAIRS", 20)
    torch.manual_seed(0)
    network, unpruned = (torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)) for _ in range(2))
    images = torch.randn(2, 3, 8, 8)
    context = torch.autocast("cpu", torch.bfloat16)
    with torch.inference_mode(), context:
        expected = network.eval()(images)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = latency.compare(network, unpruned, ("bf16", "bf16"), 1, 8, "cpu")
    with torch.inference_mode(), context:
        assert torch.equal(network(images), expected)
    passes = 2 * (found["repeats"] + latency.WARM_UP_PAIRS)
    (copies,) = [event.count for event in profile.key_averages() if event.key == "aten::_to_copy"]
    # The images of each pass, and a few at the start.
    assert passes <= copies < 1.2 * passes


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
    assert (found["image_size"], found["precision"], found["unpruned_precision"]) == (8, "fp32", "fp32")
    assert found["threads"] == 1
    assert found["device"]
    assert found["versions"] == {"torch": torch.__version__}
    assert found["spec"] == SPEC


def test_the_recipes_precision_is_that_of_both_networks(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "MOST_PAIRS", 5)
    found = clocked(inputs, tmp_path / "latency.json", spec=SPEC | {"precision": "bf16"})
    assert (found["precision"], found["unpruned_precision"]) == ("bf16", "bf16")


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
