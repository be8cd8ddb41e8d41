"""Export a finished cell's network. Needs a cell whose model was kept and its data set's store; makes a folder with the
network as safetensors and as ONNX, model.json, README.md and example.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.exports import bundle
from winnow.runtime import devices


def main(arguments: argparse.Namespace) -> None:
    devices.lease(0)
    try:
        model = bundle.export(arguments.cell, arguments.dataset, arguments.output, arguments.spec, devices.threads())
    except bundle.Disagreement as disagreement:
        raise SystemExit(f"error: {arguments.cell}: {disagreement}") from None
    check = model["onnx"]["check"]
    print(
        f"{arguments.output}: {len(model['classes'])} classes, {model['params']} parameters of "
        f"{model['unpruned']['params']}; ONNX as PyTorch on {check['images']} test images, logits to within "
        f"{check['largest_difference']:.1g}"
    )


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--cell", action=cli.Folder, required=True, help="a finished cell with its model")
    result.add_argument("--dataset", action=cli.Folder, required=True, help="the store that it was judged on")
    result.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
