"""Score every filter by one criterion. Needs a backbone and, for a criterion that looks at them, its activations; makes
the table of scores, higher meaning keep."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
from safetensors.numpy import load_file

from winnow import cli, tables
from winnow.criteria import CRITERIA, over_classes
from winnow.files import read_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    criterion = CRITERIA[spec["criterion"]]
    layers = read_json(arguments.backbone / "manifest.json")["layers"]
    if criterion.needs == "weights":
        weights = load_file(arguments.backbone / "weights.safetensors")
        values = [criterion.function(weights[f"{layer['layer']}.weight"]) for layer in layers]
    elif criterion.needs == "activations":
        activations = tables.read_table(arguments.activations, "activations")
        values = [criterion.function(over_classes(activations, layer["layer"])) for layer in layers]
    else:
        generator = np.random.default_rng(spec["seed"] or 0)
        values = [criterion.function(layer["filters"], generator) for layer in layers]
    value = np.concatenate(values)
    rows = {
        "layer": np.repeat([layer["layer"] for layer in layers], [layer["filters"] for layer in layers]),
        "filter": np.concatenate([np.arange(layer["filters"]) for layer in layers]),
        "value": value,
        "score": criterion.score(value),
    }
    tables.write_table(arguments.output, rows, "scores", {"spec": spec})
    print(
        f"{value.size} filters of {len(layers)} layers: {spec['criterion']} from {value.min():.4g} to {value.max():.4g}"
    )


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--activations", type=Path, nargs="?", metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
