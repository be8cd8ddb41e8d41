"""Which of torchvision's classifiers can be pruned, and what of them cannot: one row of a Markdown table each.

    python benchmarks/architectures.py [NAME ...]

Each network is built with its own layers and drawn weights; its channel table is derived and tried out as at import.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import torchvision
from torch import nn

from winnow.networks import backbones, channels, couplings
from winnow.networks.architectures import NAMES
from winnow.files import InputError
from winnow.networks.tracing import RECTIFIERS


def row(name: str) -> str:
    """The architecture's row: verdict, filters that can go of all, units, APoZ, what stays."""
    if name in NAMES:
        network = backbones.build(name, "classifier", 1000)
    else:
        network = torchvision.models.get_model(name, weights=None)
    whole = {part: module for part, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    try:
        found = channels.of(network)
    except InputError as error:
        return f"| {name} | not | 0 of {sum(part.out_channels for part in whole.values()):,} | | | {error} |"
    total = sum(part.out_channels for part in whole.values())
    rows = found.table.select(["tensor", "dimension", "length"]).to_pylist()
    own = {f"{part}.weight" for part in whole}
    filters = sum(each["length"] for each in rows if each["tensor"] in own and each["dimension"] == 0)
    units = found.table["unit"].to_numpy().max() + 1
    heard = {layer.layer for layer in found.layers if layer.function in RECTIFIERS}
    spoken = {each["unit"] for each in found.table.select(["unit", "layer"]).to_pylist() if each["layer"] in heard}
    # Grouped convolutions are named in a manifest; here all are one reason.
    reasons = [each.reason for each in found.left_out]
    left = Counter("a grouped convolution" if text.startswith("grouped") else text for text in reasons)
    verdict = "works" if set(left) <= {couplings.OUTPUT} else "partly"
    stays = "; ".join(f"{count} convolution{'s' * (count > 1)}: {reason}" for reason, count in left.most_common(2))
    if len(left) > 2:
        stays += f"; {sum(count for _, count in left.most_common()[2:])} for such reasons"
    apoz = "yes" if len(spoken) == units else "no"
    return f"| {name} | {verdict} | {filters:,} of {total:,} | {units:,} | {apoz} | {stays} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of torchvision's classifiers (default: all)")
    names = parser.parse_args().names or torchvision.models.list_models(module=torchvision.models)
    print("| architecture | verdict | filters that can go | units | apoz | what stays whole |")
    print("|---|---|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
