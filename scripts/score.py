"""Score every unit by one criterion. Needs a backbone and, for a criterion that looks at images, its statistics; makes
the table of scores, higher meaning keep. A unit is a filter, or several of different layers that go together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open

from winnow import cli, tables
from winnow.criteria import CRITERIA, Criterion, over_classes
from winnow.files import InputError, read_json


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    if spec["criterion"] not in CRITERIA:
        raise InputError(f"unknown criterion {spec['criterion']!r}; allowed: {', '.join(CRITERIA)}")
    criterion = CRITERIA[spec["criterion"]]
    layers = read_json(arguments.backbone / "manifest.json")["layers"]
    unit, layer, index = members(arguments.backbone / "channels.parquet", layers)
    # A unit is named after its first member in network order.
    _, first = np.unique(unit, return_index=True)
    if criterion.needs == "norms":
        value = of_norms(criterion, spec["criterion"], arguments.backbone, unit.max() + 1, layers)
    elif criterion.needs == "nothing":
        # The bit generator is named: a drawn mask must not change when numpy's default does.
        generator = np.random.Generator(np.random.PCG64(spec["seed"] or 0))
        sizes = np.bincount(layer[first], minlength=len(layers))
        value = np.concatenate([criterion.function(size, generator) for size in sizes.tolist()])
    else:
        values = np.concatenate(of_filters(criterion, spec["criterion"], arguments, layers))
        heard = spoken_of(spec["criterion"], unit, layer, layers)
        start = np.concatenate([[0], np.cumsum([each["filters"] for each in layers])])
        of_member = values[start[layer] + index][heard]
        value = np.bincount(unit[heard], of_member) / np.bincount(unit[heard])
    rows = {
        "layer": np.array([each["layer"] for each in layers])[layer[first]],
        "filter": index[first],
        "value": value,
        "score": criterion.score(value),
    }
    tables.write_table(arguments.output, rows, "scores", {"spec": spec})
    print(
        f"{value.size} filters of {len(layers)} layers: {spec['criterion']} from {value.min():.4g} to {value.max():.4g}"
    )


def of_filters(
    criterion: Criterion, name: str, arguments: argparse.Namespace, layers: list[dict[str, Any]]
) -> list[np.ndarray]:
    """The values of all filters, (filters,) for each layer."""
    if criterion.needs == "weights":
        weights = tensors(arguments.backbone, [f"{layer['layer']}.weight" for layer in layers])
        return [criterion.function(weight) for weight in weights]
    if arguments.statistics is None:
        raise InputError(f"{name} is a query over {criterion.needs}: give their table with --statistics")
    statistics = tables.read_table(arguments.statistics, criterion.needs)
    return [criterion.function(over_classes(statistics, layer["layer"], layer["filters"])) for layer in layers]


def of_norms(criterion: Criterion, name: str, backbone: Path, units: int, layers: list[dict[str, Any]]) -> np.ndarray:
    """The mean over all batch norms that a unit's outputs go through, (units,)."""
    channels = tables.read_table(backbone / "channels.parquet", "channels")
    channels = channels.filter(pc.ends_with(channels["tensor"].cast("string"), ".running_var"))
    names = channels["tensor"].unique().to_pylist()
    scales = tensors(backbone, [f"{tensor.removesuffix('running_var')}weight" for tensor in names])
    total, count = np.zeros(units), np.zeros(units)
    for tensor, scale in zip(names, scales, strict=True):
        rows = channels.filter(pc.equal(channels["tensor"], tensor))
        value = criterion.function(scale)
        # Behind a flattened map a filter has a run of entries.
        spans = zip(*(rows[column].to_pylist() for column in ("first", "length", "stride")), strict=True)
        means = [value[first : first + length * stride : stride].mean() for first, length, stride in spans]
        total += np.bincount(rows["unit"].to_numpy(), means, units)
        count += np.bincount(rows["unit"].to_numpy(), minlength=units)
    if not count.all():
        unit, layer, _ = members(backbone / "channels.parquet", layers)
        without = layers[layer[np.flatnonzero(unit == np.flatnonzero(count == 0)[0])[0]]]["layer"]
        raise InputError(
            f"{name} reads the batch norm after a convolution, but after {without} of {backbone} there is none: "
            "choose an architecture that has it, such as vgg16_bn, or another criterion"
        )
    return total / count


def members(path: Path, layers: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every unit's members: unit, position of the layer in ``layers``, filter; by unit, then layer, then filter."""
    channels = tables.read_table(path, "channels")
    place = {each["layer"]: position for position, each in enumerate(layers)}
    names = channels["layer"].combine_chunks().dictionary_encode()
    layer = np.array([place[name] for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    rows = np.stack([channels["unit"].to_numpy(), layer, channels["filter"].to_numpy()])
    unit, layer, index = np.unique(rows, axis=1)
    return unit, layer, index


def spoken_of(name: str, unit: np.ndarray, layer: np.ndarray, layers: list[dict[str, Any]]) -> np.ndarray:
    """Which members a criterion has a value for, as (members,) bool.

    Raises
    ------
    InputError
        If it has none for a whole unit.
    """
    wanted = CRITERIA[name].activations
    heard = np.array([wanted is None or each["function"] in wanted for each in layers])[layer]
    silent = np.flatnonzero(np.bincount(unit, heard) == 0)
    if silent.size:
        example = layers[layer[np.flatnonzero(unit == silent[0])[0]]]
        raise InputError(
            f"{name} needs filters with an activation of {', '.join(wanted)}: that of layer {example['layer']}"
            f" is {example['function']}, as for {silent.size} of {unit.max() + 1} units"
        )
    return heard


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
