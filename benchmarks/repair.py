"""What a repair costs: the pass that makes the moments against a plain forward pass, and the compensation of a cell.

    python benchmarks/repair.py [--architecture vgg16] [--size 224] [--images 32] [--ratio 0.4] [--repeats 5]
                                [--threads N]

The pass is in float32 without TF32, as the statistics are. The compensation is that of all layers, from the arrays of
moments in their file to the weights, besides what pruning takes without it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from paired import Comparison, backbone, compare, machine, seconds

import torch
from winnow.importance import compensation, masks, moments, passes, statistics, sums
from winnow.networks import surgery


def comparisons(architecture: str, size: int, images: int, ratio: float, repeats: int) -> Iterator[Comparison]:
    """The moments' pass over a plain forward pass, one by one; surgery with compensation over without."""
    network, whole, names, scores = backbone(architecture, "classifier", 10)
    network.eval()
    pixels = torch.randn(images, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.arange(images) % 10
    batch = passes.batch_size(size, statistics.BATCH_BYTES["cpu"])
    batches = list(zip(pixels.split(batch), labels.split(batch), strict=True))

    def plain():
        with torch.inference_mode(), passes.full_float32():
            for part, _ in batches:
                network(part)

    def measured() -> sums.Sums:
        return moments.measure(network, whole.channels, batches, 10)

    yield compare("moments / plain forward", measured, plain, repeats)

    keep = masks.mask(names, scores, "layer", ratio).keep
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "moments.json"
        sums.write(path, measured(), {})
        print(f"moments: {path.with_suffix('.npz').stat().st_size / 1e6:.1f} MB")

        def without():
            return surgery.slice_state(whole.state, whole.channels, keep)

        def compensated():
            found = sums.read(path, moments.KIND)
            state = compensation.compensated(network, whole.state, whole.channels, found, keep)
            return surgery.slice_state(state, whole.channels, keep)

        yield compare("surgery with compensation / without", compensated, without, repeats)
        times = sorted(seconds(compensated) - seconds(without) for _ in range(repeats))
        print(f"compensation of a cell: {times[len(times) // 2]:.3f} s ({times[0]:.3f} to {times[-1]:.3f})")


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    what = (arguments.architecture, arguments.size, arguments.images, arguments.ratio)
    for _ in comparisons(*what, arguments.repeats):
        pass


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--images", type=int, default=32)
    result.add_argument("--ratio", type=float, default=0.4)
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    main(parser().parse_args())
