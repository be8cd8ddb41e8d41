"""Does removing filters save the time that it saves arithmetic? Latency of pruned networks, with and without rounding.

    python benchmarks/latency.py [--architecture vgg16] [--size 224] [--batch 1] [--precision auto] [--threads N]
                                 [--device cuda]

For each scope, ratio and rounding of the kept counts: the speed-up over the unpruned network, paired, as the stage
measures it (winnow.networks.latency), divided by the reduction of MACs.
"""

from __future__ import annotations

import argparse
import os
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any

from paired import backbone, machine

from winnow.importance import masks
from winnow.networks import latency, surgery
from winnow.training.precision import precision_for


def rows(
    architecture: str,
    size: int,
    batch: int,
    wanted: str,
    device: str,
    ratios: Sequence[float],
    roundings: Sequence[int | None] = (None, 8, 16, 32),
) -> Iterator[dict[str, Any]]:
    """Measure and print one by one: scope, ratio and rounding, the reduction of MACs, the speed-up, and what of it."""
    dense, whole, names, scores = backbone(architecture, "gap", 102)
    _, macs = surgery.cost(dense, size)
    precision = precision_for(wanted, device, macs)
    print(f"batch {batch}, {size} pixels, {precision}")
    dense.to(device)
    for scope in ("layer", "global"):
        for ratio in ratios:
            for round_to in roundings:
                mask = masks.mask(names, scores, scope, ratio, round_to=round_to)
                pruned = surgery.pruned(whole, mask.keep, 102, "inherited", 0)
                reduction = macs / surgery.cost(pruned, size)[1]
                precisions = (precision, precision)
                found = latency.compare(pruned.to(device), dense, precisions, batch, size, device)
                q1, speedup, q3 = (found["speedup"][name] for name in ("q1", "median", "q3"))
                print(
                    f"{scope}, ratio {ratio}, round_to {round_to}, achieved {mask.achieved:.3f}: "
                    f"{found['unpruned_ms']['median']:.4g} ms / {found['ms']['median']:.4g} ms, speed-up {speedup:.2f} "
                    f"({q1:.2f} to {q3:.2f}, {found['repeats']} pairs) / MAC reduction {reduction:.2f} "
                    f"= {speedup / reduction:.2f}"
                )
                what = {"batch": batch, "precision": precision, "scope": scope, "ratio": ratio, "round_to": round_to}
                yield what | found | {"mac_reduction": reduction, "share": speedup / reduction}


def main(arguments: argparse.Namespace) -> None:
    machine(1 if arguments.processor_time else arguments.threads)
    if arguments.processor_time:
        # The stage's own clock, exchanged for one that stands still while another process has the core.
        latency.time = types.SimpleNamespace(perf_counter=time.thread_time)
    what = (arguments.architecture, arguments.size, arguments.batch, arguments.precision, arguments.device)
    for _ in rows(*what, arguments.ratios):
        pass


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--architecture", default="vgg16")
    result.add_argument("--size", type=int, default=224)
    result.add_argument("--batch", type=int, default=1)
    result.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    result.add_argument("--ratios", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8], metavar="R")
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    result.add_argument("--processor-time", action="store_true", help="of one thread, where others use the machine too")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
