"""Export a finished cell's network. Needs a cell whose model was kept, its data set's store and split; makes a
folder with the network as safetensors and as ONNX, model.json, README.md and example.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.answers import words
from winnow.exports import bundle
from winnow.exports.certificates import Disagreement
from winnow.files import InputError, file_digest, read_json, write_json
from winnow.networks import descriptions
from winnow.runtime import devices
from winnow.workflow import grid


def main(arguments: argparse.Namespace) -> None:
    devices.lease(0)
    exported = []
    for cell, unpruned, network, dataset, split, output, answer in places(arguments):
        try:
            model = bundle.export(
                *(cell, unpruned, network, dataset, split, output),
                *(arguments.spec, devices.threads(), answer, whole_network(arguments, unpruned)),
            )
        except Disagreement as disagreement:
            raise SystemExit(f"error: {cell}: {disagreement}") from None
        parameters = f"{model['params']} of {model['unpruned']['params']} parameters"
        print(f"{output}: {len(model['classes'])} classes, {parameters}")
        for sentence in words.certificates(model[descriptions.CERTIFICATES]):
            print(sentence)
        exported.append(
            {
                "dataset": answer and answer["dataset"],
                "backbone": answer and answer["backbone"],
                "folder": output.name,
                descriptions.CERTIFICATES: model[descriptions.CERTIFICATES],
                descriptions.CORRUPTIONS: model[descriptions.CORRUPTIONS],
            }
        )
    if arguments.digests:
        files = sorted(path for path in arguments.output.rglob("*") if path.is_file())
        write_json(arguments.digests, {str(path.relative_to(arguments.output)): file_digest(path) for path in files})
    if arguments.certificates:
        write_json(arguments.certificates, {"models": exported, "spec": arguments.spec})


def places(
    arguments: argparse.Namespace,
) -> list[tuple[Path, Path | None, Path, Path, Path, Path, dict[str, Any] | None]]:
    """Cell, the unpruned network's cell, kept network, store, split, new folder and the experiment's answer of each
    network to export: one, of which there is no answer, or an experiment's chosen ones.

    Raises
    ------
    InputError
        If neither is given, or only half of it.
    """
    if arguments.chosen and arguments.results:
        results, output = arguments.results, arguments.output
        return [
            (
                results / "cells" / each["cell"],
                results / "cells" / grid.parse_path(each["cell"]).baseline_of(each["backbone"]).path,
                results / "models" / each["cell"],
                results / "datasets" / each["dataset"],
                results / "splits" / each["dataset"] / f"{judged_by(results / 'cells' / each['cell'])}.parquet",
                output / f"{each['dataset']}-{each['backbone']}",
                each["answer"],
            )
            for each in read_json(arguments.chosen)["chosen"]
        ]
    if arguments.cell and arguments.dataset and arguments.split:
        network = arguments.network or arguments.cell
        place = arguments.cell, arguments.unpruned, network, arguments.dataset, arguments.split, arguments.output
        return [(*place, None)]
    raise InputError("which network? Give --cell, --dataset and --split, or --chosen and --results")


def whole_network(arguments: argparse.Namespace, unpruned: Path | None) -> Path | None:
    """The kept network of an unpruned cell; None where it is none of the files that were given."""
    if not arguments.whole or unpruned is None:
        return None
    folder = arguments.results / "models" / unpruned.relative_to(arguments.results / "cells")
    return folder if folder in {file.parent for file in arguments.whole} else None


def judged_by(cell: Path) -> str:
    """The name of the split that a cell was judged by."""
    return read_json(cell / "metrics.json")["split"]


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--cell", action=cli.Folder, help="a finished cell")
    result.add_argument(
        "--unpruned",
        action=cli.Folder,
        help="of a pruned one, the unpruned network's cell of the same seed",
    )
    result.add_argument("--network", action=cli.Folder, help="its kept network (default: beside the cell's files)")
    result.add_argument("--dataset", action=cli.Folder, help="the store that it was judged on")
    result.add_argument("--split", type=Path, metavar="FILE", help="which images of it judged")
    result.add_argument("--chosen", type=Path, metavar="FILE", help="instead of them, an experiment's chosen.json")
    cli.add_results(result, required=False)
    result.add_argument(
        "--whole", type=Path, nargs="*", metavar="FILE", help="unpruned networks that were kept, of these results"
    )
    result.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    result.add_argument("--digests", type=Path, metavar="FILE", help="gets the SHA-256 of each file in there")
    result.add_argument("--certificates", type=Path, metavar="FILE", help="gets what is certified of each network")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
