"""The statistics pass against a plain forward pass of the same features, and against conventional hooks.

python benchmarks/statistics_pass.py [--architecture vgg16] [--size 224] [--images 64] [--repeats 5] [--threads N]
"""

from __future__ import annotations

import argparse
import os

from paired import compare, machine

import torch
from winnow.importance import passes, statistics
from winnow.networks import backbones, channels


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    network = backbones.initialised(arguments.architecture, "gap", 10, 0).eval()
    layers = [vars(layer) for layer in channels.of(network).layers]
    images = torch.randn(arguments.images, 3, arguments.size, arguments.size).to(memory_format=torch.channels_last)
    labels = torch.arange(arguments.images) % 10
    # All passes have the batches that a data set is measured in.
    size = passes.batch_size(arguments.size, statistics.BATCH_BYTES["cpu"])
    batches = list(zip(images.split(size), labels.split(size), strict=True))

    def plain():
        with torch.inference_mode():
            for part, _ in batches:
                network.features(part)

    def measured():
        statistics.measure(network, layers, batches, 10)

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

    compare("statistics / plain forward", measured, plain, arguments.repeats)
    compare("hooks with (x == 0).float().mean() / plain forward", conventional, plain, arguments.repeats)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--images", type=int, default=64)
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    main(parser().parse_args())
