"""Which of torchvision's and timm's classifiers can be pruned, and what of them cannot: a row of a Markdown table each.

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

from winnow.networks import backbones, channels, couplings, zoo
from winnow.networks.architectures import NAMES
from winnow.files import InputError
from winnow.networks.tracing import RECTIFIERS


SOME = (
    *("vgg_digits", "vgg11", "vgg16_bn", "alexnet", "squeezenet1_0", "squeezenet1_1"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "resnext50_32x4d"),
    *("densenet121", "densenet169", "googlenet", "inception_v3"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "shufflenet_v2_x0_5"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"),
    *("convnext_tiny", "maxvit_t", "vit_b_16", "swin_t", "swin_v2_t"),
)
# How often timm's networks are used only its hub knows. These are of the families that it publishes most weights of,
# and that its documentation has pages of: members of at most 50 million parameters, the small ones first.
TIMM = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet26d"),
    *("resnext50_32x4d", "seresnet50", "ecaresnet26t", "resnetv2_50"),
    *("convnext_tiny", "convnext_nano", "convnextv2_atto"),
    *("efficientnet_b0", "efficientnet_b1", "tf_efficientnet_b0", "tf_efficientnet_lite0"),
    *("tf_efficientnetv2_b0", "efficientnetv2_rw_t", "mixnet_s"),
    *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("mnasnet_100", "fbnetc_100", "lcnet_050", "ghostnet_100"),
    *("regnetx_002", "regnety_002", "regnety_008"),
    *("densenet121", "vgg11_bn", "inception_v3", "inception_v4"),
    *("hrnet_w18_small", "dla34", "rexnet_100", "repvgg_a0", "res2net50_14w_8s"),
)


def row(name: str) -> str:
    """The architecture's row: verdict, filters that can go of all, units, APoZ, what stays."""
    if name in NAMES or zoo.is_name(name):
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
    left = Counter(each.reason for each in found.left_out)
    verdict = "works" if set(left) <= {couplings.OUTPUT} else "partly"
    stays = "; ".join(f"{count} convolution{'s' * (count > 1)}: {reason}" for reason, count in left.most_common(2))
    if len(left) > 2:
        stays += f"; {sum(count for _, count in left.most_common()[2:])} for such reasons"
    apoz = "yes" if len(spoken) == units else "no"
    return f"| {name} | {verdict} | {filters:,} of {total:,} | {units:,} | {apoz} | {stays} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of torchvision's, or timm/NAME (default: docs' tables)"
    )
    names = parser.parse_args().names or [*SOME, *(f"{zoo.PREFIX}{name}" for name in TIMM)]
    print("| architecture | verdict | filters that can go | units | apoz | what stays whole |")
    print("|---|---|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
