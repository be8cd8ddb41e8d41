"""Score every unit by one criterion. Needs a backbone and, for a criterion that looks at them, its activations; makes
the table of scores, higher meaning keep. A unit is a filter, or several of different layers that go together."""

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
    unit, layer, index = members(arguments.backbone / "channels.parquet", layers)
    # A unit is named after its first member in network order.
    _, first = np.unique(unit, return_index=True)
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
        sizes = np.bincount(layer[first], minlength=len(layers))
        values = [criterion.function(size, generator) for size in sizes.tolist()]
    if criterion.needs == "nothing":
        value = np.concatenate(values)
    else:
        heard = spoken_of(spec["criterion"], unit, layer, layers)
        start = np.concatenate([[0], np.cumsum([each["filters"] for each in layers])])
        of_member = np.concatenate(values)[start[layer] + index][heard]
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
