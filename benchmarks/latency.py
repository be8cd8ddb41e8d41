"""Does removing filters save the time that it saves arithmetic? Latency of pruned networks, with and without rounding.

    python benchmarks/latency.py [--architecture vgg16] [--size 224] [--batch 1] [--repeats 15] [--threads N]

For each ratio: the speed-up over the unpruned network, paired, divided by the reduction of MACs.
"""

from __future__ import annotations

import argparse
import os

from paired import compare, machine

import numpy as np
import torch
from winnow import backbones, channels, masks, surgery
from winnow.training import precision_for


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    dense = backbones.initialised(arguments.architecture, "gap", 102, 0)
    layers = [vars(layer) for layer in channels.layers_of(dense)]
    manifest = {"architecture": arguments.architecture, "head": "gap", "classes": 102, "layers": layers}
    backbone = backbones.Backbone(manifest, dense.state_dict(), channels.derive(dense))
    names = np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers])
    scores = np.random.default_rng(0).random(names.size)
    _, macs = surgery.cost(dense, arguments.size)
    precision = precision_for("auto", "cpu", macs)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)

    def runs(network):
        network = network.to(memory_format=torch.channels_last).eval()

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                network(images)

        return run

    print(f"batch {arguments.batch}, {arguments.size} pixels, {precision}")
    whole = runs(dense)
    for ratio in (0.2, 0.4, 0.6, 0.8):
        for round_to in (None, 8, 16):
            mask = masks.mask(names, scores, "layer", ratio, round_to=round_to)
            pruned = backbones.pruned(backbone, mask.keep, 102, "inherited", 0)
            reduction = macs / surgery.cost(pruned, arguments.size)[1]
            name = f"ratio {ratio}, round_to {round_to}, achieved {mask.achieved:.3f}"
            speedup = compare(name, whole, runs(pruned), arguments.repeats)
            print(f"    speed-up {speedup:.2f} / MAC reduction {reduction:.2f} = {speedup / reduction:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="vgg16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    main(parser.parse_args())
