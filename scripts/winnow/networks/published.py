"""The weights that torchvision publishes: where each file lies, what it is known by, and for which images it was
trained. Needs no torch.

The Snakefile asks this module before any job runs. It is written down from ``torchvision.models.get_model_weights``,
which a test holds it against.
"""

from __future__ import annotations

import dataclasses
import math

from winnow.data.archives import Archive
from winnow.files import InputError

_ADDRESS = "https://download.pytorch.org/models/"
# Architecture → member of its enum of weights → file.
_FILES = {
    "vgg11": {"IMAGENET1K_V1": "vgg11-8a719046.pth"},
    "vgg11_bn": {"IMAGENET1K_V1": "vgg11_bn-6002323d.pth"},
    "vgg13": {"IMAGENET1K_V1": "vgg13-19584684.pth"},
    "vgg13_bn": {"IMAGENET1K_V1": "vgg13_bn-abd245e5.pth"},
    "vgg16": {"IMAGENET1K_V1": "vgg16-397923af.pth", "IMAGENET1K_FEATURES": "vgg16_features-amdegroot-88682ab5.pth"},
    "vgg16_bn": {"IMAGENET1K_V1": "vgg16_bn-6c64b313.pth"},
    "vgg19": {"IMAGENET1K_V1": "vgg19-dcbb9e9d.pth"},
    "vgg19_bn": {"IMAGENET1K_V1": "vgg19_bn-c79401a0.pth"},
    "alexnet": {"IMAGENET1K_V1": "alexnet-owt-7be5be79.pth"},
    "densenet121": {"IMAGENET1K_V1": "densenet121-a639ec97.pth"},
    "densenet161": {"IMAGENET1K_V1": "densenet161-8d451a50.pth"},
    "densenet169": {"IMAGENET1K_V1": "densenet169-b2777c0a.pth"},
    "densenet201": {"IMAGENET1K_V1": "densenet201-c1103571.pth"},
    "efficientnet_b0": {"IMAGENET1K_V1": "efficientnet_b0_rwightman-7f5810bc.pth"},
    "efficientnet_b1": {
        "IMAGENET1K_V1": "efficientnet_b1_rwightman-bac287d4.pth",
        "IMAGENET1K_V2": "efficientnet_b1-c27df63c.pth",
    },
    "efficientnet_b2": {"IMAGENET1K_V1": "efficientnet_b2_rwightman-c35c1473.pth"},
    "efficientnet_b3": {"IMAGENET1K_V1": "efficientnet_b3_rwightman-b3899882.pth"},
    "efficientnet_b4": {"IMAGENET1K_V1": "efficientnet_b4_rwightman-23ab8bcd.pth"},
    "efficientnet_b5": {"IMAGENET1K_V1": "efficientnet_b5_lukemelas-1a07897c.pth"},
    "efficientnet_b6": {"IMAGENET1K_V1": "efficientnet_b6_lukemelas-24a108a5.pth"},
    "efficientnet_b7": {"IMAGENET1K_V1": "efficientnet_b7_lukemelas-c5b4e57e.pth"},
    "efficientnet_v2_s": {"IMAGENET1K_V1": "efficientnet_v2_s-dd5fe13b.pth"},
    "efficientnet_v2_m": {"IMAGENET1K_V1": "efficientnet_v2_m-dc08266a.pth"},
    "efficientnet_v2_l": {"IMAGENET1K_V1": "efficientnet_v2_l-59c71312.pth"},
    "googlenet": {"IMAGENET1K_V1": "googlenet-1378be20.pth"},
    "inception_v3": {"IMAGENET1K_V1": "inception_v3_google-0cc3c7bd.pth"},
    "mobilenet_v2": {"IMAGENET1K_V1": "mobilenet_v2-b0353104.pth", "IMAGENET1K_V2": "mobilenet_v2-7ebf99e0.pth"},
    "mobilenet_v3_large": {
        "IMAGENET1K_V1": "mobilenet_v3_large-8738ca79.pth",
        "IMAGENET1K_V2": "mobilenet_v3_large-5c1a4163.pth",
    },
    "mobilenet_v3_small": {"IMAGENET1K_V1": "mobilenet_v3_small-047dcff4.pth"},
    "regnet_x_400mf": {"IMAGENET1K_V1": "regnet_x_400mf-adf1edd5.pth", "IMAGENET1K_V2": "regnet_x_400mf-62229a5f.pth"},
    "regnet_x_800mf": {"IMAGENET1K_V1": "regnet_x_800mf-ad17e45c.pth", "IMAGENET1K_V2": "regnet_x_800mf-94a99ebd.pth"},
    "regnet_x_1_6gf": {"IMAGENET1K_V1": "regnet_x_1_6gf-e3633e7f.pth", "IMAGENET1K_V2": "regnet_x_1_6gf-a12f2b72.pth"},
    "regnet_x_3_2gf": {"IMAGENET1K_V1": "regnet_x_3_2gf-f342aeae.pth", "IMAGENET1K_V2": "regnet_x_3_2gf-7071aa85.pth"},
    "regnet_x_8gf": {"IMAGENET1K_V1": "regnet_x_8gf-03ceed89.pth", "IMAGENET1K_V2": "regnet_x_8gf-2b70d774.pth"},
    "regnet_x_16gf": {"IMAGENET1K_V1": "regnet_x_16gf-2007eb11.pth", "IMAGENET1K_V2": "regnet_x_16gf-ba3796d7.pth"},
    "regnet_x_32gf": {"IMAGENET1K_V1": "regnet_x_32gf-9d47f8d0.pth", "IMAGENET1K_V2": "regnet_x_32gf-6eb8fdc6.pth"},
    "regnet_y_400mf": {"IMAGENET1K_V1": "regnet_y_400mf-c65dace8.pth", "IMAGENET1K_V2": "regnet_y_400mf-e6988f5f.pth"},
    "regnet_y_800mf": {"IMAGENET1K_V1": "regnet_y_800mf-1b27b58c.pth", "IMAGENET1K_V2": "regnet_y_800mf-58fc7688.pth"},
    "regnet_y_1_6gf": {"IMAGENET1K_V1": "regnet_y_1_6gf-b11a554e.pth", "IMAGENET1K_V2": "regnet_y_1_6gf-0d7bc02a.pth"},
    "regnet_y_3_2gf": {"IMAGENET1K_V1": "regnet_y_3_2gf-b5a9779c.pth", "IMAGENET1K_V2": "regnet_y_3_2gf-9180c971.pth"},
    "regnet_y_8gf": {"IMAGENET1K_V1": "regnet_y_8gf-d0d0e4a8.pth", "IMAGENET1K_V2": "regnet_y_8gf-dc2b1b54.pth"},
    "regnet_y_16gf": {
        "IMAGENET1K_V1": "regnet_y_16gf-9e6ed7dd.pth",
        "IMAGENET1K_V2": "regnet_y_16gf-3e4a00f9.pth",
        "IMAGENET1K_SWAG_E2E_V1": "regnet_y_16gf_swag-43afe44d.pth",
        "IMAGENET1K_SWAG_LINEAR_V1": "regnet_y_16gf_lc_swag-f3ec0043.pth",
    },
    "regnet_y_32gf": {
        "IMAGENET1K_V1": "regnet_y_32gf-4dee3f7a.pth",
        "IMAGENET1K_V2": "regnet_y_32gf-8db6d4b5.pth",
        "IMAGENET1K_SWAG_E2E_V1": "regnet_y_32gf_swag-04fdfa75.pth",
        "IMAGENET1K_SWAG_LINEAR_V1": "regnet_y_32gf_lc_swag-e1583746.pth",
    },
    "resnet18": {"IMAGENET1K_V1": "resnet18-f37072fd.pth"},
    "resnet34": {"IMAGENET1K_V1": "resnet34-b627a593.pth"},
    "resnet50": {"IMAGENET1K_V1": "resnet50-0676ba61.pth", "IMAGENET1K_V2": "resnet50-11ad3fa6.pth"},
    "resnet101": {"IMAGENET1K_V1": "resnet101-63fe2227.pth", "IMAGENET1K_V2": "resnet101-cd907fc2.pth"},
    "resnet152": {"IMAGENET1K_V1": "resnet152-394f9c45.pth", "IMAGENET1K_V2": "resnet152-f82ba261.pth"},
    "resnext50_32x4d": {
        "IMAGENET1K_V1": "resnext50_32x4d-7cdf4587.pth",
        "IMAGENET1K_V2": "resnext50_32x4d-1a0047aa.pth",
    },
    "resnext101_32x8d": {
        "IMAGENET1K_V1": "resnext101_32x8d-8ba56ff5.pth",
        "IMAGENET1K_V2": "resnext101_32x8d-110c445d.pth",
    },
    "resnext101_64x4d": {"IMAGENET1K_V1": "resnext101_64x4d-173b62eb.pth"},
    "squeezenet1_0": {"IMAGENET1K_V1": "squeezenet1_0-b66bff10.pth"},
    "squeezenet1_1": {"IMAGENET1K_V1": "squeezenet1_1-b8a52dc0.pth"},
    "wide_resnet50_2": {
        "IMAGENET1K_V1": "wide_resnet50_2-95faca4d.pth",
        "IMAGENET1K_V2": "wide_resnet50_2-9ba9bcbe.pth",
    },
    "wide_resnet101_2": {
        "IMAGENET1K_V1": "wide_resnet101_2-32ee1156.pth",
        "IMAGENET1K_V2": "wide_resnet101_2-d733dc28.pth",
    },
}
# A file's name ends in the first digits of its SHA-256; where all are known, it is held against all.
_SHA256 = {
    "resnet18-f37072fd.pth": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet50-0676ba61.pth": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
}
# Mean and standard deviation of the images that weights were trained on.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OTHERS = {
    # Pixels from 0 to 255, less their mean.
    "vgg16_features-amdegroot-88682ab5.pth": ((0.48235, 0.45882, 0.40784), (1 / 255, 1 / 255, 1 / 255)),
    "efficientnet_v2_l-59c71312.pth": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of weights, and the mean and standard deviation of the images that they were trained on, per channel."""

    file: Archive
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def names(architecture: str) -> list[str]:
    """The members of an architecture's enum of weights; none where torchvision publishes none."""
    files = _FILES.get(architecture)
    return [*files, "DEFAULT"] if files else []


def weights(architecture: str, name: str) -> Weights:
    """Weights by the name of the enum's member; ``DEFAULT`` is the newest for images of the usual size.

    Raises
    ------
    InputError
        If there are none of that name.
    """
    if name not in names(architecture):
        allowed = ", ".join([*names(architecture), "random"])
        raise InputError(f"unknown weights {name!r} of {architecture}; allowed: {allowed}")
    files = _FILES[architecture]
    newest = "IMAGENET1K_V2" if "IMAGENET1K_V2" in files else "IMAGENET1K_V1"
    file = files[newest if name == "DEFAULT" else name]
    digest = _SHA256.get(file) or file.rpartition(".")[0].rpartition("-")[2]
    return Weights(Archive(file, f"{_ADDRESS}{file}", f"sha256:{digest}"), *_OTHERS.get(file, _IMAGENET))


def check_images(architecture: str, name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Hold the images that a backbone is to see against those that its weights were trained on.

    Raises
    ------
    InputError
        If they are normalised otherwise: the network would answer with noise.
    """
    trained = weights(architecture, name)
    given, wanted = [*mean, *std], [*trained.mean, *trained.std]
    if not all(math.isclose(*pair, rel_tol=1e-3) for pair in zip(given, wanted, strict=True)):
        raise InputError(
            f"{architecture}'s {name} were trained on images normalised by mean {list(trained.mean)} and std"
            f" {[round(value, 6) for value in trained.std]}, the backbone says mean {list(mean)} and std {list(std)}:"
            " set its mean and std to the former"
        )
