"""The big networks: their architectures, and their weights in one form.

Networks are built on the meta device, where they cost no memory and no initialisation, and get their tensors
afterwards: from a backbone's file, sliced from it (:mod:`winnow.networks.surgery`), or drawn.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import MNASNet, get_model
from torchvision.models import vgg as torchvision_vgg
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.ops import MLP, Permute

from winnow.files import InputError, file_digest, read_json
from winnow.networks import factories, pointwise, zoo
from winnow.networks.architectures import TORCHVISION
from winnow.tables import read_table

HEADS = ("classifier", "gap")
# Of head and classes.
Builder = Callable[[str, int], nn.Module]
ARCHITECTURES: dict[str, Builder] = {}


def architecture(name: str) -> Callable[[Builder], Builder]:
    """Register a function as the architecture ``name``."""

    def register(function: Builder) -> Builder:
        ARCHITECTURES[name] = function
        return function

    return register


def _vgg(layout: list[int | str], batch_norm: bool, head: str, classes: int) -> nn.Module:
    """torchvision's VGG, or the same features under a global average pool and one linear layer."""
    features = torchvision_vgg.make_layers(layout, batch_norm)
    network = torchvision_vgg.VGG(features, num_classes=classes, init_weights=False)
    width = next(size for size in reversed(layout) if isinstance(size, int))
    if head == "gap":
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(nn.Linear(width, classes))
    else:
        network.classifier[0] = nn.Linear(width * 49, 4096)
    return network


for _depth, _letter in ((11, "A"), (13, "B"), (16, "D"), (19, "E")):
    for _batch_norm in (False, True):
        ARCHITECTURES[f"vgg{_depth}{'_bn' * _batch_norm}"] = functools.partial(
            _vgg, torchvision_vgg.cfgs[_letter], _batch_norm
        )


# With their published weights they rescale their images themselves. The classifiers amid the network serve its training
# alone, and are left out.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# A global average pool and one linear layer take the place of more than that.
_GAP = ("alexnet", "mobilenet_v3_large", "mobilenet_v3_small")


class _Mnasnet(MNASNet):  # type: ignore[misc]  # torchvision has no types
    """As torchvision's, but takes tensors without the version that their names are of, which is this one."""

    _load_from_state_dict = nn.Module._load_from_state_dict


def _convolve(network: nn.Module) -> None:
    """Make a ConvNeXt's linear layers the convolutions of 1 × 1 that they are: their outputs are filters then."""
    for block in network.modules():
        if not isinstance(block, CNBlock):
            continue
        steps = block.block
        for number, step in enumerate(steps):
            if isinstance(step, Permute):
                steps[number] = nn.Identity()
            elif isinstance(step, nn.LayerNorm):
                steps[number] = LayerNorm2d(step.normalized_shape, step.eps)
            elif isinstance(step, nn.Linear):
                steps[number] = nn.Conv2d(step.in_features, step.out_features, 1)


def _torchvision(name: str, head: str, classes: int) -> nn.Module:
    if head == "gap" and name not in _GAP:
        raise InputError(f"{name} has no head gap, its own is as small; allowed: classifier")
    options = {"transform_input": True, "aux_logits": False, "init_weights": False} if name in AUXILIARY else {}
    if name.startswith("regnet"):
        # Its widths are computed with tensors, which must have values.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            network = get_model(name, weights=None, num_classes=classes)
        return network.to(torch.get_default_device())
    if name.startswith("mnasnet"):
        return _Mnasnet(float(name.removeprefix("mnasnet").replace("_", ".")), num_classes=classes)
    network = get_model(name, weights=None, num_classes=classes, **options)
    if name.startswith("convnext"):
        _convolve(network)
    if name.startswith("swin"):
        pointwise.convolve(network, MLP)
    if head == "gap":
        width = [module for module in network.features.modules() if isinstance(module, nn.Conv2d)][-1].out_channels
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(nn.Linear(width, classes))
    return network


for _name in TORCHVISION:
    ARCHITECTURES[_name] = functools.partial(_torchvision, _name)


@architecture("vgg_digits")
def vgg_digits(head: str, classes: int) -> nn.Module:
    """The demo's small sibling of VGG, for images of 8×8 pixels."""
    return _vgg([16, 16, "M", 32, 32, "M", 64, 64], False, head, classes)


def build(architecture: str, head: str, classes: int, device: str = "meta") -> nn.Module:
    """The architecture's network, on the meta device: shapes, no values.

    Parameters
    ----------
    architecture
        A name in :data:`ARCHITECTURES`, one of timm's (:mod:`winnow.networks.zoo`), or a factory's identity
        (:mod:`winnow.networks.factories`).
    device
        Elsewhere than on the meta device the network has the weights that its author draws.

    Raises
    ------
    InputError
        If the architecture or the head is unknown, or the architecture has no such head.
    """
    if factories.is_identity(architecture):
        return _own(architecture, head, classes, device)
    if zoo.is_name(architecture):
        if head != "classifier":
            raise InputError(f"{architecture} has no head {head!r}; allowed: classifier")
        with torch.device(device):
            return zoo.make(architecture, classes)
    if architecture not in ARCHITECTURES:
        raise InputError(f"unknown architecture {architecture!r}; allowed: {', '.join(ARCHITECTURES)}")
    if head not in HEADS:
        raise InputError(f"unknown head {head!r}; allowed: {', '.join(HEADS)}")
    with torch.device(device):
        return ARCHITECTURES[architecture](head, classes)


def _own(architecture: str, head: str, classes: int, device: str) -> nn.Module:
    if head != "classifier":
        raise InputError(f"{architecture} has no head {head!r}; allowed: classifier")
    make = factories.load(architecture)
    try:
        with torch.device(device):
            network = make(classes)
    except Exception as error:
        raise InputError(f"{architecture} fails: {type(error).__name__}: {error}") from None
    if not isinstance(network, nn.Module):
        raise InputError(f"{architecture} gives a {type(network).__name__}, not a torch.nn.Module")
    return network


def last_layer(network: nn.Module) -> str:
    """Name of the layer that gives the logits: the last linear one, or the last convolution where there is none."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if names:
            return names[-1]
    raise InputError(f"{type(network).__name__} has no linear layer and no convolution")


def classes(network: nn.Module) -> int:
    """How many logits a network gives."""
    return network.get_parameter(f"{last_layer(network)}.weight").shape[0]


def input_channels(network: nn.Module) -> int:
    """How many channels the images have that a network takes: what its first convolution does, or three."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)


def head_prefix(network: nn.Module) -> str:
    """How the names of the head's tensors begin: of all layers behind the features, where the network names them."""
    return "classifier." if hasattr(network, "classifier") else f"{last_layer(network)}."


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone as the workflow stores it.

    Attributes
    ----------
    manifest : dict
        Its architecture, head, normalisation and prunable layers.
    state : dict of str to Tensor
        All weights, float32.
    channels : pyarrow.Table
        Which slices of which tensors go with a unit.
    """

    manifest: dict[str, Any]
    state: dict[str, torch.Tensor]
    channels: pa.Table

    @property
    def units(self) -> int:
        """How many units there are."""
        return int(self.channels["unit"].to_numpy().max()) + 1

    def network(self) -> nn.Module:
        """The unpruned network with its own last layer, in eval mode. Not to be trained: it shares ``state``."""
        manifest = self.manifest
        network = build(manifest["architecture"], manifest["head"], manifest["classes"])
        network.load_state_dict(self.state, assign=True)
        return network.eval()


def load(directory: Path) -> Backbone:
    """Read a backbone's folder.

    Raises
    ------
    InputError
        If a file is missing, truncated or not the one that the manifest was written for; the message names it.
    """
    manifest = read_json(directory / "manifest.json")
    weights = directory / "weights.safetensors"
    try:
        if file_digest(weights) != manifest["weights_sha256"]:
            raise InputError(
                f"{weights} is not the file that its manifest describes: it was changed or cut short;"
                " delete it and run again to make it anew"
            )
        state = load_file(weights)
    except FileNotFoundError:
        raise InputError(f"{weights} does not exist") from None
    except SafetensorError as error:
        raise InputError(f"{weights} cannot be read ({error}): delete it and run again to make it anew") from None
    return Backbone(manifest, state, read_table(directory / "channels.parquet", "channels"))


def initialise(module: nn.Module, generator: torch.Generator, made: Callable[[], nn.Module] | None = None) -> None:
    """Draw a network's weights as torchvision does for the VGG family.

    Convolutions: He-normal over their outgoing connections, std = √(2 / (filters · kh · kw)) [He et al. 2015]; linear
    layers, and the convolution that gives the logits: normal with std 0.01; norms: scale 1; biases 0. What belongs to
    none of these, as what scales a ConvNeXt's blocks, is what it is in the network as its author makes it.

    Parameters
    ----------
    made
        Gives that network, perhaps a wider one.

    Raises
    ------
    InputError
        If a layer of another kind has tensors of its own whose values there do not say what they are here.
    """
    last, others = module.get_submodule(last_layer(module)), []
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear) or part is last:
            nn.init.normal_(part.get_parameter("weight"), 0.0, 0.01, generator=generator)
        elif isinstance(part, nn.Conv2d) and {"weight"} <= set(dict(part.named_parameters())) <= {"weight", "bias"}:
            fan_out = part.weight.shape[0] * math.prod(part.weight.shape[2:])
            nn.init.normal_(part.weight, 0.0, math.sqrt(2 / fan_out), generator=generator)
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(part.weight)
            part.reset_running_stats()
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        else:
            own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            others += [(part, f"{name}.{own_name}" if name else own_name, tensor) for own_name, tensor in own]
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    values = _values(made, generator.initial_seed()) if others and made else {}
    for part, name, tensor in others:
        value = values.get(name)
        if value is None or not (value.shape == tensor.shape or (value == value.flatten()[0]).all()):
            raise InputError(f"a layer of the kind {type(part).__name__} has weights that cannot be drawn")
        with torch.no_grad():
            tensor.copy_(value if value.shape == tensor.shape else value.flatten()[0])


def _values(made: Callable[[], nn.Module], seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = made()
    return dict(network.named_parameters()) | dict(network.named_buffers())


def initialised(architecture: str, head: str, classes: int, seed: int) -> nn.Module:
    """The architecture's network with drawn weights."""
    network = build(architecture, head, classes).to_empty(device="cpu")
    initialise(network, torch.Generator().manual_seed(seed), lambda: build(architecture, head, classes, "cpu"))
    return network
