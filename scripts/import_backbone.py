"""Bring a backbone's weights into one form. Needs torchvision's weights, a file, or pretrained ones; makes
weights.safetensors, the channel table and a manifest."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from winnow import backbones, channels, cli, downloads, tables
from winnow.files import InputError, atomic_path, file_digest, write_json

# Of drawn weights, for a backbone that has nothing better.
RANDOM_SEED = 0


def main(arguments: argparse.Namespace) -> None:
    spec, output = arguments.spec, arguments.output
    backbone = spec["backbone"]
    architecture, head = backbone["architecture"], backbone["head"]
    if backbone["weights"] == "random":
        state, source = None, f"drawn, seed {RANDOM_SEED}"
    elif backbone["weights"]:
        path = download_weights(architecture, backbone["weights"], backbone["weights_url"])
        state, source = read_state(path), f"torchvision {architecture} {backbone['weights']} ({path.name})"
    else:
        state, source = read_state(arguments.weights), arguments.weights.name
    if state is None:
        classes = 1000
        network = backbones.initialised(architecture, head, classes, RANDOM_SEED)
    else:
        network = fitted(architecture, head, state)
        classes = network.get_submodule(backbones.last_linear(network)).out_features

    weights = output / "weights.safetensors"
    with atomic_path(weights) as temporary:
        save_file({name: tensor.float().contiguous() for name, tensor in network.state_dict().items()}, temporary)
    tables.write_table(output / "channels.parquet", channels.derive(network), "channels", {"spec": spec})
    manifest = {
        "backbone": spec["name"],
        "architecture": architecture,
        "head": head,
        "classes": classes,
        "mean": backbone["mean"],
        "std": backbone["std"],
        "source": source,
        "weights_sha256": file_digest(weights),
        "weights_bytes": weights.stat().st_size,
        "layers": [dataclasses.asdict(layer) for layer in channels.layers_of(network)],
        "spec": spec,
    }
    write_json(output / "manifest.json", manifest)
    print(f"{architecture}: {len(manifest['layers'])} layers, weights: {source}")


def download_weights(architecture: str, name: str, url: str | None) -> Path:
    """torchvision's file of weights, downloaded to ``downloads/`` unless it lies there."""
    members = torchvision.models.get_model_weights(architecture)
    if name not in members.__members__:
        raise InputError(f"unknown weights {name!r} of {architecture}; allowed: {', '.join(members.__members__)}")
    official = members[name].url
    path = downloads.FOLDER / official.rsplit("/", 1)[1]
    # torchvision names a file after the first digits of its SHA-256.
    downloads.download(url or official, path, f"sha256:{path.stem.rsplit('-', 1)[1]}")
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


def fitted(architecture: str, head: str, state: dict[str, torch.Tensor]) -> nn.Module:
    """The architecture's network with a state dict's tensors.

    Under the head ``gap`` only the features are taken, and a new last layer is put on them: it is replaced in every
    cell anyway. The same holds where torchvision's weights are of the features alone, their other tensors not numbers.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    linear = backbones.last_linear(backbones.build(architecture, head, 1))
    classes = state[f"{linear}.weight"].shape[0] if f"{linear}.weight" in state else 1000
    network = backbones.build(architecture, head, classes)
    wanted = network.state_dict()
    fits = {name: tensor for name, tensor in state.items() if name in wanted and tensor.shape == wanted[name].shape}
    numbers = {name: tensor for name, tensor in fits.items() if bool(torch.isfinite(tensor).all())}
    missing = [name for name in wanted if name not in numbers]
    bad = [name for name in missing if name.startswith("features.")]
    if bad:
        name = bad[0]
        found = tuple(state[name].shape) if name in state else "nothing of that name"
        if name in fits:
            found = "values that are not finite"
        raise InputError(
            f"the weights do not fit {architecture}: {name} needs shape {tuple(wanted[name].shape)}, found {found}"
            f" ({len(bad)} such tensors)"
        )
    network = backbones.initialised(architecture, head, classes, RANDOM_SEED)
    network.load_state_dict(numbers, strict=False)
    if missing:
        print(f"drawn anew, since the file does not have them: {', '.join(missing)}")
    return network


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument(
        "--weights", type=Path, nargs="?", metavar="FILE", help="a state dict, where the spec names none"
    )
    result.add_argument("--output", type=Path, required=True, metavar="DIR")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
