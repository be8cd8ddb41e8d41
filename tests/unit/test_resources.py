"""What jobs ask of a machine: shares of cores, GPUs, memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from winnow.networks.architectures import NAMES
from winnow.training import judging
from winnow.workflow import config, costs, resources
from winnow.workflow.resources import Load, Machine

from .programs import SCRIPTS

ROOT = SCRIPTS.parent

SQUEEZENET_96 = Load("squeezenet1_1", "classifier", 96, 8, "sgd")
SQUEEZENET_128 = Load("squeezenet1_1", "classifier", 128, 16, "sgd")
VGG16_224 = Load("vgg16", "classifier", 224, 64, "sgd")


def never():
    raise AssertionError("nobody asked for the devices")


@pytest.mark.parametrize(
    ("granted", "seen", "submits", "expected"),
    [
        (4, "0123", False, 4),
        (8, "0123", False, 8),  # two on each
        (2, "0123", False, 2),
        (None, "01", False, 2),
        (None, "", False, 0),
        (4, "", False, 0),
        (0, None, False, 0),
        # Each submitted job has a machine of its own; what the submitting one has does not matter.
        (None, None, True, 1),
        (4, None, True, 1),
        (0, None, True, 0),
    ],
)
def test_how_many_gpu_jobs_run_at_a_time(granted, seen, submits, expected):
    assert resources.gpus(granted, never if seen is None else lambda: list(seen), submits) == expected


@pytest.mark.parametrize(
    ("cores", "gpus", "threads"), [(8, 2, 4), (8, 4, 2), (32, 4, 4), (8, 8, 1), (4, 8, 1), (6, 2, 3), (1, 1, 1)]
)
def test_a_gpu_job_gets_its_share_of_the_cores_up_to_what_a_gpu_needs(cores, gpus, threads):
    machine = Machine(cores, gpus, 64_000)
    for load in (SQUEEZENET_96, VGG16_224):
        assert machine.cell_threads(load) == machine.pass_threads(load.architecture, load.image_size) == threads


@pytest.mark.parametrize(
    ("load", "cores", "threads"),
    [
        (SQUEEZENET_96, 2, 1),
        (SQUEEZENET_128, 2, 1),
        (SQUEEZENET_128, 16, 1),
        (Load("squeezenet1_1", "classifier", 128, 64, "sgd"), 16, 2),
        (VGG16_224, 2, 2),
        (VGG16_224, 16, 16),
        # 4 threads would do: 10 cores hold two cells, which share them all.
        (Load("resnet18", "classifier", 128, 24, "sgd"), 10, 5),
        # A small network on large images is no small network, and a large one on small images may be.
        (Load("vgg_digits", "gap", 8, 20, "sgd"), 16, 1),
        (Load("vgg16", "classifier", 64, 64, "sgd"), 16, 16),
        (SQUEEZENET_96, 1, 1),
    ],
)
def test_threads_of_a_cell_on_the_cpu_follow_from_the_work_of_a_step(load, cores, threads):
    assert Machine(cores, 0, 1_000_000).cell_threads(load) == threads
    assert Machine(cores, 0, None).cell_threads(load) == threads


def test_where_memory_holds_fewer_cells_than_the_cores_would_they_get_more_threads():
    needed = SQUEEZENET_128.memory_mb(gpu=False)
    assert [Machine(16, 0, count * needed).cell_threads(SQUEEZENET_128) for count in (16, 4, 1)] == [1, 4, 16]
    assert Machine(16, 0, needed // 2).cell_threads(SQUEEZENET_128) == 16  # it is tried all the same


def test_a_job_that_the_grid_waits_for_gets_all_cores_unless_it_is_over_at_once():
    machine = Machine(16, 0, None)
    assert machine.pass_threads("squeezenet1_1", 96) == 16
    assert machine.pass_threads("vgg_digits", 8) == 1
    assert machine.pass_threads("own/module.py:Network", 224) == 16


def test_memory_grows_with_batch_optimizer_and_image_and_is_less_of_the_host_with_a_gpu():
    base = VGG16_224.memory_mb(gpu=False)
    assert 8_000 < base < 12_000
    # Another copy of 138 million weights.
    weights = replace(VGG16_224, optimizer="adamw").memory_mb(gpu=False) - base
    assert weights == pytest.approx(4 * 134.7, abs=1)
    assert replace(VGG16_224, batch_size=128).memory_mb(gpu=False) > 1.5 * base
    assert replace(VGG16_224, image_size=112).memory_mb(gpu=False) < 0.6 * base
    assert VGG16_224.memory_mb(gpu=True) < base
    assert Machine(8, 1, None).memory_of(VGG16_224) == VGG16_224.memory_mb(gpu=True)


def test_jobs_of_a_configuration_ask_by_their_wildcards():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    plan = resources.Plan(config.load(raw), Machine(16, 0, None))
    flowers, digits = (
        SimpleNamespace(dataset=dataset, backbone=backbone, experiment=experiment)
        for dataset, backbone, experiment in (("flowers102", "vgg16", "global"), ("digits", "vgg_digits", "demo"))
    )
    names = ("cell_threads", "pass_threads", "decoding_threads", "export_threads")
    assert [getattr(plan, name)(flowers) for name in names] == [16] * 4
    assert [getattr(plan, name)(digits) for name in (*names, "pretraining_threads")] == [1] * 5
    assert plan.cell_mb(flowers, attempt=1) == VGG16_224.memory_mb(gpu=False)
    assert plan.cell_mb(flowers, attempt=2) == 2 * VGG16_224.memory_mb(gpu=False)
    assert plan.pretraining_mb(digits, attempt=1) > resources.BASE_MB


def test_the_machines_memory_is_the_least_that_anybody_allows(monkeypatch):
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    whole = resources.memory_mb()
    assert whole > 100
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "50")
    assert resources.memory_mb() == 52  # SLURM's megabytes are 2**20 bytes


def test_every_architecture_has_been_measured():
    assert set(costs._MEASURED) == set(NAMES)


def test_a_networks_costs_are_the_same_whatever_its_weights_are_called():
    assert costs.parameters("timm/resnet18.a1_in1k") == costs.parameters("resnet18") != costs.parameters("timm/nobodys")


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("squeezenet1_1", 96), ("vgg_digits", 8), ("resnet18", 64), ("timm/tf_efficientnet_lite0", 96)],
)
def test_the_costs_are_those_of_the_networks(architecture, size):
    from winnow.networks import backbones, surgery

    head, classes = ("gap", 10) if architecture == "vgg_digits" else ("classifier", 1000)
    params, macs = surgery.cost(backbones.build(architecture, head, classes), size)
    assert costs.macs(architecture, size) == pytest.approx(macs, rel=0.2)
    assert costs.parameters(architecture) == pytest.approx(params, rel=0.01)


def test_an_evaluations_batch_is_the_training_loops():
    assert judging.EVALUATION_PIXELS["cpu"] == resources.EVALUATION_PIXELS


def test_who_plans_loads_no_torch():
    code = "import sys; import winnow.workflow.resources; print(*{'torch', 'pandas', 'scipy'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "\n"), found.stderr
