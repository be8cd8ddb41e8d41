"""Mask and surgery of a whole network against Torch-Pruning's removal of the same filters.

python benchmarks/surgery.py [--architecture vgg16] [--ratio 0.4] [--repeats 5] [--threads N]
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time

from paired import backbone, compare, machine, seconds

import numpy as np
import torch
import torch_pruning
from winnow.importance import masks
from winnow.networks import backbones, surgery


def main(arguments: argparse.Namespace) -> None:
    machine(arguments.threads)
    dense, whole, names, scores = backbone(arguments.architecture, "classifier", 1000)
    dense.eval()
    layers = whole.manifest["layers"]
    keep = masks.mask(names, scores, "layer", arguments.ratio).keep
    image = torch.randn(1, 3, 224, 224)

    def ours():
        mask = masks.mask(names, scores, "layer", arguments.ratio)
        return surgery.pruned(whole, mask.keep, 1000, "inherited", 0)

    # Torch-Pruning cuts the network that it is given: each cell needs a copy, its graph, and the removal.
    removal = []

    def theirs():
        network = copy.deepcopy(dense)
        graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=image)
        begun, start = time.perf_counter(), 0
        for layer in layers:
            gone = np.flatnonzero(~keep[start : start + layer["filters"]]).tolist()
            start += layer["filters"]
            group = graph.get_pruning_group(
                network.get_submodule(layer["layer"]), torch_pruning.prune_conv_out_channels, idxs=gone
            )
            group.prune()
        removal.append(time.perf_counter() - begun)
        return network

    last = backbones.last_layer(dense)
    a, b = (network.state_dict() for network in (ours(), theirs()))
    same = all(torch.equal(tensor, b[name]) for name, tensor in a.items() if not name.startswith(last))
    assert same, "the two do not remove the same filters"
    compare("Torch-Pruning / mask + surgery", theirs, ours, arguments.repeats)
    compare("the same, processor time", theirs, ours, arguments.repeats, clock=time.process_time)
    print(f"of Torch-Pruning, the removal alone, less copy and graph: {statistics.median(removal):.4g} s")
    times = sorted(seconds(ours) for _ in range(2 * arguments.repeats))
    print(f"mask + surgery: {statistics.median(times):.3f} s ({times[0]:.3f} to {times[-1]:.3f})")
    times = sorted(seconds(lambda: masks.mask(names, scores, "layer", arguments.ratio)) for _ in range(5))
    print(f"of it the mask: {statistics.median(times):.4f} s")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--ratio", type=float, default=0.4)
    result.add_argument("--repeats", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    return result


if __name__ == "__main__":
    main(parser().parse_args())
