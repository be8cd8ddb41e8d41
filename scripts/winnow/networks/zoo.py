"""timm's networks, ``timm/NAME``: what timm says of each, where its weights lie, and the network itself.

timm is asked, and imported, only where a name is one of its own: it brings torch, which takes seconds.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from winnow.data.archives import Archive
from winnow.files import InputError

if TYPE_CHECKING:
    from timm.models._pretrained import PretrainedCfg
    from torch import Tensor, nn

PREFIX = "timm/"
DEFAULT = "DEFAULT"
_HUB = "https://huggingface.co"
_HUB_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What timm says of a network and one of its weights.

    Attributes
    ----------
    file : Archive or None
        The weights; None where timm publishes none, or none as a state dict. Of the hub's files nobody but the hub
        knows the digest, which then has no digits.
    mean, std : tuple of float
        Of the images that the weights were trained on, per channel.
    side : int
        Of these images, in pixels.
    fixed : bool
        Whether the network takes no other.
    crop : float
        The share of an image's side that the network sees, the middle.
    classes : int
        Of the weights' last layer.
    """

    file: Archive | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    fixed: bool
    crop: float
    classes: int


def is_name(architecture: str) -> bool:
    """Whether an architecture is one of timm's."""
    return architecture.startswith(PREFIX)


def check(architecture: str) -> None:
    """Hold an architecture against timm's names.

    Raises
    ------
    InputError
        If it is none; the message has names that are like it.
    """
    import timm

    name = architecture.removeprefix(PREFIX)
    if timm.is_model(name) and "." not in name:
        return
    near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
    hint = f" (did you mean {' or '.join(repr(PREFIX + each) for each in near)}?)" if near else ""
    raise InputError(f"unknown architecture {architecture!r}{hint}; allowed: the names of timm.list_models()")


def tags(architecture: str) -> list[str]:
    """The names of an architecture's weights, its own default first."""
    return list(_configurations(architecture))


def configuration(architecture: str, weights: str = DEFAULT) -> Configuration:
    """What timm says of an architecture and its weights of one name; ``DEFAULT`` is its own choice.

    Raises
    ------
    InputError
        If timm has no such architecture, or no weights of that name.
    """
    found = _configurations(architecture)
    if weights != DEFAULT and weights not in found:
        allowed = ", ".join([*found, DEFAULT, "random"])
        raise InputError(f"unknown weights {weights!r} of {architecture}; allowed: {allowed}")
    return found[next(iter(found)) if weights == DEFAULT else weights]


@cache
def _configurations(architecture: str) -> dict[str, Configuration]:
    from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg
    from timm.models._pretrained import PretrainedCfg

    check(architecture)
    name = architecture.removeprefix(PREFIX)
    default = get_pretrained_cfg(name) or PretrainedCfg()
    found = {default.tag or "": default}
    found |= {each.tag or "": each for each in get_arch_pretrained_cfgs(name).values() if each.tag != default.tag}
    return {
        tag: Configuration(
            _file(f"{name}.{tag}" if tag else name, each),
            tuple(each.mean),
            tuple(each.std),
            each.input_size[-1],
            each.fixed_input_size,
            each.crop_pct,
            each.num_classes,
        )
        for tag, each in found.items()
    }


def _file(name: str, found: PretrainedCfg) -> Archive | None:
    """Where one of timm's entries says that its weights lie: on the hub, else at an address of its own."""
    if found.custom_load:
        return None
    if found.hf_hub_id:
        place, _, revision = found.hf_hub_id.partition("@")
        file = found.hf_hub_filename or _HUB_FILE
        url = f"{_HUB}/{place}/resolve/{revision or 'main'}/{file}"
        return Archive(f"{name}{file[file.rindex('.') :]}", url, "sha256:")
    if isinstance(found.url, str) and found.url:
        file = found.url.rpartition("/")[2]
        digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
        return Archive(file, found.url, f"sha256:{digits[1] if digits else ''}")
    return None


def make(architecture: str, classes: int) -> nn.Module:
    """The network with a last layer of so many classes, its weights drawn by timm, on the default device.

    Batch norms that apply an activation are taken apart, so that each of the two is a step of its own; what was
    ``bn1.weight`` is then ``bn1.norm.weight``. The linear layers of a ConvNeXt's and a Swin's blocks are made as the
    convolutions that they are. Buffers that timm makes with a network and writes to no file are in its state dict, and
    their names in ``made_with``. See :func:`renamed`.

    Raises
    ------
    InputError
        If timm has no such network, or cannot make it.
    """
    import timm
    from timm.layers.mlp import Mlp
    from timm.models import is_model_in_modules

    # Here, since it takes torch.
    from winnow.networks import pointwise

    check(architecture)
    name = architecture.removeprefix(PREFIX)
    options: dict[str, Any] = {"conv_mlp": True} if is_model_in_modules(name, ["convnext"]) else {}
    try:
        network = timm.create_model(name, pretrained=False, num_classes=classes, **options)
    except Exception as error:  # of any kind: a network's own code
        raise InputError(f"timm cannot make {architecture}: {type(error).__name__}: {error}") from None
    if is_model_in_modules(name, ["swin_transformer", "swin_transformer_v2"]):
        pointwise.convolve(network, Mlp)
    return _whole(_apart(network))


def _whole(network: nn.Module) -> nn.Module:
    before = network.state_dict().keys()
    for module in network.modules():
        module._non_persistent_buffers_set.clear()
    vars(network)["made_with"] = frozenset(network.state_dict().keys() - before)
    return network


def _apart(network: nn.Module) -> nn.Module:
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn

    for path, module in [*network.named_modules()]:
        if type(module) is not BatchNormAct2d:
            continue
        norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine, device="meta")
        norm._parameters, norm._buffers = module._parameters, module._buffers
        steps = {"norm": norm, "drop": module.drop, "act": module.act}
        steps = {name: step for name, step in steps.items() if not isinstance(step, nn.Identity)}
        parent, _, name = path.rpartition(".")
        alone = len(steps) == 1
        setattr(network.get_submodule(parent), name, norm if alone else nn.Sequential(collections.OrderedDict(steps)))
    return network


def renamed(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """A state dict as timm publishes it under the names of the network that :func:`make` gives, which are ``wanted``.

    An EfficientNet's may have the names of EfficientNet-PyTorch as well, of which there are files too.
    """
    if "_conv_stem.weight" in state:
        state = _efficientnet(state, wanted)
    found = {}
    for name, tensor in state.items():
        layer, _, last = name.rpartition(".")
        apart = f"{layer}.norm.{last}"
        found[apart if name not in wanted and apart in wanted else name] = tensor
    return found


def _efficientnet(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """EfficientNet-PyTorch's names as timm's: it counts blocks over all stages, and a block's norms from its first."""
    stages = {tuple(map(int, name.split(".")[1:3])) for name in wanted if name.startswith("blocks.")}
    blocks = [f"blocks.{stage}.{block}" for stage, block in sorted(stages)]
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    scaling = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    # A first block does not widen: its layers are one fewer, and timm counts them from one all the same.
    wide = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    wide |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

    def of(name: str) -> str:
        parts = name.split(".")
        if parts[0] == "_blocks" and int(parts[1]) < len(blocks):
            widens = f"_blocks.{parts[1]}._expand_conv.weight" in state
            layers = scaling | (wide if widens else plain)
            return ".".join([blocks[int(parts[1])], layers.get(parts[2], parts[2]), *parts[3:]])
        return ".".join([outside.get(parts[0], parts[0]), *parts[1:]])

    return {of(name): tensor for name, tensor in state.items()}
