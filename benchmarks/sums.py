"""One criterion as the workflow computes it, by scripts/score.py, over statistics of many classes and filters.

python benchmarks/sums.py [--classes 1000] [--filters 26560] [--criterion apoz] [--repeats 5]

The network is invented: layers of 512 filters with one weight each, so that the statistics are all there is to read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paired import machine

import numpy as np
from safetensors.numpy import save_file
from winnow import tables
from winnow.files import write_json
from winnow.importance import sums

SCORE = Path(__file__).resolve().parents[1] / "scripts" / "score.py"
WIDTH = 512


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        # In a process of its own, and the machine is named at the end: a child's peak begins with its parent's.
        maker = multiprocessing.get_context("fork").Process(
            target=fabricate, args=(folder, arguments.classes, arguments.filters)
        )
        maker.start()
        maker.join()
        size = sum((folder / f"activations.{suffix}").stat().st_size for suffix in ("json", "npz"))
        runs = sorted(score(folder, arguments.criterion) for _ in range(arguments.repeats))
    machine(os.cpu_count())
    wall, processor, peak = (sorted(values) for values in zip(*runs, strict=True))
    print(
        f"{arguments.criterion}, {arguments.classes} classes x {arguments.filters} filters, {size / 1e6:.0f} MB: "
        f"{statistics.median(wall):.2f} s ({wall[0]:.2f} to {wall[-1]:.2f}, {len(wall)} runs), "
        f"of the processor {statistics.median(processor):.2f} s, peak {peak[-1] / 1e6:.0f} MB"
    )


def score(folder: Path, criterion: str) -> tuple[float, float, int]:
    """Seconds by the wall and of the processor, and bytes at most, of one process."""
    spec = json.dumps({"criterion": criterion, "source": None, "seed": None, "code": "0"})
    command = [sys.executable, SCORE, "--spec", spec, "--backbone", folder]
    command += ["--statistics", folder / "activations.json", "--output", folder / "scores.parquet"]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | {"WINNOW_WORKERS": "off"}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"score.py ended with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def fabricate(folder: Path, classes: int, filters: int) -> None:
    """A backbone's manifest, channels and weights, and its statistics."""
    generator = np.random.default_rng(0)
    layers, arrays, positions = [], {}, 196
    for start in range(0, filters, WIDTH):
        layer = {"layer": f"features.{start // WIDTH}", "filters": min(WIDTH, filters - start)}
        layers.append(layer | {"activation": f"{layer['layer']}.relu", "function": "relu", "positions": positions})
        found = generator.random((classes, layer["filters"]))
        arrays |= {f"{layer['layer']}.{name}": found for name in ("sum", "sum_sq", "max")}
        arrays[f"{layer['layer']}.zeros"] = (found * positions).astype(np.int64)
    made = sums.Sums("activations", np.ones(classes, dtype=np.int64), layers, arrays)
    sums.write(folder / "activations.json", made, {})
    write_json(folder / "manifest.json", {"layers": layers})
    names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
    index = np.concatenate([np.arange(layer["filters"]) for layer in layers])
    ones = np.ones(filters, dtype=np.int32)
    channels = {"unit": np.arange(filters), "layer": names, "filter": index, "dimension": 0 * ones, "first": index}
    channels |= {"tensor": np.char.add(names, ".weight"), "length": ones, "stride": ones}
    tables.write_table(folder / "channels.parquet", channels, "channels", {})
    weights = {f"{layer['layer']}.weight": np.ones((layer["filters"], 1, 1, 1), np.float32) for layer in layers}
    save_file(weights, folder / "weights.safetensors")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--classes", type=int, default=1000)
    result.add_argument("--filters", type=int, default=26_560)
    result.add_argument("--criterion", default="apoz")
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--folder", type=Path, help="where the statistics go for the while; the default is TMPDIR")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
