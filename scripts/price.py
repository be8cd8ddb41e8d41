"""Say what a network costs by the widths of its layers, in multiply-accumulates, parameters, or milliseconds on this
machine. Needs a data set's manifest (image size, classes), and a backbone's manifest and channel table; makes one JSON
file, by which a budget is kept.

Weights are drawn: what they are is no part of a cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import torch

from winnow import cli, tables
from winnow.files import read_json, write_json
from winnow.importance import budgets
from winnow.networks import backbones, latency, prices, surgery
from winnow.runtime import devices
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    lease = devices.lease(arguments.gpu)
    dataset, manifest = (read_json(folder / "manifest.json") for folder in (arguments.dataset, arguments.backbone))
    measure, size = spec["measure"], dataset["image_size"]
    network = manifest["architecture"], manifest["head"], len(dataset["classes"])
    if measure == "latency":
        channels = tables.read_table(arguments.backbone / "channels.parquet", "channels")
        found = timed(network, channels, spec["precision"], size, lease)
    else:
        found = {"terms": prices.exact(backbones.build(*network), measure, size)}
    write_json(
        arguments.output,
        {"measure": measure, "unit": prices.MEASURES[measure], "image_size": size, **found, "spec": spec},
    )
    whole = sum(term["values"][-1][-1] for term in found["terms"])
    print(f"unpruned: {whole:.6g} {prices.MEASURES[measure]} in {len(found['terms'])} tensors")


def timed(
    network: tuple[str, str, int], channels: Any, precision: str, image_size: int, lease: devices.Lease
) -> dict[str, Any]:
    """The terms of milliseconds, and where and with what they were measured."""
    threads = devices.threads()
    unpruned = backbones.initialised(*network, seed=0).to(lease.device)
    precision = precision_for(precision, lease.device, surgery.cost(unpruned, image_size)[1])
    pairs = set(zip(channels["tensor"].to_pylist(), channels["dimension"].to_pylist(), strict=True))
    terms = prices.timed(unpruned, pairs, precision, image_size, lease.device)

    _, first = np.unique(channels["unit"].to_numpy(), return_index=True)
    layers = channels["layer"].to_numpy(zero_copy_only=False)[first]
    keep = np.isin(np.arange(layers.size), np.unique(layers.astype(str), return_index=True)[1])
    state = surgery.slice_state(dict(unpruned.state_dict()), channels, keep)
    smallest = surgery.resize(backbones.build(*network), {name: tensor.shape for name, tensor in state.items()})
    smallest.load_state_dict(state, assign=True)
    whole = latency.compare(smallest, unpruned, precision, 1, image_size, lease.device)
    costs = budgets.Costs.of(terms, channels)
    least, most = (
        max(whole[name]["median"] - costs.total(units), 0.0)
        for name, units in (("ms", keep), ("unpruned_ms", np.ones_like(keep)))
    )
    return {
        "terms": prices.with_rest(terms, min(least, most), max(most - least, 0.0)),
        "whole": whole,
        "precision": precision,
        "device": lease.name,
        "threads": threads,
        "versions": {"torch": torch.__version__},
    }


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    result.add_argument("--dataset", action=cli.Folder, required=True, help="a data set's manifest.json, or its folder")
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
