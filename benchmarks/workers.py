"""Warm against cold cells: the same small torch jobs in processes of their own and in warm workers.

    python benchmarks/workers.py [--jobs 30] [--side-by-side 2] [--repeats 2]

The start of the workers counts; each pass has new ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paired import compare, machine, seconds

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
STAGE = """
from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import torch
import torchvision

torch.ones(64, 64) @ torch.ones(64, 64)
"""


def main(arguments: argparse.Namespace) -> None:
    machine(1)
    jobs: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder) / "stage.py"
        stage.write_text(STAGE)

        def run(switch: str) -> None:
            with subprocess.Popen(["sleep", "infinity"]) as owner, ThreadPoolExecutor(arguments.side_by_side) as pool:
                extra = {"WINNOW_WORKERS": switch, "WINNOW_OWNER_PID": str(owner.pid), "OMP_NUM_THREADS": "1"}
                environment = os.environ | {"PYTHONPATH": str(SCRIPTS)} | extra
                environment.pop("PYTHONDONTWRITEBYTECODE", None)

                def job(_: int) -> float:
                    return seconds(lambda: subprocess.run([sys.executable, stage], env=environment, check=True))

                try:
                    jobs[switch] += pool.map(job, range(arguments.jobs))
                finally:
                    owner.kill()  # The workers end with it.

        name = f"{arguments.jobs} jobs, {arguments.side_by_side} at a time, cold / warm"
        compare(name, lambda: run("off"), lambda: run("on"), arguments.repeats, warm_up=False)
    cold, warm = (statistics.median(jobs[switch]) for switch in ("off", "on"))
    print(f"one of them, median: cold {cold:.3f} s, warm {warm:.3f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    main(parser.parse_args())
