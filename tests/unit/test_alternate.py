"""Cells that prune while they train: their phases, their masks, and that nothing is lost when they are killed."""

import signal
import sys

import numpy as np
import pytest
import torch

from winnow import tables
from winnow.data.images import Images
from winnow.data.store import Store
from winnow.files import InputError, canonical_json, read_json
from winnow.importance import scores
from winnow.importance.criteria import CRITERIA
from winnow.importance.masks import mask, removals
from winnow.networks import backbones, models, surgery
from winnow.training import loop
from winnow.training.loop import learning_rate

from . import programs
from .test_finetune import RECIPE, comparable, inputs  # noqa: F401 - a fixture
from .test_finetune import job as finetuning

LONG = RECIPE | {"epochs": 7, "augmentation": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25], "flip": True}}
LONG |= {"warmup_epochs": 1.0, "batch_size": 8}


@pytest.fixture(scope="module")
def made(inputs):  # noqa: F811
    """The inputs with the pretrained backbone's scores."""
    programs.run(
        *("measure", {"code": "0"}, "--dataset", inputs / "store", "--backbone", inputs / "net"),
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


def job(made, output, protocol, criterion="mean_activation", scope="global", ratio=0.5, recipe=LONG, **options):
    cell = {"dataset": "d", "backbone": "b", "criterion": criterion, "scope": scope, "ratio": ratio}
    cell |= {"round_to": options.get("round_to"), "init": "inherited", "seed": 3, "protocol": protocol}
    spec = {"cell": cell, "recipe": recipe, "models": "keep", "min_filters": 1, "code": "0"}
    arguments = ["--dataset", made / "store", "--backbone", made / "net", "--output", output]
    arguments += ["--checkpoint-seconds", options.get("seconds", 1e9)]
    if protocol != "fine_tune_first":
        known = criterion if (made / f"{criterion}.parquet").exists() else "average_weight"
        arguments += ["--scores", made / f"{known}.parquet"]
    return spec, *arguments


def trained(made, output, protocol, *arguments, **options):
    programs.run("alternate", *job(made, output, protocol, *arguments, **options))
    return read_json(output / "metrics.json")


def kept(path):
    return tables.read_table(path, "mask")["keep"].to_numpy(zero_copy_only=False)


def same_files(first, second):
    names = ("predictions.parquet", "model.safetensors", "mask.parquet")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def history(path):
    rows = tables.read_table(path / "history.parquet", "history").to_pylist()
    return [{name: row[name] for name in row if name not in ("seconds", "images_per_second")} for row in rows]


def test_one_step_is_one_shot_bit_for_bit(made, tmp_path):
    spec = {"scope": "global", "ratio": 0.5, "round_to": None, "min_filters": 1, "code": "0"}
    programs.run("mask", spec, "--scores", made / "mean_activation.parquet", "--output", tmp_path / "mask.parquet")
    found = trained(made, tmp_path / "a", "iterative_1")
    cell = found["spec"]["cell"] | {"protocol": "one_shot"}
    spec, *arguments = finetuning(made, tmp_path / "b", mask=False, recipe=LONG)
    programs.run("finetune", spec | {"cell": cell}, *arguments, "--mask", tmp_path / "mask.parquet")
    expected = read_json(tmp_path / "b" / "metrics.json")

    differ = {"spec", "model", "seconds", "images_per_second"}
    assert {k: v for k, v in found.items() if k not in differ} == {k: v for k, v in expected.items() if k not in differ}
    assert history(tmp_path / "a") == history(tmp_path / "b")
    for name in "predictions", "mask":
        places = [tmp_path / folder / f"{name}.parquet" for folder in "ab"]
        if name == "mask":
            places[1] = tmp_path / "mask.parquet"
        first, second = (tables.read_table(place, name) for place in places)
        assert first.equals(second)
    (first, _), (second, _) = (models.load(tmp_path / folder) for folder in "ab")
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


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
    names = scores.units(backbone.manifest["layers"], backbone.channels)[0]
    groups = [names == names] if scope != "layer" else [names == name for name in np.unique(names)]
    for group in groups:
        assert np.count_nonzero(~keep[group]) == removals(ratio, np.count_nonzero(group))
    assert metrics["achieved_ratio"] == np.count_nonzero(~keep) / keep.size
    assert metrics["requested_ratio"] == ratio
    assert backbones.read_mask(tmp_path / "mask.parquet", backbone)[1:] == (ratio, metrics["achieved_ratio"])

    network, _ = models.load(tmp_path)
    expected = backbones.pruned(backbone, keep, 3, "inherited", 0)
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
    rows = store.rows("train"), store.rows("val")
    first = LONG | {"epochs": 3, "warmup_epochs": 3 / 7}
    network = backbones.pruned(backbone, None, 3, "inherited", 3)
    state = loop.train(network, images, *rows, first, 3, "fp32").state

    network.load_state_dict(state)
    means = []
    for layer in backbone.manifest["layers"]:
        step = network.get_submodule(layer["activation"])
        step.register_forward_hook(lambda module, given, out: means.append(out.double().mean((0, 2, 3)).numpy()))
    with torch.inference_mode():
        pixels = images.pixels[torch.from_numpy(rows[0])].permute(0, 3, 1, 2).float() / 255
        network.eval()((pixels - 0.5) / 0.5)
    names = scores.units(backbone.manifest["layers"], backbone.channels)[0]
    keep = mask(names, np.concatenate(means), "layer", 0.5).keep
    assert kept(tmp_path / "mask.parquet").tolist() == keep.tolist()

    second = LONG | {"epochs": 4, "warmup_epochs": 4 / 7}
    network = backbones.pruned(backbone, keep, 3, "inherited", 3)
    network.load_state_dict(surgery.slice_state(state, backbone.channels, keep))
    state = loop.train(network, images, *rows, second, 3, "fp32", epochs_before=3).state
    found = models.load(tmp_path)[0].state_dict()
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor)


class Killed(BaseException):
    """What a kill looks like from inside: the run is simply gone."""


def mortal(monkeypatch, after):
    write, left = loop.Checkpoint.write, [after]

    def counted(self, *arguments):
        write(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(loop.Checkpoint, "write", counted)
    return write


# 7 epochs of 2 steps, and each phase's beginning: 16 or 17 times. The last epoch's last step is never lost to much.
@pytest.mark.parametrize(("protocol", "writes"), [("fine_tune_first", 16), ("iterative_3", 17)])
def test_a_cell_killed_at_any_step_goes_on_and_ends_bit_for_bit_the_same(made, tmp_path, monkeypatch, protocol, writes):
    reference = trained(made, tmp_path / "reference", protocol)
    expected = history(tmp_path / "reference")
    for after in range(1, writes + 1):
        output = tmp_path / str(after)
        write = mortal(monkeypatch, after)
        with pytest.raises(Killed):
            trained(made, output, protocol, seconds=0)
        assert not (output / "metrics.json").exists()
        monkeypatch.setattr(loop.Checkpoint, "write", write)
        resumed = trained(made, output, protocol)
        assert resumed["resumed"] == 1
        assert comparable(resumed) == comparable(reference)
        assert history(output) == expected
        assert same_files(tmp_path / "reference", output)
        assert not (output / "checkpoint.pt").exists()
    # There is no further checkpoint: the count above is all of them.
    write = mortal(monkeypatch, writes + 1)
    trained(made, tmp_path / "whole", protocol, seconds=0)
    monkeypatch.setattr(loop.Checkpoint, "write", write)


def test_phases_that_have_ended_are_not_run_again(made, tmp_path, monkeypatch):
    write = mortal(monkeypatch, 2)
    with pytest.raises(Killed):
        trained(made, tmp_path, "fine_tune_first")  # no checkpoint is due but those at the phases' beginnings
    monkeypatch.setattr(loop.Checkpoint, "write", write)
    epochs = []
    monkeypatch.setattr(loop, "require_finite", lambda loss, what, when: epochs.append(when))
    trained(made, tmp_path, "fine_tune_first")
    assert not any("epoch 3" in when for when in epochs)
    assert any("in epoch 4" in when for when in epochs)


def test_a_process_that_is_killed_and_told_to_end_ends_with_the_same_files(made, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WINNOW_WORKERS", "off")
    recipe = LONG | {"epochs": 200}
    reference = trained(made, tmp_path / "a", "iterative_3", recipe=recipe)
    spec, *arguments = job(made, tmp_path / "b", "iterative_3", recipe=recipe, seconds=0.1)
    command = [sys.executable, programs.SCRIPTS / "alternate.py", "--spec", canonical_json(spec), *arguments]
    checkpoint = tmp_path / "b" / "checkpoint.pt"
    assert programs.signalled(command, checkpoint, signal.SIGKILL) == -signal.SIGKILL
    assert programs.signalled(command, checkpoint, signal.SIGTERM) == loop.TERMINATED
    resumed = trained(made, tmp_path / "b", "iterative_3", recipe=recipe)
    assert resumed["resumed"] == 2
    assert comparable(resumed) == comparable(reference)
    assert same_files(tmp_path / "a", tmp_path / "b")


def test_out_of_memory_in_a_later_phase_runs_that_phase_once_more(made, tmp_path, monkeypatch):
    real, calls = loop.train, []

    def train(*arguments, epochs_before, **options):
        calls.append((epochs_before, arguments[7]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, epochs_before=epochs_before, **options)

    monkeypatch.setattr(loop, "train", train)
    metrics = trained(made, tmp_path, "fine_tune_first")
    assert metrics["micro_batch"] == 4
    assert [row["epoch"] for row in history(tmp_path)] == list(range(1, 8))


def test_scores_are_asked_for(made, tmp_path):
    spec, *arguments = job(made, tmp_path, "iterative_2")
    with pytest.raises(InputError, match="iterative_2 begins with pruning: give the backbone's scores with --scores"):
        programs.run("alternate", spec, *arguments[:-2])


def test_a_phase_that_diverged_is_a_result_that_says_why(made, tmp_path):
    recipe = LONG | {"learning_rate": 1e30, "schedule": "constant"}
    metrics = trained(made, tmp_path, "fine_tune_first", recipe=recipe)
    assert metrics["status"] == "diverged"
    assert "in epoch 1" in metrics["reason"] or "after epoch 1" in metrics["reason"]
    assert not list(tmp_path.glob("model.*"))
