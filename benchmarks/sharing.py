"""Training steps a second of several processes on one GPU: SqueezeNet 1.1 at 128 pixels, 32 images, bfloat16.

    python benchmarks/sharing.py [--processes 1 10 16] [--seconds 4]

Once as the driver shares the device, in turns, and, after `nvidia-cuda-mps-control -d`, once more: then kernels of
different processes run side by side (NVIDIA's Multi-Process Service).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.synchronize import Barrier

import torch
import torchvision

WARM_UP = 10


def steps(ready: Barrier, seconds: float, found: multiprocessing.Queue[float]) -> None:
    """Steps a second of one process, from when all are warm."""
    network = torchvision.models.squeezenet1_1(num_classes=102).cuda().to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, 128, 128, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.arange(32, device="cuda")
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(images)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    ready.wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    torch.cuda.synchronize()
    found.put(count / (time.perf_counter() - start))


def main(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    for count in arguments.processes:
        ready, found = context.Barrier(count), context.Queue()
        processes = [context.Process(target=steps, args=(ready, arguments.seconds, found)) for _ in range(count)]
        for process in processes:
            process.start()
        total = sum(found.get() for _ in processes)
        for process in processes:
            process.join()
        print(f"{count} processes: {total:.0f} steps/s, {total / count:.0f} each")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--processes", type=int, nargs="+", default=[1, 10, 16], metavar="N")
    result.add_argument("--seconds", type=float, default=4.0)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
