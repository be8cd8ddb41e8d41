"""Weights of every origin, fitted to the network that they are for: torchvision's, one's own, or pretrained here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from winnow.files import InputError, first_line
from winnow.networks import backbones

# Of drawn weights, for a backbone that has nothing better.
RANDOM_SEED = 0
# Of a last layer whose weights are drawn. It is replaced in every cell.
CLASSES = 1000


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a .safetensors file, or from one that torch reads without running code from it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a state dict: {first_line(error)}") from None
    except Exception as error:  # torch's unpickler raises its own kinds
        raise InputError(f"{path} holds more than tensors: {first_line(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} is not a state dict (a mapping of names to tensors)")
    return state


def fitted(architecture: str, head: str, state: dict[str, torch.Tensor]) -> tuple[nn.Module, list[str]]:
    """The architecture's network with a state dict's tensors, and the names of those that it lacks and that are drawn.

    The features must be there, whole. The head may be missing, or not be numbers, which is how torchvision publishes
    weights of the features alone. Under the head ``gap`` those of another head are left out.

    Raises
    ------
    InputError
        If a tensor of the features is missing, any has another shape, or one belongs nowhere; the first are named.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state = renamed(architecture, state)
    skeleton = backbones.build(architecture, head, 1)
    prefix = backbones.head_prefix(skeleton)
    last_weight = f"{backbones.last_layer(skeleton)}.weight"
    of_this_head = last_weight in state and state[last_weight].shape[1:] == skeleton.state_dict()[last_weight].shape[1:]
    state = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(prefix) or ((head != "gap" or of_this_head) and bool(torch.isfinite(tensor).all()))
    }
    classes = state[last_weight].shape[0] if last_weight in state and of_this_head else CLASSES
    network = backbones.build(architecture, head, classes)
    wanted = network.state_dict()

    faults = []
    for name, tensor in wanted.items():
        if name not in state:
            # Batch norm's counter came late to torch; files that are older than it do not have it.
            if not name.startswith(prefix) and not name.endswith(".num_batches_tracked"):
                faults.append(f"{name} needs shape {tuple(tensor.shape)}, found nothing of that name")
        elif state[name].shape != tensor.shape:
            faults.append(f"{name} needs shape {tuple(tensor.shape)}, found {tuple(state[name].shape)}")
        elif not torch.isfinite(state[name]).all():
            faults.append(f"{name} holds values that are not finite")
    faults += [f"{name} belongs to no layer of it" for name in state if name not in wanted]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"the weights do not fit {architecture} with the head {head}: {'; '.join(faults[:3])}{more}")

    missing = [name for name in wanted if name not in state]
    if missing:
        state = backbones.initialised(architecture, head, classes, RANDOM_SEED).state_dict() | state
    network.load_state_dict(state, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):
        raise InputError(f"{architecture} has buffers that no state dict carries: register them as persistent")
    return network, [name for name in missing if name.startswith(prefix)]


def renamed(architecture: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict as torchvision publishes it, under the names of the architecture's network."""
    dropped = backbones.AUXILIARY.get(architecture, ())
    state = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)} if dropped else {**state}
    if architecture.startswith("densenet"):
        # The files are older than the names: norm.1 has become norm1.
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): t for name, t in state.items()}
    return state
