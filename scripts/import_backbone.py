"""Bring a backbone's weights into one form. Needs torchvision's weights, a file, or pretrained ones; makes
weights.safetensors, the channel table and a manifest."""

from __future__ import annotations

import argparse
import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from winnow import cli, tables
from winnow.data import downloads
from winnow.files import InputError, atomic_path, file_digest, write_json
from winnow.networks import backbones, channels

# Of drawn weights, for a backbone that has nothing better.
RANDOM_SEED = 0
# Of a last layer whose weights are drawn. It is replaced in every cell.
CLASSES = 1000


def main(arguments: argparse.Namespace) -> None:
    spec, output = arguments.spec, arguments.output
    backbone = spec["backbone"]
    architecture, head = backbone["architecture"], backbone["head"]
    if backbone["weights"] == "random":
        network, source = backbones.initialised(architecture, head, CLASSES, RANDOM_SEED), f"drawn, seed {RANDOM_SEED}"
    else:
        if backbone["weights"]:
            path = download_weights(backbone)
            source = f"torchvision {architecture} {backbone['weights']} ({path.name})"
        elif arguments.weights:
            path = arguments.weights
            source = path.name
        else:
            raise InputError("the spec names no weights: give a file of them with --weights")
        network, drawn = fitted(architecture, head, read_state(path))
        if drawn:
            source += f"; not in it and drawn, seed {RANDOM_SEED}: {', '.join(drawn)}"

    weights = output / "weights.safetensors"
    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with atomic_path(weights) as temporary:
        save_file(state, temporary)
    found = channels.of(network)
    tables.write_table(output / "channels.parquet", found.table, "channels", {"spec": spec})
    manifest = {
        "backbone": spec["name"],
        "architecture": architecture,
        "head": head,
        "classes": network.get_submodule(backbones.last_layer(network)).weight.shape[0],
        "mean": backbone["mean"],
        "std": backbone["std"],
        "source": source,
        "weights_sha256": file_digest(weights),
        "channels_sha256": file_digest(output / "channels.parquet"),
        "layers": [dataclasses.asdict(layer) for layer in found.layers],
        "left_out": [dataclasses.asdict(layer) for layer in found.left_out],
        "spec": spec,
    }
    write_json(output / "manifest.json", manifest)
    print(f"{architecture}: {len(found.layers)} layers, weights: {source}")
    for layer in found.left_out:
        print(f"{layer.layer} stays whole: {layer.reason}")


def download_weights(backbone: dict[str, Any]) -> Path:
    """torchvision's file of weights, downloaded to ``downloads/`` unless it lies there.

    Raises
    ------
    InputError
        If there are no weights of that name, they were trained on images normalised otherwise than the backbone says,
        or their file cannot be had.
    """
    architecture, name = backbone["architecture"], backbone["weights"]
    try:
        members = torchvision.models.get_model_weights(architecture).__members__
    except ValueError:
        members = {}
    if name not in members:
        allowed = ", ".join([*members, "random"])
        raise InputError(f"unknown weights {name!r} of {architecture}; allowed: {allowed}")
    # The features of some weights were trained on pixels from 0 to 255: on others they would answer with noise.
    trained_on = members[name].transforms()
    given = [*backbone["mean"], *backbone["std"]]
    if not all(map(partial(math.isclose, rel_tol=1e-3), given, [*trained_on.mean, *trained_on.std])):
        raise InputError(
            f"{architecture}'s {name} were trained on images normalised by mean {list(trained_on.mean)} and std"
            f" {list(trained_on.std)}, the backbone says mean {list(backbone['mean'])} and std {list(backbone['std'])}:"
            " set its mean and std to the former"
        )
    official = members[name].url
    path = downloads.FOLDER / official.rsplit("/", 1)[1]
    # torchvision names a file after the first digits of its SHA-256.
    downloads.download(backbone["weights_url"] or official, path, f"sha256:{path.stem.rsplit('-', 1)[1]}")
    return path


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a .safetensors file, or from one that torch reads without running code from it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a state dict: {str(error).splitlines()[0]}") from None
    except Exception as error:  # torch's unpickler raises its own kinds
        raise InputError(f"{path} holds more than tensors: {str(error).splitlines()[0]}") from None
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
    state = backbones.published(architecture, state)
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


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument(
        "--weights", type=Path, nargs="?", metavar="FILE", help="a state dict, where the spec names none"
    )
    result.add_argument("--output", action=cli.Folder, required=True)
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
