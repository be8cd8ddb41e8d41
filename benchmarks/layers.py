"""Where a pruned network's time goes: layer by layer, against the unpruned network, with and without rounding.

python benchmarks/layers.py [--architecture vgg16] [--size 224] [--ratio 0.4] [--precision bf16] [--round-to 16 32 64]

One image, by layer, in the processor time of one thread, which others on the machine do not lengthen. Of each
convolution: inputs > filters, milliseconds, and its speed-up divided by its reduction of MACs (1: it is as fast a
multiplication as the unpruned one). Modules run in turn; so do the networks.
"""

from __future__ import annotations

import argparse
import time

from paired import backbone, machine

import numpy as np
import torch
from torch import nn
from winnow.importance import masks
from winnow.networks import surgery


def main(arguments: argparse.Namespace) -> None:
    machine(1)
    bf16 = arguments.precision == "bf16"
    dense, whole, names, scores = backbone(arguments.architecture, "gap", 102)
    networks = {"unpruned": dense}
    for round_to in (None, *arguments.round_to):
        keep = masks.mask(names, scores, "layer", arguments.ratio, round_to=round_to).keep
        networks[f"to {round_to}" if round_to else "as they are"] = surgery.pruned(whole, keep, 102, "inherited", 0)
    for network in networks.values():
        network.to(memory_format=torch.channels_last).eval()
        for module in network.modules():
            if bf16 and isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)

    image = torch.randn(1, 3, arguments.size, arguments.size).contiguous(memory_format=torch.channels_last)
    parts = {
        title: [*network.features, network.avgpool, nn.Flatten(), *network.classifier]
        for title, network in networks.items()
    }
    times = {title: np.zeros((arguments.repeats, len(sequence))) for title, sequence in parts.items()}
    macs = {title: np.zeros(len(sequence)) for title, sequence in parts.items()}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for repeat in range(-2, arguments.repeats):  # The first two warm up; what they leave is overwritten.
            for title, sequence in parts.items():
                flow = image
                for position, module in enumerate(sequence):
                    start = time.process_time()
                    flow = module(flow)
                    times[title][repeat, position] = time.process_time() - start
                    if isinstance(module, nn.Conv2d):
                        macs[title][position] = module.weight.numel() * flow.shape[2] * flow.shape[3]

    milliseconds = {title: 1000 * np.median(values, axis=0) for title, values in times.items()}
    first, *others = networks
    for position, module in enumerate(parts[first]):
        if not isinstance(module, nn.Conv2d):
            continue
        line = f"features.{position}: {module.in_channels} > {module.out_channels} {milliseconds[first][position]:.2f}"
        for title in others:
            part, taken = parts[title][position], milliseconds[title][position]
            share = milliseconds[first][position] / taken / (macs[first][position] / macs[title][position])
            line += f" | {title}: {part.in_channels} > {part.out_channels} {taken:.2f}, {share:.2f}"
        print(line)
    convolutions = macs[first] > 0
    for name, places in (("convolutions", convolutions), ("all else", ~convolutions), ("total", convolutions | True)):
        line = f"{name}: {milliseconds[first][places].sum():.2f}"
        for title in others:
            taken = milliseconds[title][places].sum()
            share = milliseconds[first][places].sum() / taken / (macs[first].sum() / macs[title].sum())
            line += f" | {title}: {taken:.2f}, {share:.2f}"
        print(line)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--ratio", type=float, default=0.4)
    result.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    result.add_argument("--round-to", type=int, nargs="*", default=[16, 32, 64], metavar="N")
    result.add_argument("--repeats", type=int, default=20)
    return result


if __name__ == "__main__":
    main(parser().parse_args())
