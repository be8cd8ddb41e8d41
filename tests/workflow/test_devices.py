"""GPU jobs side by side: as many as GPUs are granted, one on each, with a share of the cores. The GPUs are fake."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path

import pytest

from .checkout import ROOT, SMALL_GRID, Checkout

pytestmark = pytest.mark.slow("grids are run on GPUs that are pretended")


def eight_cells() -> dict:
    raw = copy.deepcopy(SMALL_GRID)
    raw["experiments"]["small"] |= {"datasets": ["digits"], "criteria": ["average_weight"], "seeds": [0, 1, 2, 3]}
    return raw


@pytest.mark.parametrize(
    ("devices", "arguments", "threads"),
    [
        ("0,1,2,3", ("--cores", "32", "--resources", "gpu=4"), 4),
        # Nothing was granted: as many as there are to see. Each has its share of the cores.
        ("0,1", ("--cores", "6"), 3),
    ],
)
def test_as_many_cells_run_at_once_as_gpus_are_granted_one_on_each(tmp_path, devices, arguments, threads):
    checkout = Checkout(tmp_path / "checkout", eight_cells())
    names = set(devices.split(","))
    checkout.run(
        *(*arguments, "--until", "finetune"),
        CUDA_VISIBLE_DEVICES=devices,
        WINNOW_LEASES=str(tmp_path / "leases"),
        PYTHONPATH=str(ROOT / "tests" / "fake_gpus"),
        FAKE_GPUS_TOGETHER=str(len(names)),
        OMP_WAIT_POLICY="passive",  # these cores are fewer than those that it is told
    )
    cells = [Ran(path) for path in checkout.path.glob("results/cells/**/metrics.json")]
    assert Counter(cell.device for cell in cells) == dict.fromkeys(names, 8 // len(names))
    assert {cell.threads for cell in cells} == {threads}
    for cell in cells:
        # All the time the others were there, each on a device of its own.
        assert {cell.device, *(other.device for other in cells if cell.overlaps(other))} == names
        assert not any(other.device == cell.device for other in cells if other is not cell and cell.overlaps(other))


class Ran:
    """When and where a cell ran, by its own clock."""

    def __init__(self, metrics: Path):
        content = json.loads(metrics.read_text())
        self.device, self.threads = content["lease"], content["threads"]
        self.end = metrics.stat().st_mtime
        self.start = self.end - content["seconds"]["total"]

    def overlaps(self, other: Ran) -> bool:
        return self.start < other.end and other.start < self.end


def test_no_gpu_granted_or_none_there_is_a_grid_on_the_cpu(tmp_path):
    checkout = Checkout(tmp_path / "checkout", eight_cells())
    for devices, granted in (("", "4"), ("0,1", "0")):
        text = checkout.snakemake("--dry-run", "--resources", f"gpu={granted}", CUDA_VISIBLE_DEVICES=devices)
        assert "gpu=0" in text
        assert "gpu=1" not in text
