"""A fine-tuned network as a file that rebuilds it: safetensors with its description, no dense weights, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from winnow import backbones, surgery
from winnow.files import InputError, atomic_path, canonical_json, file_digest, read_json, write_json

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save(directory: Path, network: nn.Module, description: dict[str, Any]) -> dict[str, Any]:
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
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path = directory / WEIGHTS
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"winnow": canonical_json(description)})
    written = _written(path)
    write_json(directory / DESCRIPTION, description | {"weights": written})
    return written


def _written(path: Path) -> dict[str, Any]:
    """What tells a file of weights from any other."""
    return {"file": path.name, "sha256": file_digest(path), "bytes": path.stat().st_size}


def remove(directory: Path) -> None:
    """Delete a network's files, if there are any."""
    (directory / DESCRIPTION).unlink(missing_ok=True)
    (directory / WEIGHTS).unlink(missing_ok=True)


def load(directory: Path, device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a network from its weights, held against ``model.json`` where that lies beside them.

    Returns
    -------
    (network, description)
        The network in eval mode on ``device``.

    Raises
    ------
    InputError
        If the weights are missing or truncated, or the two files are not the pair that was written; the message names
        the file.
    """
    path, beside = directory / WEIGHTS, directory / DESCRIPTION
    if not path.exists():
        raise InputError(f"{path} does not exist")
    try:
        with safe_open(path, "pt", device=device) as file:
            description = json.loads(file.metadata()["winnow"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a network that Winnow wrote: {error}") from None
    if beside.exists() and read_json(beside) != description | {"weights": _written(path)}:
        raise InputError(f"{path} is not the file that {beside} describes: one of them was changed or cut short")
    network = backbones.build(description["architecture"], description["head"], len(description["classes"]))
    surgery.resize(network, {name: tensor.shape for name, tensor in state.items()})
    network.load_state_dict(state, assign=True)
    return network.eval(), description


def stored_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
