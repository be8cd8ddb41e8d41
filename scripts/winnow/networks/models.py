"""A fine-tuned network as a file that rebuilds it: safetensors with its description, no dense weights, no pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from winnow.files import InputError, atomic_path, canonical_json, first_line, read_json, write_json
from winnow.networks import backbones, descriptions, surgery

WEIGHTS = descriptions.FILES["weights"]
DESCRIPTION = descriptions.DESCRIPTION
FILES = (WEIGHTS, DESCRIPTION)


# In place of a network whose training diverged: why.
DIVERGED = "diverged"


def save(directory: Path, network: nn.Module, description: Mapping[str, Any]) -> descriptions.Written:
    """Write a network's weights and description.

    Parameters
    ----------
    directory
        Gets ``model.safetensors``, which carries the description too, and ``model.json``.
    network
        On any device; its tensors are written as they are.
    description
        ``architecture``, ``head``, ``classes`` (names), and whatever else its user should know.

    Returns
    -------
    dict
        ``file``, ``sha256`` and ``bytes`` of the weights.
    """
    return _write(directory, network.state_dict(), description)


def save_none(directory: Path, reason: str, spec: dict[str, Any]) -> None:
    """Write the files of a network that there is none of, since its training diverged: they say why."""
    _write(directory, {}, {DIVERGED: reason, "spec": spec})


def divergence(directory: Path) -> str | None:
    """Why there is no network in a folder, as :func:`save_none` wrote it; None if there is one."""
    return read_json(directory / descriptions.DESCRIPTION).get(DIVERGED)


def _write(directory: Path, tensors: dict[str, torch.Tensor], description: Mapping[str, Any]) -> descriptions.Written:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = directory / WEIGHTS
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={descriptions.KEY: descriptions.pack(description)})
    written = descriptions.written(path)
    write_json(directory / descriptions.DESCRIPTION, {**description, "weights": written})
    return written


def load(place: Path, device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a network from its weights, held against ``model.json`` where that lies beside them.

    Parameters
    ----------
    place
        The file of weights, or the folder with ``model.safetensors``.

    Returns
    -------
    (network, description)
        The network in eval mode on ``device``.

    Raises
    ------
    InputError
        If the weights are missing or truncated, the training that they are of diverged, or the two files are not the
        pair that was written; the message names the file.
    """
    path = place / WEIGHTS if place.is_dir() else place
    if not path.exists():
        raise InputError(f"{path} does not exist")
    descriptions.check_file(path)
    try:
        with safe_open(path, "pt", device=device) as file:
            description = descriptions.unpack((file.metadata() or {}).get(descriptions.KEY), path)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        descriptions.check_description(path, description)
        if DIVERGED in description:
            raise InputError(f"{path} holds no network, its training diverged: {description[DIVERGED]}")
        network = backbones.build(description["architecture"], description["head"], len(description["classes"]))
        surgery.resize(network, {name: tensor.shape for name, tensor in state.items()})
        network.load_state_dict(state, assign=True)
    # A description without its keys, weights of another network: all that is wrong here is the file.
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is not a network that Winnow wrote: {first_line(error)}") from None
    return network.eval(), description


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of a network's weights, whichever file holds them, and of nothing else that the file says.

    It is that of one line of canonical JSON, name → [type, shape], and, name after name in the order of that line, of
    the bytes of each tensor: row by row, little-endian, as safetensors stores them.

    Parameters
    ----------
    tensors
        A network's ``state_dict()``, or what a file of weights holds; on any device, in any memory format.
    """
    names = sorted(tensors)
    header = {name: [str(tensors[name].dtype).removeprefix("torch."), list(tensors[name].shape)] for name in names}
    found = hashlib.sha256(canonical_json(header).encode())
    for name in names:
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def stored_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
