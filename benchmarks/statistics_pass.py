"""The statistics pass against a plain forward pass of the same features, and against conventional hooks.

    python benchmarks/statistics_pass.py [--architecture vgg16] [--size 224] [--images 64] [--repeats 5] [--threads N]
                                         [--device cuda]

All are in float32 without TF32, as the pass is. On a GPU, whose default is TF32, the plain forward has a ratio to that.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from paired import Comparison, compare, finish, machine

import torch
from winnow.importance import passes, statistics
from winnow.networks import backbones, channels


def comparisons(architecture: str, size: int, images: int, repeats: int, device: str) -> Iterator[Comparison]:
    """The pass, and conventional hooks, over a plain forward pass, one by one; the first is the pass."""
    network = backbones.initialised(architecture, "gap", 10, 0).eval().to(device)
    layers = [vars(layer) for layer in channels.of(network).layers]
    pixels = torch.randn(images, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(images, device=device) % 10
    # All passes have the batches that a data set is measured in.
    batch = passes.batch_size(size, statistics.BATCH_BYTES[device])
    batches = list(zip(pixels.split(batch), labels.split(batch), strict=True))

    def forward():
        with torch.inference_mode():
            for part, _ in batches:
                network.features(part)
        finish(device)

    def plain():
        with passes.full_float32():
            forward()

    def measured():
        statistics.measure(network, layers, batches, 10)
        finish(device)

    def conventional():
        found = []
        hooks = [
            network.get_submodule(layer["activation"]).register_forward_hook(
                lambda m, i, out: found.append(((out == 0).float().mean((0, 2, 3)), out.mean((0, 2, 3))))
            )
            for layer in layers
        ]
        plain()
        for hook in hooks:
            hook.remove()

    yield compare("statistics / plain forward", measured, plain, repeats)
    yield compare("hooks with (x == 0).float().mean() / plain forward", conventional, plain, repeats)
    if device == "cuda":
        yield compare("plain forward / the same with TF32", plain, forward, repeats)


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    what = (arguments.architecture, arguments.size, arguments.images)
    for _ in comparisons(*what, arguments.repeats, arguments.device):
        pass


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--images", type=int, default=64)
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
