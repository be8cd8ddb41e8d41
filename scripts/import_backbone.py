"""Bring a backbone's weights into one form. Needs a file of them, unless they are drawn; makes weights.safetensors, the
channel table and a manifest."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from safetensors.torch import save_file

from winnow import cli, tables
from winnow.data import downloads
from winnow.files import InputError, atomic_path, file_digest, write_json
from winnow.networks import backbones, channels, published, weights


def main(arguments: argparse.Namespace) -> None:
    spec, output = arguments.spec, arguments.output
    backbone = spec["backbone"]
    architecture, head = backbone["architecture"], backbone["head"]
    seed, path = weights.RANDOM_SEED, arguments.weights
    if backbone["weights"] == "random":
        network, source = backbones.initialised(architecture, head, weights.CLASSES, seed), f"drawn, seed {seed}"
    elif path:
        if spec.get("digest"):
            downloads.verify(path, spec["digest"])
        state, left = weights.read_state(path)
        network, drawn, other = weights.fitted(architecture, head, state)
        left += other
        if backbone["weights"] and head == "classifier":
            weights.check_published(architecture, backbone["weights"], network, drawn, left)
        source = path.name
        if backbone["weights"]:
            source = f"{published.publisher(architecture)} {architecture} {backbone['weights']} ({path.name})"
        if drawn:
            source += f"; not in it and drawn, seed {seed}: {', '.join(drawn)}"
        if left:
            source += f"; in it and left out: {weights.some(left)}"
    else:
        raise InputError("the spec's weights are not drawn: give a file of them with --weights")

    stored = output / "weights.safetensors"
    state = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with atomic_path(stored) as temporary:
        save_file(state, temporary)
    found = channels.of(network)
    tables.write_table(output / "channels.parquet", found.table, "channels", {"spec": spec})
    manifest = {
        "backbone": spec["name"],
        "architecture": architecture,
        "head": head,
        "classes": backbones.classes(network),
        "mean": backbone["mean"],
        "std": backbone["std"],
        "source": source,
        # Of the whole file: of torchvision's not all are known beforehand.
        "source_sha256": file_digest(path) if path else None,
        "weights_sha256": file_digest(stored),
        "channels_sha256": file_digest(output / "channels.parquet"),
        "layers": [dataclasses.asdict(layer) for layer in found.layers],
        "left_out": [dataclasses.asdict(layer) for layer in found.left_out],
        "spec": spec,
    }
    write_json(output / "manifest.json", manifest)
    print(f"{architecture}: {len(found.layers)} layers, weights: {source}")
    for layer in found.left_out:
        print(f"{layer.layer} stays whole: {layer.reason}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument(
        "--weights", type=Path, nargs="?", metavar="FILE", help="a state dict, unless the spec says that it is drawn"
    )
    result.add_argument("--output", action=cli.Folder, required=True)
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
