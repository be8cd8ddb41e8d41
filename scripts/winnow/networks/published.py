"""The weights that torchvision and timm publish: where each file lies, what it is known by, and for which images it was
trained.

The Snakefile asks this module before any job runs. torchvision's are written down from
``torchvision.models.get_model_weights``, which a test holds them against: they need no torch. timm's are asked of timm:
:mod:`winnow.networks.zoo`.
"""

from __future__ import annotations

import dataclasses
import math

from winnow.data.archives import Archive
from winnow.files import InputError
from winnow.networks import zoo

# Weights of the features alone: what stands for the classifier in the file is not numbers.
FEATURES = "IMAGENET1K_FEATURES"
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
    "convnext_tiny": {"IMAGENET1K_V1": "convnext_tiny-983f1562.pth"},
    "convnext_small": {"IMAGENET1K_V1": "convnext_small-0c510722.pth"},
    "convnext_base": {"IMAGENET1K_V1": "convnext_base-6075fbad.pth"},
    "convnext_large": {"IMAGENET1K_V1": "convnext_large-ea097f82.pth"},
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
    "mnasnet0_5": {"IMAGENET1K_V1": "mnasnet0.5_top1_67.823-3ffadce67e.pth"},
    "mnasnet0_75": {"IMAGENET1K_V1": "mnasnet0_75-7090bc5f.pth"},
    "mnasnet1_0": {"IMAGENET1K_V1": "mnasnet1.0_top1_73.512-f206786ef8.pth"},
    "mnasnet1_3": {"IMAGENET1K_V1": "mnasnet1_3-a4c69d6f.pth"},
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
    "shufflenet_v2_x0_5": {"IMAGENET1K_V1": "shufflenetv2_x0.5-f707e7126e.pth"},
    "shufflenet_v2_x1_0": {"IMAGENET1K_V1": "shufflenetv2_x1-5666bf0f80.pth"},
    "shufflenet_v2_x1_5": {"IMAGENET1K_V1": "shufflenetv2_x1_5-3c479a10.pth"},
    "shufflenet_v2_x2_0": {"IMAGENET1K_V1": "shufflenetv2_x2_0-8be3c8ee.pth"},
    "squeezenet1_0": {"IMAGENET1K_V1": "squeezenet1_0-b66bff10.pth"},
    "squeezenet1_1": {"IMAGENET1K_V1": "squeezenet1_1-b8a52dc0.pth"},
    "swin_t": {"IMAGENET1K_V1": "swin_t-704ceda3.pth"},
    "swin_s": {"IMAGENET1K_V1": "swin_s-5e29d889.pth"},
    "swin_b": {"IMAGENET1K_V1": "swin_b-68c6b09e.pth"},
    "swin_v2_t": {"IMAGENET1K_V1": "swin_v2_t-b137f0e2.pth"},
    "swin_v2_s": {"IMAGENET1K_V1": "swin_v2_s-637d8ceb.pth"},
    "swin_v2_b": {"IMAGENET1K_V1": "swin_v2_b-781e5279.pth"},
    "wide_resnet50_2": {
        "IMAGENET1K_V1": "wide_resnet50_2-95faca4d.pth",
        "IMAGENET1K_V2": "wide_resnet50_2-9ba9bcbe.pth",
    },
    "wide_resnet101_2": {
        "IMAGENET1K_V1": "wide_resnet101_2-32ee1156.pth",
        "IMAGENET1K_V2": "wide_resnet101_2-d733dc28.pth",
    },
}
# A file's name ends in the first eight or ten digits of its SHA-256; where two or more people who have it say all of
# them alike, it is held against all.
_SHA256 = {
    digest[:8]: digest
    for digest in (
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
        "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        "23ab8bcd5bdbef61a7a43b91adcad81f622fd7f36fb4935a569828d77888c44e",
        "dd5fe13b1d60ec15317ccc8ca158186e134d3366c3dde9cb9a4e301f2dc66c74",
        "1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
        "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f",
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
        "5c1a416349c4cf298f2a6a5e2600ed0ee55e604713578f5e74e6bc8bcaef7997",
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        "cd907fc2a0de2292b2ba2b27d2216bc672d84632d1cf20058d01c0c03b5e020e",
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
        "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8",
    )
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
    mean: tuple[float, ...]
    std: tuple[float, ...]


def names(architecture: str) -> list[str]:
    """The names of an architecture's weights; none where nobody publishes any."""
    if zoo.is_name(architecture):
        return [*zoo.tags(architecture), zoo.DEFAULT]
    files = _FILES.get(architecture)
    return [*files, "DEFAULT"] if files else []


def publisher(architecture: str) -> str:
    """Who publishes an architecture's weights."""
    return "timm" if zoo.is_name(architecture) else "torchvision"


def weights(architecture: str, name: str) -> Weights:
    """Weights by the name of the enum's member, of torchvision's, or their tag, of timm's.

    ``DEFAULT`` is the newest for images of the usual size, or timm's own choice.

    Raises
    ------
    InputError
        If there are none of that name.
    """
    if zoo.is_name(architecture):
        found = zoo.configuration(architecture, name)
        if found.file is None:
            raise InputError(f"timm has no state dict of {architecture}'s {name} to download: use weights_file")
        return Weights(found.file, found.mean, found.std)
    if name not in names(architecture):
        allowed = ", ".join([*names(architecture), "random"])
        raise InputError(f"unknown weights {name!r} of {architecture}; allowed: {allowed}")
    files = _FILES[architecture]
    newest = "IMAGENET1K_V2" if "IMAGENET1K_V2" in files else "IMAGENET1K_V1"
    file = files[newest if name == "DEFAULT" else name]
    first = file.rpartition(".")[0].rpartition("-")[2]
    digest = _SHA256.get(first, first)
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
