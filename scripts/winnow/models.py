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
    written = {"file": WEIGHTS, "sha256": file_digest(path), "bytes": path.stat().st_size}
    write_json(directory / DESCRIPTION, description | {"weights": written})
    return written


def remove(directory: Path) -> None:
    """Delete a network's files, if there are any."""
    (directory / DESCRIPTION).unlink(missing_ok=True)
    (directory / WEIGHTS).unlink(missing_ok=True)


def load(directory: Path, device: str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild a network from its files.

    Returns
    -------
    (network, description)
        The network in eval mode on ``device``.

    Raises
    ------
    InputError
        If a file is missing, truncated, or not the one that was written; the message names it.
    """
    path = directory / WEIGHTS
    written = read_json(directory / DESCRIPTION)["weights"]
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if file_digest(path) != written["sha256"]:
        raise InputError(f"{path} is not the file that {DESCRIPTION} describes: it was changed or cut short")
    try:
        with safe_open(path, "pt", device=device) as file:
            description = json.loads(file.metadata()["winnow"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a network that Winnow wrote: {error}") from None
    network = backbones.build(description["architecture"], description["head"], len(description["classes"]))
    surgery.resize(network, {name: tensor.shape for name, tensor in state.items()})
    network.load_state_dict(state, assign=True)
    return network.eval(), description


def stored_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
