"""What the networks cost, for those who plan: known before there is a network, and without torch."""

from __future__ import annotations

# Multiply-accumulates of a forward pass in units of 10⁹, parameters in units of 10⁶, and numbers that a forward pass
# keeps for the backward pass in units of 10⁶: networks with 1,000 classes, an image of 224 pixels, torch 2.14
# (benchmarks/costs.py).
_MEASURED = {
    "vgg11": (7.61, 133.0, 12.2), "vgg11_bn": (7.61, 133.0, 19.6), "vgg13": (11.3, 133.0, 17.0),
    "vgg13_bn": (11.3, 133.0, 29.3), "vgg16": (15.5, 138.0, 18.3), "vgg16_bn": (15.5, 138.0, 31.9),
    "vgg19": (19.6, 144.0, 19.6), "vgg19_bn": (19.6, 144.0, 34.5), "vgg_digits": (0.000618, 0.0727, 0.00499),
    "alexnet": (0.714, 61.1, 0.935), "convnext_tiny": (4.46, 28.6, 27.3), "convnext_small": (8.68, 50.2, 43.6),
    "convnext_base": (15.4, 88.6, 58.0), "convnext_large": (34.4, 198.0, 86.9), "densenet121": (2.83, 7.98, 32.6),
    "densenet161": (7.73, 28.7, 60.8), "densenet169": (3.36, 14.1, 39.4), "densenet201": (4.29, 20.0, 50.9),
    "efficientnet_b0": (0.386, 5.29, 22.1), "efficientnet_b1": (0.57, 7.79, 30.7),
    "efficientnet_b2": (0.659, 9.11, 32.2), "efficientnet_b3": (0.963, 12.2, 42.7),
    "efficientnet_b4": (1.5, 19.3, 56.3), "efficientnet_b5": (2.36, 30.4, 77.5), "efficientnet_b6": (3.36, 43.0, 99.2),
    "efficientnet_b7": (5.17, 66.3, 133.0), "efficientnet_v2_s": (2.85, 21.5, 38.6),
    "efficientnet_v2_m": (5.36, 54.1, 62.8), "efficientnet_v2_l": (12.2, 119.0, 110.0), "googlenet": (1.5, 6.62, 12.1),
    "inception_v3": (5.71, 23.8, 24.6), "mnasnet0_5": (0.104, 2.22, 6.3), "mnasnet0_75": (0.215, 3.17, 9.71),
    "mnasnet1_0": (0.314, 4.38, 11.1), "mnasnet1_3": (0.526, 6.28, 14.9), "mobilenet_v2": (0.301, 3.5, 19.6),
    "mobilenet_v3_large": (0.217, 5.48, 11.0), "mobilenet_v3_small": (0.0565, 2.54, 4.05),
    "regnet_x_400mf": (0.414, 5.5, 6.32), "regnet_x_800mf": (0.8, 7.26, 10.1), "regnet_x_1_6gf": (1.6, 9.19, 15.6),
    "regnet_x_3_2gf": (3.18, 15.3, 22.3), "regnet_x_8gf": (8.0, 39.6, 27.6), "regnet_x_16gf": (15.9, 54.3, 49.8),
    "regnet_x_32gf": (31.7, 108.0, 70.9), "regnet_y_400mf": (0.402, 4.34, 8.42), "regnet_y_800mf": (0.834, 6.43, 11.7),
    "regnet_y_1_6gf": (1.61, 11.2, 18.0), "regnet_y_3_2gf": (3.18, 19.4, 25.0), "regnet_y_8gf": (8.47, 39.4, 43.0),
    "regnet_y_16gf": (15.9, 83.6, 50.5), "regnet_y_32gf": (32.3, 145.0, 66.7), "resnet18": (1.81, 11.7, 5.55),
    "resnet34": (3.66, 21.8, 8.06), "resnet50": (4.09, 25.6, 21.5), "resnet101": (7.8, 44.5, 31.8),
    "resnet152": (11.5, 60.2, 44.4), "resnext50_32x4d": (4.23, 25.0, 28.1), "resnext101_32x8d": (16.4, 88.8, 61.8),
    "resnext101_64x4d": (15.5, 83.5, 61.8), "shufflenet_v2_x0_5": (0.0405, 1.37, 2.77),
    "shufflenet_v2_x1_0": (0.145, 2.28, 5.11), "shufflenet_v2_x1_5": (0.296, 3.5, 7.18),
    "shufflenet_v2_x2_0": (0.583, 7.39, 9.62), "squeezenet1_0": (0.819, 1.25, 8.94),
    "squeezenet1_1": (0.349, 1.24, 5.27), "swin_t": (4.49, 28.3, 26.7), "swin_s": (8.74, 49.6, 42.6),
    "swin_b": (15.4, 87.8, 56.7), "swin_v2_t": (4.94, 28.4, 39.3), "swin_v2_s": (9.7, 49.7, 65.5),
    "swin_v2_b": (17.0, 87.9, 86.4), "wide_resnet50_2": (11.4, 68.9, 28.1),
    "wide_resnet101_2": (22.8, 127.0, 41.8),
}  # fmt: skip
# The same of those of timm's that docs/architectures.md has.
_OF_TIMM = {
    "timm/resnet18": (1.81, 11.7, 5.55), "timm/resnet34": (3.66, 21.8, 8.06), "timm/resnet50": (4.09, 25.6, 21.5),
    "timm/resnet101": (7.8, 44.5, 31.8), "timm/resnet26d": (2.58, 16.0, 15.9),
    "timm/resnext50_32x4d": (4.23, 25.0, 28.1), "timm/seresnet50": (4.09, 28.1, 27.1),
    "timm/ecaresnet26t": (2.55, 16.0, 18.7), "timm/resnetv2_50": (4.09, 25.5, 19.4),
    "timm/convnext_tiny": (4.46, 28.6, 27.3), "timm/convnext_nano": (2.45, 15.6, 17.1),
    "timm/convnextv2_atto": (0.547, 3.71, 12.1), "timm/efficientnet_b0": (0.386, 5.29, 22.1),
    "timm/efficientnet_b1": (0.57, 7.79, 30.7), "timm/tf_efficientnet_b0": (0.386, 5.29, 22.2),
    "timm/tf_efficientnet_lite0": (0.385, 4.65, 19.9), "timm/tf_efficientnetv2_b0": (0.718, 7.14, 15.2),
    "timm/efficientnetv2_rw_t": (1.91, 13.6, 31.4), "timm/mixnet_s": (0.239, 4.13, 17.2),
    "timm/mobilenetv1_100": (0.569, 4.23, 15.2), "timm/mobilenetv2_100": (0.301, 3.5, 19.6),
    "timm/mobilenetv3_small_100": (0.0565, 2.54, 4.05), "timm/mobilenetv3_large_100": (0.217, 5.48, 11.0),
    "timm/mobilenetv4_conv_small": (0.186, 3.77, 4.09), "timm/mnasnet_100": (0.314, 4.38, 11.1),
    "timm/fbnetc_100": (0.385, 5.57, 13.2), "timm/lcnet_050": (0.0447, 1.88, 3.95),
    "timm/ghostnet_100": (0.141, 5.18, 10.1), "timm/regnetx_002": (0.199, 2.68, 4.32),
    "timm/regnety_002": (0.2, 3.16, 4.69), "timm/regnety_008": (0.797, 6.26, 11.3),
    "timm/densenet121": (2.83, 7.98, 32.6), "timm/vgg11_bn": (7.61, 133.0, 19.6),
    "timm/inception_v3": (2.84, 23.8, 12.6), "timm/inception_v4": (6.12, 42.7, 22.1),
    "timm/hrnet_w18_small": (1.6, 13.2, 10.8), "timm/dla34": (3.06, 15.7, 11.8),
    "timm/rexnet_100": (0.398, 4.8, 23.0), "timm/repvgg_a0": (1.51, 9.11, 5.55),
    "timm/res2net50_14w_8s": (4.18, 25.1, 29.6),
}  # fmt: skip
_SIDES = {"inception_v3": 299, "vgg_digits": 8}
_SIDE = 224
# Of a network of one's own nobody knows anything: a medium one's, about a ResNet-50.
_UNKNOWN = (4.1, 25.0, 21.5)


def macs(architecture: str, image_size: int) -> float:
    """Multiply-accumulates of a forward pass over one image of ``image_size`` pixels a side.

    They grow with the image's area, from the side at which they were measured. Those of a VGG's classifier do not: for
    small images the estimate is too low. A name that nobody knows, such as a factory's, is taken for a medium network.
    """
    return 1e9 * _of(architecture)[0] * _area(architecture, image_size)


def parameters(architecture: str) -> float:
    """Parameters of a network with 1,000 classes and its own head."""
    return 1e6 * _of(architecture)[1]


def activations(architecture: str, image_size: int) -> float:
    """Numbers that a forward pass over one image keeps for the backward pass; what two layers keep counts once."""
    return 1e6 * _of(architecture)[2] * _area(architecture, image_size)


def _of(architecture: str) -> tuple[float, float, float]:
    # Of timm's names a tag says which weights.
    return _MEASURED.get(architecture) or _OF_TIMM.get(architecture.partition(".")[0], _UNKNOWN)


def _area(architecture: str, image_size: int) -> float:
    return (image_size / _SIDES.get(architecture, _SIDE)) ** 2
