"""Cells that prune while they train: their phases, their masks, and that nothing is lost when they are killed."""

import dataclasses
import hashlib
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from winnow import tables
from winnow.data.images import Images
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError, canonical_json, read_json
from winnow.importance import passes
from winnow.importance.criteria import CRITERIA
from winnow.importance.masks import mask, removals
from winnow.networks import backbones, models, surgery, units
from winnow.training import checkpoints, loop, protocols, trunks
from winnow.training.loop import learning_rate
from winnow.workflow import grid

from . import programs
from .test_finetune import RECIPE, comparable, inputs  # noqa: F401 - a fixture
from .test_finetune import job as finetuning

LONG = RECIPE | {"epochs": 7, "augmentation": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25], "flip": True}}
LONG |= {"warmup_epochs": 1.0, "batch_size": 8}


@pytest.fixture(scope="module")
def made(inputs):  # noqa: F811
    """The inputs with the pretrained backbone's scores."""
    programs.run(
        *("measure", {"code": "0"}, *programs.dataset(inputs / "store"), "--backbone", inputs / "net"),
        *("--output", inputs / "activations.json"),
    )
    for name in ("mean_activation", "average_weight"):
        spec = {"criterion": name, "source": None, "seed": None, "code": "0"}
        statistics = inputs / "activations.json"
        programs.run(
            *("score", spec, "--backbone", inputs / "net", "--statistics", statistics),
            *("--output", inputs / f"{name}.parquet"),
        )
    return inputs


def cell_of(protocol, criterion="mean_activation", scope="global", ratio=0.5, round_to=None):
    return grid.Cell("d", "b", criterion, scope, ratio, round_to, "inherited", 3, protocol)


def trunk_job(made, output, cell, recipe=LONG):
    trunk = grid.trunk(cell, recipe["epochs"], {})
    spec = {"trunk": dataclasses.asdict(trunk) | {"share": str(trunk.share)}, "min_filters": 1, "code": "0"}
    spec["recipe"] = protocols.stretched(recipe, trunk.epochs)
    arguments = [*programs.dataset(made / "store"), "--backbone", made / "net", "--output", output]
    known = cell.criterion if (made / f"{cell.criterion}.parquet").exists() else "average_weight"
    return spec, *arguments, *(["--scores", made / f"{known}.parquet"] if trunk.share else [])


def trunk_of(made, cell, recipe=LONG):
    """The folder of what a cell begins with, made once."""
    spec = trunk_job(made, None, cell, recipe)[0]
    folder = made / "trunks" / hashlib.sha256(canonical_json(spec).encode()).hexdigest()
    if not folder.exists():
        programs.run("trunk", *trunk_job(made, folder, cell, recipe))
    return folder


def job(made, output, protocol, *axes, recipe=LONG, seconds=1e9, **more):
    cell = cell_of(protocol, *axes, **more)
    spec = {"cell": dataclasses.asdict(cell), "recipe": recipe, "min_filters": 1, "code": "0"}
    arguments = [*programs.dataset(made / "store"), "--backbone", made / "net", "--output", *programs.cell(output)]
    return spec, *arguments, "--checkpoint-seconds", seconds, "--trunk", trunk_of(made, cell, recipe)


def trained(made, output, protocol, *arguments, **options):
    programs.run("finetune", *job(made, output, protocol, *arguments, **options))
    return read_json(output / "metrics.json")


def kept(path):
    return tables.read_table(path, "mask")["keep"].to_numpy(zero_copy_only=False)


def same_files(first, second):
    names = ("predictions.parquet", "model.safetensors", "mask.parquet")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def history(path):
    rows = tables.read_table(path / "history.parquet", "history").to_pylist()
    return [{name: row[name] for name in row if name not in ("seconds", "images_per_second")} for row in rows]


def test_a_trunk_is_its_first_phase_bit_for_bit(made, tmp_path):
    """That of fine_tune_first is the unpruned baseline, trained for half of the epochs."""
    folder = trunk_of(made, cell_of("fine_tune_first"))
    spec, *arguments = finetuning(made, tmp_path, mask=False, recipe=protocols.stretched(LONG, 3))
    programs.run("finetune", spec | {"cell": spec["cell"] | {"seed": 3}}, *arguments)
    found, state = load_file(folder / "trunk.safetensors"), models.load(tmp_path)[0].state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    assert history(folder) == history(tmp_path)
    assert kept(folder / "mask.parquet").all()
    assert not (folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("protocol", ["fine_tune_first", "iterative_3"])
def test_a_trunk_is_the_same_for_all_that_share_it(made, protocol):
    first = trunk_of(made, cell_of(protocol))
    others = [trunk_of(made, cell_of(protocol, *axes)) for axes in (["apoz"], ["mean_activation", "layer", 0.25])]
    shared = protocol == "fine_tune_first"
    assert [other == first for other in others] == [shared, shared]


def test_a_cell_has_its_trunks_history_and_time(made, tmp_path):
    metrics = trained(made, tmp_path, "fine_tune_first")
    folder = trunk_of(made, cell_of("fine_tune_first"))
    trunk = read_json(folder / "trunk.json")
    assert trunk.keys() == trunks.Manifest.__annotations__.keys()
    whole = tables.read_table(tmp_path / "history.parquet", "history").to_pylist()
    assert whole[:3] == tables.read_table(folder / "history.parquet", "history").to_pylist()
    assert metrics["seconds"]["train"] > trunk["seconds"]["train"]
    assert metrics["seconds"]["evaluate"] > trunk["evaluation_seconds"]
    assert metrics["seconds"]["total"] == pytest.approx(
        sum(seconds for part, seconds in metrics["seconds"].items() if part != "total")
    )


def test_a_trunk_that_was_changed_is_told(made, tmp_path):
    spec, *arguments = job(made, tmp_path / "cell", "fine_tune_first")
    for name in trunks.FILES:
        copy = Path(shutil.copytree(trunk_of(made, cell_of("fine_tune_first")), tmp_path / name))
        with open(copy / name, "ab") as file:
            file.write(b"}")
        with pytest.raises(InputError, match=f"{name}/{name} is not"):
            programs.run("finetune", spec, *arguments[:-1], copy)


@pytest.mark.parametrize(("protocol", "lengths"), [("fine_tune_first", [3, 4]), ("iterative_3", [2, 2, 3])])
def test_each_phase_has_a_schedule_of_its_own_and_epochs_count_through(made, tmp_path, protocol, lengths):
    metrics = trained(made, tmp_path, protocol)
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == list(range(1, 8))
    rates = []
    for length in lengths:
        recipe = LONG | {"epochs": length, "warmup_epochs": length / 7}
        rates += [learning_rate(recipe, epoch * 2 - 1, 2) for epoch in range(1, length + 1)]  # 15 images, 2 steps
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    # Only the last phase's network has the ratio that was asked for.
    assert metrics["epoch"] > sum(lengths[:-1])
    assert metrics["val_accuracy"] == rows[metrics["epoch"] - 1]["val_accuracy"]


@pytest.mark.parametrize("protocol", ["fine_tune_first", "iterative_2", "iterative_3"])
@pytest.mark.parametrize(("scope", "ratio"), [("global", 0.437), ("layer", 0.3), ("global_normalized", 0.61)])
def test_the_ratio_is_exact_and_the_kept_network_is_the_masks(made, tmp_path, protocol, scope, ratio):
    metrics = trained(made, tmp_path, protocol, "mean_activation", scope, ratio)
    keep, backbone = kept(tmp_path / "mask.parquet"), backbones.load(made / "net")
    names = units.named(backbone.manifest["layers"], backbone.channels)[0]
    groups = [names == names] if scope != "layer" else [names == name for name in np.unique(names)]
    for group in groups:
        assert np.count_nonzero(~keep[group]) == removals(ratio, np.count_nonzero(group))
    assert metrics["achieved_ratio"] == np.count_nonzero(~keep) / keep.size
    assert metrics["requested_ratio"] == ratio
    assert surgery.read_mask(tmp_path / "mask.parquet", backbone)[1:] == (ratio, metrics["achieved_ratio"])

    network, _ = models.load(tmp_path)
    expected = surgery.pruned(backbone, keep, 3, "inherited", 0)
    shapes = {name: tensor.shape for name, tensor in expected.state_dict().items()}
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes
    assert (metrics["params"], metrics["macs"]) == surgery.cost(expected, 8)


@pytest.mark.parametrize(
    "criterion", [name for name in CRITERIA if name not in ("any", "bn_scale", "reversed_bn_scale")]
)
def test_every_criterion_prunes_what_was_trained(made, tmp_path, criterion):
    metrics = trained(made, tmp_path, "iterative_2", criterion, "layer", recipe=RECIPE)
    assert metrics["achieved_ratio"] == 0.5
    assert metrics["status"] == "finished"


def test_a_phase_goes_on_with_the_network_of_the_phase_before(made, tmp_path):
    """Phase by phase by hand: train, measure with hooks, cut, train on."""
    trained(made, tmp_path, "fine_tune_first", "mean_activation", "layer")
    store, backbone = Store.open(made / "store"), backbones.load(made / "net")
    images = Images(torch.from_numpy(np.array(store.images)), torch.from_numpy(store.labels), 8, *[[0.5] * 3] * 2)
    split = Split.open(made / "store.parquet", store)
    rows = split.rows("train"), split.rows("val")
    first = LONG | {"epochs": 3, "warmup_epochs": 3 / 7}
    network = surgery.pruned(backbone, None, 3, "inherited", 3)
    state = loop.train(network, images, *rows, first, 3, "fp32").state

    network.load_state_dict(state)
    means = []
    for layer in backbone.manifest["layers"]:
        step = network.get_submodule(layer["activation"])
        step.register_forward_hook(lambda module, given, out: means.append(out.double().mean((0, 2, 3)).numpy()))
    with torch.inference_mode():
        pixels = images.pixels[torch.from_numpy(rows[0])].permute(0, 3, 1, 2).float() / 255
        network.eval()((pixels - 0.5) / 0.5)
    names = units.named(backbone.manifest["layers"], backbone.channels)[0]
    keep = mask(names, np.concatenate(means), "layer", 0.5).keep
    assert kept(tmp_path / "mask.parquet").tolist() == keep.tolist()

    second = LONG | {"epochs": 4, "warmup_epochs": 4 / 7}
    network = surgery.pruned(backbone, keep, 3, "inherited", 3)
    network.load_state_dict(surgery.slice_state(state, backbone.channels, keep))
    state = loop.train(network, images, *rows, second, 3, "fp32", epochs_before=3).state
    found = models.load(tmp_path)[0].state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor)


class Killed(BaseException):
    """What a kill looks like from inside: the run is simply gone."""


def mortal(monkeypatch, after):
    write, left = checkpoints.Checkpoint.write, [after]

    def counted(self, *arguments):
        write(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "write", counted)
    return write


# The phases after the trunk: 4 or 5 epochs of 2 steps, and each phase's beginning.
@pytest.mark.parametrize(("protocol", "writes"), [("fine_tune_first", 9), ("iterative_3", 12)])
def test_a_cell_killed_at_any_step_goes_on_and_ends_bit_for_bit_the_same(made, tmp_path, monkeypatch, protocol, writes):
    reference = trained(made, tmp_path / "reference", protocol)
    expected = history(tmp_path / "reference")
    for after in range(1, writes + 1):
        output = tmp_path / str(after)
        write = mortal(monkeypatch, after)
        with pytest.raises(Killed):
            trained(made, output, protocol, seconds=0)
        assert not (output / "metrics.json").exists()
        monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
        resumed = trained(made, output, protocol)
        assert resumed["resumed"] == 1
        assert comparable(resumed) == comparable(reference)
        assert history(output) == expected
        assert same_files(tmp_path / "reference", output)
        assert not (output / "checkpoint.pt").exists()
    # There is no further checkpoint: the count above is all of them.
    write = mortal(monkeypatch, writes + 1)
    trained(made, tmp_path / "whole", protocol, seconds=0)
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)


def test_phases_that_have_ended_are_not_run_again(made, tmp_path, monkeypatch):
    trunk_of(made, cell_of("iterative_3"))
    write = mortal(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(made, tmp_path, "iterative_3")  # no checkpoint is due but those at the phases' beginnings
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
    epochs = []
    monkeypatch.setattr(loop, "require_finite", lambda loss, what, when: epochs.append(when))
    trained(made, tmp_path, "iterative_3")
    assert not any("epoch 4" in when for when in epochs)
    assert any("in epoch 5" in when for when in epochs)


@pytest.mark.slow("processes are started, killed and started again")
def test_a_process_that_is_killed_and_told_to_end_ends_with_the_same_files(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WINNOW_WORKERS", "off")
    recipe = LONG | {"epochs": 200}
    reference = trained(made, tmp_path / "a", "iterative_3", recipe=recipe)
    spec, *arguments = job(made, tmp_path / "b", "iterative_3", recipe=recipe, seconds=0.1)
    command = [sys.executable, programs.SCRIPTS / "finetune.py", "--spec", canonical_json(spec), *arguments]
    checkpoint = tmp_path / "b" / "checkpoint.pt"
    assert programs.signalled(command, checkpoint, signal.SIGKILL) == -signal.SIGKILL
    assert programs.signalled(command, checkpoint, signal.SIGTERM) == checkpoints.TERMINATED
    resumed = trained(made, tmp_path / "b", "iterative_3", recipe=recipe)
    assert resumed["resumed"] == 2
    assert comparable(resumed) == comparable(reference)
    assert same_files(tmp_path / "a", tmp_path / "b")


def test_out_of_memory_in_a_later_phase_runs_that_phase_once_more(made, tmp_path, monkeypatch):
    real, calls = loop.train, []

    def train(*arguments, epochs_before, **options):
        calls.append((epochs_before, arguments[7]))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, epochs_before=epochs_before, **options)

    trunk_of(made, cell_of("fine_tune_first"))
    monkeypatch.setattr(loop, "train", train)
    metrics = trained(made, tmp_path, "fine_tune_first")
    assert calls == [(3, 8), (3, 4)]
    assert metrics["micro_batch"] == 4
    assert [row["epoch"] for row in history(tmp_path)] == list(range(1, 8))


@pytest.mark.parametrize("criterion", ["mean_activation", "taylor"])
def test_out_of_memory_between_two_phases_measures_in_smaller_batches(made, tmp_path, monkeypatch, criterion):
    expected = trained(made, tmp_path / "a", "fine_tune_first", criterion)
    asked = []
    monkeypatch.setattr(passes, "batches_of", programs.short_of_memory(passes.batches_of, 8, asked))
    found = trained(made, tmp_path / "b", "fine_tune_first", criterion)
    assert asked == [256, 128, 64, 32, 16, 8]
    assert (kept(tmp_path / "a" / "mask.parquet") == kept(tmp_path / "b" / "mask.parquet")).all()
    # A pass beside the training is no part of it.
    assert (found["micro_batch"], found["test_loss"]) == (8, pytest.approx(expected["test_loss"], rel=1e-4))


def test_a_killed_trunk_goes_on_and_its_cell_says_so(made, tmp_path, monkeypatch):
    cell = cell_of("iterative_2")
    expected = load_file(trunk_of(made, cell) / "trunk.safetensors")
    spec, *arguments = trunk_job(made, tmp_path / "trunk", cell)
    write = mortal(monkeypatch, 2)
    with pytest.raises(Killed):
        programs.run("trunk", spec, *arguments, "--checkpoint-seconds", 0)
    assert [path.name for path in (tmp_path / "trunk").iterdir()] == ["checkpoint.pt"]
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
    programs.run("trunk", spec, *arguments)
    found = load_file(tmp_path / "trunk" / "trunk.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {path.name for path in (tmp_path / "trunk").iterdir()} == set(trunks.FILES)

    spec, *arguments = job(made, tmp_path / "cell", "iterative_2")
    programs.run("finetune", spec, *arguments[:-1], tmp_path / "trunk")
    assert read_json(tmp_path / "cell" / "metrics.json")["resumed"] == 1


def test_a_cell_makes_do_with_the_memory_that_its_trunk_had(made, tmp_path, monkeypatch):
    spec, *arguments = trunk_job(made, tmp_path / "trunk", cell_of("fine_tune_first"))
    real, sizes = loop.train, []

    def train(*given, **options):
        sizes.append(given[7])
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", train)
        programs.run("trunk", spec, *arguments)
    assert sizes == [8, 4]
    spec, *arguments = job(made, tmp_path / "cell", "fine_tune_first")
    programs.run("finetune", spec, *arguments[:-1], tmp_path / "trunk")
    assert read_json(tmp_path / "cell" / "metrics.json")["micro_batch"] == 4


def test_what_a_job_begins_with_is_asked_for(made, tmp_path):
    spec, *arguments = job(made, tmp_path, "iterative_2")
    with pytest.raises(InputError, match=r"iterative_2 prunes what it has trained: give .* a trunk, with --trunk"):
        programs.run("finetune", spec, *arguments[:-2])
    spec, *arguments = trunk_job(made, tmp_path, cell_of("iterative_2"))
    with pytest.raises(InputError, match="this trunk begins with pruning: give the backbone's scores with --scores"):
        programs.run("trunk", spec, *arguments[:-2])


def test_a_trunk_that_diverged_makes_cells_that_diverged_and_say_why(made, tmp_path):
    recipe = LONG | {"learning_rate": 1e30, "schedule": "constant"}
    metrics = trained(made, tmp_path, "fine_tune_first", recipe=recipe)
    trunk = read_json(trunk_of(made, cell_of("fine_tune_first"), recipe) / "trunk.json")
    assert metrics["status"] == trunk["status"] == "diverged"
    assert "in epoch 1" in metrics["reason"] or "after epoch 1" in metrics["reason"]
    assert metrics["reason"] == trunk["reason"] == models.divergence(tmp_path)
    assert kept(tmp_path / "mask.parquet").all()
