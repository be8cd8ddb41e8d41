"""Training steps a second of several processes on one GPU: SqueezeNet 1.1 at 128 pixels, 32 images, bfloat16.

    python benchmarks/sharing.py [--processes 1 10 16] [--seconds 4]

Recorded and started kernel by kernel. Once as the driver shares the device, in turns, and, after
`nvidia-cuda-mps-control -d`, once more: then kernels of different processes run side by side (NVIDIA's Multi-Process
Service). ``--device cpu`` tries every line without a GPU, on small images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.training.steps import LEAST_STEPS, WARM_UP, Steps

RECIPE = {"batch_size": 32, "label_smoothing": 0.0}
PIXELS = {"cuda": 128, "cpu": 32}


def steps(ready: Barrier, seconds: float, device: str, recorded: bool, found: multiprocessing.Queue[float]) -> None:
    """Steps a second of one process, from when all are warm."""
    batch = RECIPE["batch_size"]
    network = torchvision.models.squeezenet1_1(num_classes=102).to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, *2 * [PIXELS[device]], device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, fused=True)
    computing = Steps(network, RECIPE, "bf16", None, 1)

    def step() -> None:
        computing.gradients(images, labels, None, LEAST_STEPS if recorded else 1)
        optimizer.step()

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARM_UP + 3):
        step()
    finish()
    ready.wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    finish()
    found.put(count / (time.perf_counter() - start))


def main(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    for count in arguments.processes:
        for recorded in (False, True):
            ready, found = context.Barrier(count), context.Queue()
            given = (ready, arguments.seconds, arguments.device, recorded, found)
            processes = [context.Process(target=steps, args=given) for _ in range(count)]
            for process in processes:
                process.start()
            total = sum(found.get() for _ in processes)
            for process in processes:
                process.join()
            how = "recorded" if recorded else "kernel by kernel"
            print(f"{count} processes, {how}: {total:.0f} steps/s, {total / count:.0f} each")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--processes", type=int, nargs="+", default=[1, 10, 16], metavar="N")
    result.add_argument("--seconds", type=float, default=4.0)
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
