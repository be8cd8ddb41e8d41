"""What networks cost, as winnow.workflow.costs has it: a line each of its tables.

    python benchmarks/costs.py resnet18 timm/tf_efficientnet_lite0 ...

Networks have 1,000 classes and see images of 224 pixels. Numbers that a forward pass keeps are those of whole storages,
each once, without parameters and buffers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from winnow.networks import backbones, surgery

SIDE, CLASSES = 224, 1000


def kept(network: nn.Module, side: int) -> float:
    """Numbers that a forward pass over one image keeps for the backward pass."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            found[place] = tensor  # It stays, so that its place is not taken by another.
        return tensor

    # Two, since batch norm has no statistics of one image whose map is a point.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.zeros(2, 3, side, side))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values()) / 4 / 2


def line(name: str, side: int = SIDE) -> str:
    """A network's line: multiply-accumulates / 10⁹, parameters / 10⁶, numbers kept / 10⁶, three digits each."""
    params, macs = surgery.cost(backbones.build(name, "classifier", CLASSES), side)
    numbers = macs / 1e9, params / 1e6, kept(backbones.initialised(name, "classifier", CLASSES, 0), side) / 1e6
    return f'"{name}": ({", ".join(str(float(f"{number:.3g}")) for number in numbers)}),'


def main(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        print(line(name), flush=True)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("names", nargs="+", metavar="NAME", help="of torchvision's, or timm/NAME")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
