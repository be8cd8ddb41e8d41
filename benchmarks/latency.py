"""Does removing filters save the time that it saves arithmetic? Latency of pruned networks, with and without rounding.

    python benchmarks/latency.py [--architecture vgg16] [--size 224] [--batch 1] [--precision auto] [--threads N]

For each scope, ratio and rounding of the kept counts: the speed-up over the unpruned network, paired, as the stage
measures it (winnow.networks.latency), divided by the reduction of MACs.
"""

from __future__ import annotations

import argparse
import os
import time
import types

from paired import backbone, machine

from winnow.importance import masks
from winnow.networks import latency, surgery
from winnow.training.loop import precision_for


def main(arguments: argparse.Namespace) -> None:
    machine(1 if arguments.processor_time else arguments.threads)
    if arguments.processor_time:
        # The stage's own clock, exchanged for one that stands still while another process has the core.
        latency.time = types.SimpleNamespace(perf_counter=time.thread_time)
    dense, whole, names, scores = backbone(arguments.architecture, "gap", 102)
    _, macs = surgery.cost(dense, arguments.size)
    precision = precision_for(arguments.precision, "cpu", macs)
    print(f"batch {arguments.batch}, {arguments.size} pixels, {precision}")
    for scope in ("layer", "global"):
        for ratio in arguments.ratios:
            for round_to in (None, 8, 16, 32):
                mask = masks.mask(names, scores, scope, ratio, round_to=round_to)
                pruned = surgery.pruned(whole, mask.keep, 102, "inherited", 0)
                reduction = macs / surgery.cost(pruned, arguments.size)[1]
                precisions = (precision, precision)
                found = latency.compare(pruned, dense, precisions, arguments.batch, arguments.size, "cpu")
                q1, speedup, q3 = (found["speedup"][name] for name in ("q1", "median", "q3"))
                print(
                    f"{scope}, ratio {ratio}, round_to {round_to}, achieved {mask.achieved:.3f}: "
                    f"{found['unpruned_ms']['median']:.4g} ms / {found['ms']['median']:.4g} ms, speed-up {speedup:.2f} "
                    f"({q1:.2f} to {q3:.2f}, {found['repeats']} pairs) / MAC reduction {reduction:.2f} "
                    f"= {speedup / reduction:.2f}"
                )


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--batch", type=int, default=1)
    result.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    result.add_argument("--ratios", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8], metavar="R")
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.add_argument("--processor-time", action="store_true", help="of one thread, where others use the machine too")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
