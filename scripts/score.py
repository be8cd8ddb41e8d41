"""Score every filter by one criterion. Needs a backbone and, for a criterion that looks at them, its activations; makes
the table of scores, higher meaning keep."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
from safetensors import SafetensorError, safe_open

from winnow import cli, tables
from winnow.criteria import CRITERIA, over_classes
from winnow.files import InputError, read_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    if spec["criterion"] not in CRITERIA:
        raise InputError(f"unknown criterion {spec['criterion']!r}; allowed: {', '.join(CRITERIA)}")
    criterion = CRITERIA[spec["criterion"]]
    layers = read_json(arguments.backbone / "manifest.json")["layers"]
    if criterion.needs == "weights":
        weights = convolutions(arguments.backbone / "weights.safetensors", layers)
        values = [criterion.function(weight) for weight in weights]
    elif criterion.needs == "activations":
        if arguments.activations is None:
            raise InputError(f"{spec['criterion']} is a query over activations: give their table with --activations")
        activations = tables.read_table(arguments.activations, "activations")
        values = [criterion.function(over_classes(activations, layer["layer"], layer["filters"])) for layer in layers]
    else:
        # The bit generator is named: a drawn mask must not change when numpy's default does.
        generator = np.random.Generator(np.random.PCG64(spec["seed"] or 0))
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


def convolutions(path: Path, layers: list[dict[str, Any]]) -> list[np.ndarray]:
    """The layers' weights, (filters, C_in, kh, kw) each, read without the rest of the file, which is most of it."""
    try:
        with safe_open(path, framework="numpy") as file:
            return [file.get_tensor(f"{layer['layer']}.weight") for layer in layers]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read ({error}): delete it and run again to make it anew") from None


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--activations", type=Path, nargs="?", metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
