"""Score every filter by one criterion. Needs a backbone and, for a criterion that looks at images, its statistics;
makes the table of scores, higher meaning keep."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import pyarrow.compute as pc
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
        names = [f"{layer['layer']}.weight" for layer in layers]
        values = [criterion.function(weight) for weight in tensors(arguments.backbone, names)]
    elif criterion.needs == "norms":
        names = [norm_scale(arguments.backbone, layer["layer"], spec["criterion"]) for layer in layers]
        values = [criterion.function(scale) for scale in tensors(arguments.backbone, names)]
    elif criterion.needs in ("activations", "gradients"):
        if arguments.statistics is None:
            raise InputError(
                f"{spec['criterion']} is a query over {criterion.needs}: give their table with --statistics"
            )
        statistics = tables.read_table(arguments.statistics, criterion.needs)
        values = [criterion.function(over_classes(statistics, layer["layer"], layer["filters"])) for layer in layers]
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


def norm_scale(backbone: Path, layer: str, criterion: str) -> str:
    """Name of the scale γ of the batch norm after a layer: the channel table has what goes with the layer's filters."""
    channels = tables.read_table(backbone / "channels.parquet", "channels")
    for tensor in channels.filter(pc.equal(channels["layer"], layer))["tensor"].unique().to_pylist():
        if tensor.endswith(".running_var"):
            return f"{tensor.removesuffix('running_var')}weight"
    raise InputError(
        f"{criterion} reads the batch norm after a convolution, but after {layer} of {backbone} there is none: "
        "choose an architecture that has it, such as vgg16_bn, or another criterion"
    )


def tensors(backbone: Path, names: list[str]) -> list[np.ndarray]:
    """Some of a backbone's tensors, read without the rest of the file, which is most of it."""
    path = backbone / "weights.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            return [file.get_tensor(name) for name in names]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read ({error}): delete it and run again to make it anew") from None


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--statistics", type=Path, nargs="?", metavar="FILE")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
