"""The cell's program: what it writes, and what it does when things go wrong."""

import dataclasses
import os
import signal
import subprocess
import sys
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch

import winnow
from winnow import tables
from winnow.data.images import Images
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import InputError, canonical_json, file_digest, read_json
from winnow.importance import masks
from winnow.networks import backbones, models
from winnow.training import cells, checkpoints, judging, loop, precision
from winnow.training.metrics import Epoch, Metrics
from winnow.workflow import identity, specs

from . import programs
from .test_backbones import imported

RECIPE = {
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "warmup_epochs": 0,
    "label_smoothing": 0.0,
    "augmentation": None,
    "precision": "auto",
    "evaluate_every": 1,
}
# What differs from run to run; a history has its seconds, and with them its digest.
TIMES = ("seconds", "images_per_second", "resumed", "files", "peak_mb")


def stored(directory, splits):
    """A store of 3 classes of 11 images, each split like the others."""
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 80, (8, 8, 3), dtype=np.uint8) + 60 * (n // 11) for n in range(33)]
    programs.stored(directory, np.array(pixels, dtype=np.uint8), [n // 11 for n in range(33)], splits * 3)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a store of 3 classes, a backbone and a by-layer mask at ratio 0.5."""
    root = tmp_path_factory.mktemp("inputs")
    stored(root / "store", ["train"] * 5 + ["val"] * 2 + ["test"] * 4)
    imported(root / "net")
    layers = read_json(root / "net" / "manifest.json")["layers"]
    names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
    index = np.concatenate([np.arange(layer["filters"]) for layer in layers])
    mask = masks.mask(names, np.random.default_rng(1).random(names.size), "layer", 0.5)
    rows = {"layer": names, "filter": index, "keep": mask.keep, "rank": mask.rank}
    tables.write_table(root / "mask.parquet", pa.table(rows), "mask", {"requested": 0.5, "achieved": mask.achieved})
    return root


def finetuned(inputs, output, **options):
    programs.run("finetune", *job(inputs, output, **options))
    return read_json(output / "metrics.json")


def job(
    inputs,
    output,
    mask=True,
    keep=True,
    recipe=RECIPE,
    init="inherited",
    checkpoint_seconds=120,
    protocol="one_shot",
    teacher=None,
):
    """A job's spec and its other arguments."""
    cell = {"dataset": "d", "backbone": "b", "criterion": "apoz", "scope": "layer", "ratio": 0.5, "round_to": None}
    cell |= {"init": init, "seed": 0, "protocol": protocol}
    spec = {"cell": cell, "recipe": recipe, "code": "0"}
    arguments = [
        *programs.dataset(inputs / "store"),
        "--backbone",
        inputs / "net",
        "--output",
        *programs.cell(output, keep),
    ]
    arguments += ["--checkpoint-seconds", checkpoint_seconds, *(["--mask", inputs / "mask.parquet"] if mask else [])]
    arguments += ["--teacher", teacher] if teacher else []
    return spec, *arguments


def comparable(metrics):
    return {name: value for name, value in metrics.items() if name not in TIMES}


def test_a_cell_has_metrics_history_predictions_and_a_model(inputs, tmp_path):
    metrics = finetuned(inputs, tmp_path)
    assert metrics.keys() == Metrics.__annotations__.keys()
    assert tables.SCHEMAS["history"].names == list(Epoch.__annotations__)
    assert metrics["status"] == "finished"
    assert metrics["versions"] == {"torch": torch.__version__, "torchvision": metrics["versions"]["torchvision"]} | {
        "winnow": winnow.__version__
    }
    assert metrics["spec"]["recipe"] == RECIPE
    assert metrics["requested_ratio"] == 0.5
    assert metrics["achieved_ratio"] == 0.5
    assert metrics["precision"] == "fp32"
    assert metrics["peak_mb"]["host"] > 100  # torch alone takes more
    assert metrics["peak_mb"]["device"] is None
    history = tables.read_table(tmp_path / "history.parquet", "history").to_pylist()
    assert [row["epoch"] for row in history] == [1, 2]
    assert metrics["val_accuracy"] == history[metrics["epoch"] - 1]["val_accuracy"]

    predictions = tables.read_table(tmp_path / "predictions.parquet", "predictions").to_pylist()
    store = Store.open(inputs / "store")
    rows = Split.open(inputs / "store.parquet", store).rows("test")
    assert [row["image"] for row in predictions] == rows.tolist()
    assert metrics["split"] == "store"
    assert metrics["accuracy"] == pytest.approx(np.mean([row["correct"] for row in predictions]))
    for name, accuracy in metrics["per_class"].items():
        own = [row["correct"] for row in predictions if store.classes[row["label"]] == name]
        assert accuracy == pytest.approx(np.mean(own))
    assert metrics["class_accuracy"] == pytest.approx(np.mean(list(metrics["per_class"].values())))

    network, description = models.load(tmp_path)
    images = Images(
        torch.from_numpy(np.array(store.images)),
        torch.from_numpy(store.labels),
        8,
        description["mean"],
        description["std"],
    )
    judged = judging.evaluate(network, images, rows, "fp32")
    assert judged.predicted.tolist() == [row["predicted"] for row in predictions]
    assert description["classes"] == store.classes
    assert metrics["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert metrics["bytes"] == 4 * metrics["params"]
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_network_is_judged_as_its_file_answers_whatever_it_was_trained_in(inputs, tmp_path, monkeypatch):
    real, judged = judging.evaluate, []

    def evaluate(network, images, rows, name):
        judged.append((rows.size, name))
        return real(network, images, rows, name)

    monkeypatch.setattr(judging, "evaluate", evaluate)
    assert finetuned(inputs, tmp_path, recipe=RECIPE | {"precision": "bf16"})["precision"] == "bf16"
    # The three classes' test images, four each.
    assert judged[-1] == (12, "fp32")


def test_the_chosen_epochs_weights_are_judged_and_kept(inputs, tmp_path, monkeypatch):
    real = loop.train

    def train(*arguments, **options):
        trained = real(*arguments, **options)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in trained.state.items()}
        return dataclasses.replace(trained, state=zeros)

    monkeypatch.setattr(loop, "train", train)
    metrics = finetuned(inputs, tmp_path)
    assert metrics["test_loss"] == pytest.approx(np.log(3))
    network, _ = models.load(tmp_path)
    assert not any(parameter.any() for parameter in network.parameters())


def test_the_baseline_has_a_mask_that_keeps_all(inputs, tmp_path):
    pruned = finetuned(inputs, tmp_path / "pruned", keep=False)
    metrics = finetuned(inputs, tmp_path / "whole", mask=False, keep=False)
    assert metrics["achieved_ratio"] == 0
    assert metrics["params"] > pruned["params"]
    places = (tmp_path / "whole" / "mask.parquet", inputs / "mask.parquet")
    whole, given = (tables.read_table(place, "mask") for place in places)
    assert whole["keep"].to_pylist() == [True] * given.num_rows
    assert whole.select(["layer", "filter"]).equals(given.select(["layer", "filter"]))
    assert tables.read_table(tmp_path / "pruned" / "mask.parquet", "mask").equals(given)


def test_a_program_writes_the_files_that_it_is_told_and_no_others(inputs, tmp_path):
    spec, *arguments = job(inputs, tmp_path, keep=False)
    place = arguments.index("--output")
    del arguments[place : place + 5]
    programs.run("finetune", spec, *arguments, "--output", tmp_path / "folder")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == set(cells.FILES)
    digests = read_json(tmp_path / "folder" / "metrics.json")["files"]
    assert digests == {name: file_digest(tmp_path / "folder" / name) for name in cells.FILES if name != "metrics.json"}

    network = [tmp_path / "network" / name for name in models.FILES]
    programs.run("finetune", spec, *arguments, "--output", *network)
    assert sorted((tmp_path / "network").iterdir()) == sorted(network)
    whole = finetuned(inputs, tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == network[0].read_bytes()
    # Whether the network is kept changes nothing else.
    assert comparable(whole) == comparable(read_json(tmp_path / "folder" / "metrics.json"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["metrics.json", "scores.parquet"], "scores.parquet is none of them"),
        (["a/metrics.json", "b/metrics.json"], "one of them is given twice"),
        (["model.json", "metrics.json"], "model.safetensors and model.json go together, in one folder"),
        (["a/model.json", "b/model.safetensors"], "model.safetensors and model.json go together, in one folder"),
    ],
)
def test_outputs_that_make_no_sense_are_named(inputs, tmp_path, capsys, names, said):
    spec, *arguments = job(inputs, tmp_path)
    with pytest.raises(SystemExit):
        programs.run("finetune", spec, *arguments, "--output", *(tmp_path / name for name in names))
    assert said in capsys.readouterr().err


def test_a_cell_of_one_phase_depends_on_nothing_that_measures_filters(inputs, tmp_path):
    spec, *arguments = job(inputs, tmp_path)
    program = programs.SCRIPTS / "finetune.py"
    code = f"import runpy, sys; runpy.run_path({str(program)!r}, run_name='__main__'); print(*sorted(sys.modules))"
    command = [sys.executable, "-c", code, "--spec", canonical_json(spec), *map(str, arguments)]
    environment = os.environ | {"WINNOW_WORKERS": "off", "PYTHONPATH": str(programs.SCRIPTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("winnow.")}
    assert specs.BETWEEN_PHASES in identity.sources(program)
    # The rooms themselves are no modules of their own that a digest covers, but for their docstrings.
    assert loaded - {"winnow.runtime"} <= {
        *identity.sources(program, without=(specs.BETWEEN_PHASES, specs.REPAIR)),
        *(name for name in loaded if name.startswith("winnow.runtime.")),
    }


def test_random_weights_make_the_same_network_with_other_values(inputs, tmp_path):
    inherited = finetuned(inputs, tmp_path / "a", keep=False)
    drawn = finetuned(inputs, tmp_path / "b", keep=False, init="random")
    assert (inherited["params"], inherited["macs"]) == (drawn["params"], drawn["macs"])
    assert inherited["test_loss"] != drawn["test_loss"]


def test_a_diverged_cell_is_a_result_that_says_why(inputs, tmp_path, capsys):
    metrics = finetuned(inputs, tmp_path, recipe=RECIPE | {"learning_rate": 1e30, "schedule": "constant"})
    assert metrics["status"] == "diverged"
    assert "at learning rate 1e+30" in metrics["reason"]
    assert metrics["accuracy"] is None
    assert "DIVERGED" in capsys.readouterr().out
    # Its network's files are there all the same, and say why there is none.
    assert models.divergence(tmp_path) == metrics["reason"]
    with pytest.raises(InputError, match=r"model.safetensors holds no network, its training diverged: .* 1e\+30"):
        models.load(tmp_path)
    assert tables.read_table(tmp_path / "predictions.parquet", "predictions").num_rows == 0


def test_a_cell_whose_last_step_diverged_is_one_too(inputs, tmp_path):
    stored(tmp_path / "store", ["train"] * 7 + ["test"] * 4)
    for name in ("net", "mask.parquet"):
        (tmp_path / name).symlink_to(inputs / name)
    # One step: its own loss is finite, the weights that it leaves are not, and no validation looks at them.
    recipe = RECIPE | {"epochs": 1, "batch_size": 21, "learning_rate": 1e30, "schedule": "constant"}
    metrics = finetuned(tmp_path, tmp_path / "out", recipe=recipe)
    assert metrics["status"] == "diverged"
    assert metrics["reason"] in [f"test loss is {loss} with the weights of epoch 1" for loss in ("nan", "inf")]
    assert models.divergence(tmp_path / "out") == metrics["reason"]


def test_the_unpruned_networks_size_decides_the_precision_of_both_arms(inputs, tmp_path, monkeypatch):
    macs = [finetuned(inputs, tmp_path / str(mask), mask=mask)["macs"] for mask in (True, False)]
    monkeypatch.setattr(precision, "_has_bf16_arithmetic", lambda: True)
    # Between the two: the pruned network alone would be too small.
    monkeypatch.setattr(precision, "BF16_MACS", macs[0] + 1)
    assert macs[0] < macs[1]
    for mask in (True, False):
        assert finetuned(inputs, tmp_path / f"again-{mask}", mask=mask)["precision"] == "bf16"


def test_what_filled_the_memory_is_gone_when_the_cell_runs_once_more(inputs, tmp_path, monkeypatch):
    real = loop.train
    held, released = [], []

    def train(network, *rest, **options):
        if not held:
            activations = torch.zeros(10)
            held.extend([weakref.ref(network), weakref.ref(activations)])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, *rest, **options)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.extend(reference() for reference in held))
    assert finetuned(inputs, tmp_path)["micro_batch"] == 4
    assert released == [None, None]


def test_out_of_memory_runs_once_more_with_half_the_images_a_pass(inputs, tmp_path, monkeypatch, capsys):
    whole = finetuned(inputs, tmp_path / "whole")
    real = loop.train
    passes = []

    def train(network, images, train_rows, val_rows, recipe, seed, precision, micro_batch, checkpoint, **options):
        passes.append(micro_batch)
        if len(passes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, images, train_rows, val_rows, recipe, seed, precision, micro_batch, checkpoint, **options)

    monkeypatch.setattr(loop, "train", train)
    metrics = finetuned(inputs, tmp_path / "half")
    assert passes == [8, 4]
    assert (metrics["micro_batch"], metrics["batch_norm"]) == (4, False)
    assert "once more with 4 images a pass, 8 a step as before" in capsys.readouterr().out
    assert metrics["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-4)

    def never(*arguments, **options):
        passes.append(arguments[7])
        raise torch.OutOfMemoryError("again")

    passes.clear()
    monkeypatch.setattr(loop, "train", never)
    with pytest.raises(torch.OutOfMemoryError):
        finetuned(inputs, tmp_path / "none")
    assert not (tmp_path / "none" / "metrics.json").exists()
    assert passes == [8, 4, 2, 1]


def test_a_cell_that_went_on_after_memory_ran_out_says_so_when_it_is_taken_up_again(inputs, tmp_path, monkeypatch):
    write, real = checkpoints.Checkpoint.write, loop.train

    class Killed(BaseException):
        pass

    def mortal(self, *arguments):
        write(self, *arguments)
        raise Killed

    def train(*arguments, **options):
        if arguments[7] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "write", mortal)
        patch.setattr(loop, "train", train)
        with pytest.raises(Killed):
            finetuned(inputs, tmp_path, checkpoint_seconds=0)
    metrics = finetuned(inputs, tmp_path)
    assert (metrics["resumed"], metrics["micro_batch"]) == (1, 4)


def test_a_killed_cell_goes_on_and_ends_with_the_same_metrics(inputs, tmp_path, monkeypatch):
    reference = finetuned(inputs, tmp_path / "a")
    write = checkpoints.Checkpoint.write

    class Killed(BaseException):
        pass

    def mortal(self, *arguments):
        write(self, *arguments)
        raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "write", mortal)
    with pytest.raises(Killed):
        finetuned(inputs, tmp_path / "b", checkpoint_seconds=0)
    assert not (tmp_path / "b" / "metrics.json").exists()
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
    resumed = finetuned(inputs, tmp_path / "b")
    assert resumed["resumed"] == 1
    assert not (tmp_path / "b" / "checkpoint.pt").exists()
    assert comparable(resumed) == comparable(reference)
    for name in ("predictions.parquet", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow("processes are started, killed and started again")
def test_a_process_that_is_killed_and_told_to_end_ends_with_the_same_files(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WINNOW_WORKERS", "off")
    recipe = RECIPE | {"epochs": 200}
    reference = finetuned(inputs, tmp_path / "a", recipe=recipe)
    spec, *arguments = job(inputs, tmp_path / "b", recipe=recipe, checkpoint_seconds=0.1)
    command = [sys.executable, programs.SCRIPTS / "finetune.py", "--spec", canonical_json(spec), *arguments]
    checkpoint = tmp_path / "b" / "checkpoint.pt"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, checkpoints.TERMINATED)):
        assert programs.signalled(command, checkpoint, number) == status
        assert not (tmp_path / "b" / "metrics.json").exists()
    resumed = finetuned(inputs, tmp_path / "b", recipe=recipe)
    assert resumed["resumed"] == 2
    assert comparable(resumed) == comparable(reference)
    for name in ("predictions.parquet", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_checkpoint_of_another_mask_is_not_taken_up(inputs, tmp_path, monkeypatch):
    write = checkpoints.Checkpoint.write
    monkeypatch.setattr(
        checkpoints.Checkpoint, "write", lambda self, *a: (write(self, *a), exec("raise SystemExit(9)"))
    )
    with pytest.raises(SystemExit):
        finetuned(inputs, tmp_path, checkpoint_seconds=0)
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
    assert finetuned(inputs, tmp_path, mask=False)["resumed"] == 0


def test_a_mask_of_another_backbone_is_told(inputs, tmp_path):
    table = tables.read_table(inputs / "mask.parquet", "mask")
    tables.write_table(tmp_path / "mask.parquet", table.slice(0, 10), "mask", {"requested": 0.5, "achieved": 0.5})
    for name in ("store", "store.parquet", "net"):
        (tmp_path / name).symlink_to(inputs / name)
    with pytest.raises(InputError, match=r"a mask of 10 filters, the backbone has 224"):
        finetuned(tmp_path, tmp_path / "out")


DISTILLATION = {"temperature": 4.0, "weight": 0.5}


def test_a_distilled_cell_learns_from_the_baseline(inputs, tmp_path):
    finetuned(inputs, tmp_path / "baseline", mask=False)
    alone = finetuned(inputs, tmp_path / "alone")
    results = {}
    for weight in (0.0, 0.5):
        recipe = RECIPE | {"distillation": DISTILLATION | {"weight": weight}}
        options = {"recipe": recipe, "protocol": "distilled", "teacher": tmp_path / "baseline"}
        results[weight] = finetuned(inputs, tmp_path / str(weight), **options)
    # Without weight the teacher changes no bit.
    differ = (*TIMES, "spec", "files")
    first, second = ({k: v for k, v in found.items() if k not in differ} for found in (results[0.0], alone))
    assert first == second
    states = [models.load(tmp_path / name)[0].state_dict() for name in ("alone", "0.0", "0.5")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())


def test_a_teacher_is_there_of_the_same_classes_and_has_not_diverged(inputs, tmp_path):
    recipe = RECIPE | {"distillation": DISTILLATION}
    with pytest.raises(InputError, match="give its network with --teacher"):
        finetuned(inputs, tmp_path / "a", recipe=recipe, protocol="distilled")

    diverging = RECIPE | {"learning_rate": 1e30, "schedule": "constant"}
    finetuned(inputs, tmp_path / "baseline", mask=False, recipe=diverging)
    options = {"recipe": recipe, "protocol": "distilled", "teacher": tmp_path / "baseline"}
    metrics = finetuned(inputs, tmp_path / "b", **options)
    assert metrics["status"] == "diverged"
    assert metrics["reason"] == "the training of its teacher, the unpruned baseline, diverged"

    finetuned(inputs, tmp_path / "baseline", mask=False)
    stored(tmp_path / "store", ["train"] * 5 + ["val"] * 2 + ["test"] * 4)
    manifest = read_json(tmp_path / "store" / "manifest.json")
    (tmp_path / "store" / "manifest.json").write_text(canonical_json(manifest | {"classes": ["p", "q", "s"]}))
    for name in ("net", "mask.parquet"):
        (tmp_path / name).symlink_to(inputs / name)
    with pytest.raises(InputError, match=r"baseline knows other classes than .*store"):
        finetuned(tmp_path, tmp_path / "c", **options)


def test_budgets_are_of_epochs_or_of_operations(inputs, tmp_path):
    recipe = RECIPE | {"epochs": 4, "warmup_epochs": 1.0}
    whole = finetuned(inputs, tmp_path / "whole", mask=False, recipe=recipe, init="random")
    scratch = finetuned(inputs, tmp_path / "scratch", recipe=recipe, init="random", protocol="equal_flops")
    short = finetuned(inputs, tmp_path / "short", recipe=recipe, protocol="short_2")
    spent = {
        name: tables.read_table(tmp_path / name / "history.parquet", "history").to_pylist()
        for name in ("scratch", "short")
    }
    assert len(spent["scratch"]) == int(4 * whole["macs"] / scratch["macs"] + 0.5) > 8
    assert len(spent["short"]) == 2
    assert scratch["achieved_ratio"] == short["achieved_ratio"] == 0.5
    # The schedule is stretched with it: 15 images are 2 steps an epoch.
    rates = [loop.learning_rate(RECIPE | {"epochs": 2, "warmup_epochs": 0.5}, step, 2) for step in (1, 3)]
    assert [row["learning_rate"] for row in spent["short"]] == pytest.approx(rates)


def test_pretraining_makes_weights_that_a_backbone_can_be_made_of(inputs, tmp_path):
    backbone = {"architecture": "vgg_digits", "head": "gap", "mean": [0.5] * 3, "std": [0.5] * 3}
    spec = {"backbone": backbone, "recipe": RECIPE, "seed": 1, "code": "0"}
    programs.run("pretrain", spec, *programs.dataset(inputs / "store"), "--output", tmp_path / "made")
    weights = tmp_path / "made" / "pretrained.safetensors"
    assert read_json(weights.with_suffix(".json"))["weights_sha256"] == file_digest(weights)
    imported(tmp_path / "net", weights, weights=None)
    loaded = backbones.load(tmp_path / "net")
    assert loaded.manifest["classes"] == 3
    assert loaded.network()(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
