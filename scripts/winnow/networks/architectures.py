"""The names of the architectures, for those who need no network and no torch."""

from __future__ import annotations

VGG = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))

# torchvision's other classifiers of whose filters some can be removed: see docs/architectures.md.
TORCHVISION = (
    "alexnet",
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *(f"efficientnet_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")),
    "googlenet",
    "inception_v3",
    *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    *(f"regnet_{kind}" for kind in ("x_400mf", "x_800mf", "x_1_6gf", "x_3_2gf", "x_8gf", "x_16gf", "x_32gf")),
    *(f"regnet_{kind}" for kind in ("y_400mf", "y_800mf", "y_1_6gf", "y_3_2gf", "y_8gf", "y_16gf", "y_32gf")),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *(f"shufflenet_v2_{width}" for width in ("x0_5", "x1_0", "x1_5", "x2_0")),
    *("squeezenet1_0", "squeezenet1_1"),
    *(f"swin_{size}" for size in ("t", "s", "b", "v2_t", "v2_s", "v2_b")),
    *("wide_resnet50_2", "wide_resnet101_2"),
)

NAMES = (*VGG, "vgg_digits", *TORCHVISION)
