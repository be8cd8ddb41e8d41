"""Time a pruned network's forward pass, in turn with the unpruned network's. Needs a data set's manifest (image size,
classes), a backbone and a mask (none for the unpruned network itself); makes one JSON file.

The weights are the backbone's, with a new last layer: how long a pass takes does not depend on what was learned.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import torch

from winnow import cli
from winnow.files import read_json, write_json
from winnow.networks import backbones, latency, surgery
from winnow.runtime import devices
from winnow.runtime.memory import kept
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    lease = devices.lease(arguments.gpu)
    threads = devices.threads()
    dataset = read_json(arguments.dataset / "manifest.json")
    backbone = kept("backbone", arguments.backbone, lambda: backbones.load(arguments.backbone))
    keep, requested, achieved = surgery.read_mask(arguments.mask, backbone)
    size, classes = dataset["image_size"], len(dataset["classes"])
    network, unpruned = (
        surgery.pruned(backbone, mask, classes, "inherited", 0).to(lease.device) for mask in (keep, None)
    )
    (params, macs), (unpruned_params, unpruned_macs) = (surgery.cost(each, size) for each in (network, unpruned))
    precision = precision_for(spec["precision"], lease.device, unpruned_macs)
    batches = {}
    for batch in latency.BATCHES:
        found = latency.compare(network, unpruned, precision, batch, size, lease.device)
        batches[str(batch)] = found
        print(
            f"{batch} images: {found['ms']['median']:.4g} ms a pass, {found['speedup']['median']:.3f} times as fast "
            f"as unpruned ({found['speedup']['q1']:.3f} to {found['speedup']['q3']:.3f}, {found['repeats']} pairs)"
        )
    write_json(
        arguments.output,
        {
            "batches": batches,
            "params": params,
            "macs": macs,
            "unpruned_params": unpruned_params,
            "unpruned_macs": unpruned_macs,
            "mac_reduction": unpruned_macs / macs,
            "requested_ratio": requested,
            "achieved_ratio": achieved,
            "image_size": size,
            "precision": precision,
            "device": lease.name,
            "threads": threads,
            "versions": {"torch": torch.__version__},
            "spec": spec,
        },
    )


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    result.add_argument("--dataset", action=cli.Folder, required=True, help="a data set's manifest.json, or its folder")
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--mask", type=Path, nargs="?", metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
