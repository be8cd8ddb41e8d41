"""What only a GPU can show: that it is used, that its results are the CPU's, and that they come out the same again.

Other tests' helpers stay where they are: a machine that is lent for an hour need not have what all of those import.
"""

import copy
import functools
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from winnow import tables
from winnow.data.images import Images, load_images
from winnow.data.store import Store
from winnow.files import read_json
from winnow.importance import masks, statistics, sums
from winnow.networks import backbones, latency, models
from winnow.training import checkpoints, judging, loop, steps

from . import programs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use"),
]
MEAN, STD = [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]
BACKBONE = {"architecture": "vgg_digits", "head": "gap", "weights": "random", "mean": MEAN, "std": STD}
RECIPE = {
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 0,
    "label_smoothing": 0.1,
    "augmentation": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25], "flip": True},
    "precision": "auto",
    "evaluate_every": 1,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a store of 3 classes, a backbone and a by-layer mask at ratio 0.5."""
    root = tmp_path_factory.mktemp("inputs")
    for label, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        folder = root / "images" / f"c{label}"
        folder.mkdir(parents=True)
        for number in range(18):
            noise = np.random.default_rng((label, number)).normal(colour, 30, (16, 16, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    dataset = {"source": "folder", "path": str(root / "images"), "split": {"val": 0.2, "test": 0.3}}
    dataset |= {"store_size": 16, "image_size": 12}
    programs.run("decode", {"name": "d", "dataset": dataset}, "--output", root / "store")
    where = ["--dataset", root / "store", "--output", root / "store.parquet"]
    programs.run("split", {"dataset": dataset, "fold": None}, *where)
    programs.run("import_backbone", {"name": "b", "backbone": BACKBONE, "code": "0"}, "--output", root / "net")
    layers = read_json(root / "net" / "manifest.json")["layers"]
    names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
    index = np.concatenate([np.arange(layer["filters"]) for layer in layers])
    mask = masks.mask(names, np.random.default_rng(1).random(names.size), "layer", 0.5)
    rows = {"layer": names, "filter": index, "keep": mask.keep, "rank": mask.rank}
    tables.write_table(root / "mask.parquet", pa.table(rows), "mask", {"requested": 0.5, "achieved": mask.achieved})
    return root


@pytest.fixture(autouse=True)
def leases(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_LEASES", str(tmp_path / "leases"))


def finetuned(inputs, output, checkpoint_seconds=120, criterion="apoz", **recipe):
    cell = {"dataset": "d", "backbone": "b", "criterion": criterion, "scope": "layer", "ratio": 0.5, "round_to": None}
    cell |= {"init": "inherited", "seed": 0, "protocol": "one_shot"}
    spec = {"cell": cell, "recipe": RECIPE | recipe, "code": "0"}
    arguments = ["--gpu", 1, *programs.dataset(inputs / "store"), "--backbone", inputs / "net"]
    arguments += ["--output", *programs.cell(output)]
    arguments += ["--mask", inputs / "mask.parquet", "--checkpoint-seconds", checkpoint_seconds]
    programs.run("finetune", spec, *arguments)
    return read_json(output / "metrics.json")


def comparable(metrics):
    times = ("seconds", "images_per_second", "resumed", "files", "peak_mb")
    return {name: value for name, value in metrics.items() if name not in times}


def test_a_job_leases_the_device_and_sees_no_other(tmp_path):
    code = (
        "import json, os; from winnow.runtime import devices; lease = devices.lease(1);"
        "print(json.dumps([lease.id, os.environ['CUDA_VISIBLE_DEVICES'], lease.device, lease.name,"
        " __import__('torch').cuda.device_count(), devices.holders(lease.id)]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PYTHONPATH": str(programs.SCRIPTS)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == ["0", "0", "cuda", torch.cuda.get_device_name(0), 1, 1]


# In the longer one steps are recorded, in another of them where it goes on.
@pytest.mark.parametrize(("precision", "epochs"), [("auto", 2), ("fp32", 2), ("auto", 12)])
def test_a_killed_cell_goes_on_and_ends_with_the_same_files(inputs, tmp_path, monkeypatch, precision, epochs):
    reference = finetuned(inputs, tmp_path / "a", precision=precision, epochs=epochs)
    assert reference["device"] == torch.cuda.get_device_name()
    assert reference["precision"] == ("bf16" if precision == "auto" else "fp32")
    write = checkpoints.Checkpoint.write

    class Killed(BaseException):
        pass

    def mortal(self, *arguments):
        write(self, *arguments)
        raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "write", mortal)
    with pytest.raises(Killed):
        finetuned(inputs, tmp_path / "b", checkpoint_seconds=0, precision=precision, epochs=epochs)
    monkeypatch.setattr(checkpoints.Checkpoint, "write", write)
    resumed = finetuned(inputs, tmp_path / "b", precision=precision, epochs=epochs)
    assert resumed["resumed"] == 1
    assert comparable(resumed) == comparable(reference)
    for name in ("predictions.parquet", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@functools.cache
def initialised(architecture, head):
    return backbones.initialised(architecture, head, 5, 0)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    ("architecture", "head"),
    # Pooling to 7 x 7 from 2 x 2, pooling that overlaps, batch norm and depthwise convolutions.
    [
        ("vgg11_bn", "classifier"),
        ("squeezenet1_1", "classifier"),
        ("resnet18", "classifier"),
        ("mobilenet_v2", "classifier"),
    ],
)
def test_two_trainings_are_alike_bit_for_bit(architecture, head, precision):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (72, 72, 72, 3), np.uint8)).cuda()
    images = Images(pixels, torch.arange(72, device="cuda") % 5, 64, MEAN, STD)
    rows = np.arange(72)
    recipe = RECIPE | {"batch_size": 16, "learning_rate": 0.01}

    def trained():
        network = copy.deepcopy(initialised(architecture, head)).cuda()
        return loop.train(network, images, rows[:64], rows[64:], recipe, 0, precision, report=lambda line: None)

    first, second = trained(), trained()
    assert [name for name, tensor in first.state.items() if not torch.equal(tensor, second.state[name])] == []
    assert first.val_accuracy == second.val_accuracy


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("architecture", ["vgg11_bn", "squeezenet1_1", "googlenet", "mobilenet_v2"])
def test_a_recorded_step_trains_bit_for_bit_as_one_by_kernel(monkeypatch, architecture, precision):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (130, 72, 72, 3), np.uint8)).cuda()
    images = Images(pixels, torch.arange(130, device="cuda") % 5, 64, MEAN, STD)
    rows, recorded, real = np.arange(130), [], steps.Recording.play
    recipe = RECIPE | {"batch_size": 16, "learning_rate": 0.01, "epochs": 5, "clip_norm": 1.0}
    monkeypatch.setattr(steps.Recording, "play", lambda *given: recorded.append(1) or real(*given))

    def trained():
        network = copy.deepcopy(initialised(architecture, "classifier")).cuda()
        return loop.train(network, images, rows[:120], rows[120:], recipe, 0, precision, report=lambda line: None)

    first = trained()
    # Of eight batches an epoch the last has eight images; three come before it is recorded.
    assert len(recorded) == 5 * 7 - steps.WARM_UP
    monkeypatch.setattr(steps, "LEAST_STEPS", float("inf"))
    second = trained()
    assert len(recorded) == 5 * 7 - steps.WARM_UP
    assert [name for name, tensor in first.state.items() if not torch.equal(tensor, second.state[name])] == []
    assert [row["train_loss"] for row in first.history] == [row["train_loss"] for row in second.history]


def test_a_network_for_which_the_host_waits_is_trained_by_kernel(monkeypatch):
    class Waiting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(3 * 64, 5)

        def forward(self, views):
            found = torch.nn.functional.adaptive_avg_pool2d(views, 8).flatten(1)
            return self.last(found / max(found.abs().max().item(), 1.0))

    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (128, 72, 72, 3), np.uint8)).cuda()
    images = Images(pixels, torch.arange(128, device="cuda") % 5, 64, MEAN, STD)
    monkeypatch.setattr(steps, "Recording", lambda *given: pytest.fail("it was recorded"))
    recipe = RECIPE | {"epochs": 10, "batch_size": 16}
    found = loop.train(Waiting().cuda(), images, np.arange(120), np.arange(120, 128), recipe, 0, "fp32")
    assert len(found.history) == 10


def test_images_that_do_not_fit_on_the_device_train_the_same_network(inputs, tmp_path, monkeypatch):
    resident = finetuned(inputs, tmp_path / "a")
    monkeypatch.setattr("winnow.data.images.RESIDENT_SHARE", 0.0)
    monkeypatch.setattr("winnow.runtime.memory._kept", {})
    assert not load_images(Store.open(inputs / "store"), MEAN, STD, "cuda").pixels.is_cuda
    assert comparable(finetuned(inputs, tmp_path / "b")) == comparable(resident)


# A worker of the run whose process it is told, with 256 MB of images; says what it found and took, and waits.
SHARING = """
import os, sys, types
from pathlib import Path
import torch
from winnow.data import images
from winnow.runtime import devices, memory, workers

devices.lease(1)
workers._run_folder = workers._folder(int(sys.argv[1]))
store = types.SimpleNamespace(directory=Path(sys.argv[2]), manifest={})
pixels = (torch.arange(2**20) % 251).to(torch.uint8).repeat(256).view(1024, 512, 512)
read = []
flatten, torch.Tensor.flatten = torch.Tensor.flatten, lambda tensor: read.append(1) or flatten(tensor)
torch.zeros(1, device="cuda").item()
before = torch.cuda.mem_get_info()[0]
found = images.resident(store, pixels)
taken = before - torch.cuda.mem_get_info()[0]
rows = torch.tensor([0, 1023, 7], device="cuda")
alike = found.is_cuda and torch.equal(found[rows].cpu(), pixels[[0, 1023, 7]])
print(alike, len(read), taken, memory.taken("pixels"), flush=True)
sys.stdin.readline()
print(torch.equal(found.cpu(), pixels), flush=True)
"""


def test_workers_on_a_device_share_one_copy_of_the_images_and_none_takes_it_along(inputs, tmp_path, monkeypatch):
    environment = os.environ | {"PYTHONPATH": str(programs.SCRIPTS), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment["WINNOW_WORKER_IDLE_SECONDS"] = "1"
    command = [sys.executable, "-c", SHARING, str(os.getpid()), str(inputs / "store")]

    def worker():
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        said = process.stdout.readline().split()
        if not said or process.poll() is not None:
            pytest.fail(process.communicate()[1])
        return process, (said[0] == "True", int(said[1])), int(said[2]), int(said[3])

    first, found, taken, own = worker()
    processes = [first]
    try:
        assert (found, own) == ((True, 1), 0)
        assert taken >= 2**28
        second, found, taken, own = worker()
        processes.append(second)
        # It sees what the first one read, and takes nothing for it.
        assert (found, own) == ((True, 0), 0)
        assert taken < 2**26
        first.kill()
        first.wait()
        third, found, taken, own = worker()
        processes.append(third)
        assert (found, own) == ((True, 0), 0)
        for process in (second, third):
            output, error = process.communicate("\n", timeout=60)
            assert (output, error) == ("True\n", "")
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("program", "kind"), [("measure", "activations"), ("differentiate", "gradients")])
def test_statistics_are_the_cpus_and_the_same_again(inputs, tmp_path, program, kind):
    found = []
    for number, gpu in enumerate((1, 1, 0)):
        arguments = ["--gpu", gpu, *programs.dataset(inputs / "store"), "--backbone", inputs / "net"]
        programs.run(program, {"code": "0"}, *arguments, "--output", tmp_path / f"{number}.json")
        found.append(sums.read(tmp_path / f"{number}.json", kind))
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "1.npz").read_bytes()
    first, _, cpu = found
    assert (first.images.tolist(), first.layers) == (cpu.images.tolist(), cpu.layers)
    for name, ours in first.arrays.items():
        theirs = cpu.arrays[name]
        if name.endswith("zeros"):
            # Only where an output is nearly 0 may one device round it to 0 and the other not.
            assert np.abs(ours - theirs).max() <= 2
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("reduce", ["reduce_rows", "_by_torch"])
def test_maps_are_reduced_to_what_brute_force_gives(monkeypatch, reduce):
    reducer = statistics._on_gpu() if reduce == "reduce_rows" else statistics._by_torch
    if reducer.__name__ != reduce:
        pytest.skip("Triton makes no kernel here")
    monkeypatch.setattr(statistics, "_on_gpu", lambda: reducer)
    for shape in [(1, 1, 1, 1), (5, 100, 17, 31), (3, 64, 224, 224), (2, 513, 7, 7), (33, 64, 8, 200)]:
        for layout in (torch.contiguous_format, torch.channels_last):
            whole = torch.relu(torch.randn(shape, device="cuda")).contiguous(memory_format=layout)
            for maps in (whole, whole[:, :, :, 1:] if shape[3] > 1 else whole):
                x = maps.double()
                wanted = torch.stack([x.sum((2, 3)), (x * x).sum((2, 3)), (x > 0).double().sum((2, 3)), x.amax((2, 3))])
                found = statistics.reduce_maps(maps)
                torch.testing.assert_close(found[:2], wanted[:2], rtol=1e-5, atol=0)
                assert (found[2:] == wanted[2:]).all()
                assert torch.equal(statistics.reduce_maps(maps), found)


def test_what_fills_the_memory_is_gone_when_the_cell_runs_once_more(inputs, tmp_path, monkeypatch):
    whole = finetuned(inputs, tmp_path / "whole", precision="fp32")
    real, passes, before = loop.train, [], []

    def train(network, images, train_rows, val_rows, recipe, seed, precision, micro_batch, *rest, **options):
        passes.append(micro_batch)
        if len(passes) == 1:
            before.append(torch.cuda.memory_allocated())
            ballast = torch.empty(2**28, dtype=torch.uint8, device="cuda")
            torch.empty(2**50 + ballast.numel(), dtype=torch.uint8, device="cuda")
        before.append(torch.cuda.memory_allocated())
        return real(network, images, train_rows, val_rows, recipe, seed, precision, micro_batch, *rest, **options)

    monkeypatch.setattr(loop, "train", train)
    metrics = finetuned(inputs, tmp_path / "half", precision="fp32")
    assert passes == [8, 4]
    assert before[1] < before[0] + 2**28
    assert metrics["micro_batch"] == 4
    assert metrics["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-2)


def test_latency_is_the_devices_time_and_not_the_hosts():
    class Slow(torch.nn.Module):
        """Keeps the device busy for so many of its cycles; the host is done at once."""

        def __init__(self, cycles):
            super().__init__()
            self.cycles = cycles

        def forward(self, images):
            torch.cuda._sleep(self.cycles)
            return images

    found = latency.compare(Slow(10_000_000), Slow(40_000_000), "fp32", 1, 8, "cuda")
    assert found["speedup"]["median"] == pytest.approx(4.0, rel=0.2)


def test_a_network_trained_on_the_gpu_answers_the_same_on_the_cpu_and_exported(inputs, tmp_path):
    pytest.importorskip("onnxscript")
    finetuned(inputs, tmp_path / "cell")
    network, description = models.load(tmp_path / "cell")
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
    predictions = tables.read_table(tmp_path / "cell" / "predictions.parquet", "predictions")
    store = Store.open(inputs / "store")
    images = load_images(store, description["mean"], description["std"], "cpu")
    judged = judging.evaluate(network, images, predictions["image"].to_numpy(), "fp32")
    np.testing.assert_allclose(judged.probability, predictions["probability"].to_numpy(), atol=0.02)
    # The program itself holds the files against the network that was judged, on the test images.
    finetuned(inputs, tmp_path / "whole", criterion="unpruned")
    arguments = ["--cell", tmp_path / "cell", "--unpruned", tmp_path / "whole", *programs.dataset(inputs / "store")]
    programs.run("export", {"code": "0"}, *arguments, "--output", tmp_path / "export")
    assert read_json(tmp_path / "export" / "model.json")["certificates"][0]["images"] > 0
