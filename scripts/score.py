"""Score every unit by one criterion. Needs a backbone and, for a criterion that looks at images, its statistics; makes
the table of scores, higher meaning keep. A unit is a filter, or several of different layers that go together."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
from safetensors import SafetensorError, safe_open

from winnow import cli, tables
from winnow.files import InputError, read_json
from winnow.importance import scores, sums
from winnow.importance.criteria import CRITERIA
from winnow.networks import units


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    name, layers = spec["criterion"], read_json(arguments.backbone / "manifest.json")["layers"]
    statistics = None
    if arguments.statistics is not None and name in CRITERIA:
        needs = CRITERIA[name].needs
        statistics = sums.read(arguments.statistics, needs) if needs in ("activations", "gradients") else None
    channels = tables.read_table(arguments.backbone / "channels.parquet", "channels")

    def read(names: list[str]) -> list[np.ndarray]:
        return tensors(arguments.backbone, names)

    value, score = scores.score(name, layers, channels, read, statistics, spec["seed"])
    layer, index = units.named(layers, channels)
    rows = {"layer": layer, "filter": index, "value": value, "score": score}
    tables.write_table(arguments.output, rows, "scores", {"spec": spec})
    print(f"{value.size} filters of {len(layers)} layers: {name} from {value.min():.4g} to {value.max():.4g}")


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
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--statistics", type=Path, nargs="?", metavar="FILE", help="manifest of sums; arrays beside it")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
