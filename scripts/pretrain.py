"""Train a backbone from scratch on a data set of its own. Needs the data set's store and a split; makes a
state dict and a manifest with its digest."""

from __future__ import annotations

import argparse

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from safetensors.torch import save_file

from winnow import cli
from winnow.data.images import load_images
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.files import atomic_path, canonical_json, file_digest, write_json
from winnow.networks import backbones, surgery
from winnow.runtime import devices
from winnow.training import judging, loop
from winnow.training.precision import precision_for


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    backbone, recipe, seed = spec["backbone"], spec["recipe"], spec["seed"]
    lease = devices.lease(arguments.gpu)
    devices.threads()
    store = Store.open(arguments.dataset)
    network = backbones.initialised(backbone["architecture"], backbone["head"], len(store.classes), seed)
    network = network.to(lease.device)
    images = load_images(store, backbone["mean"], backbone["std"], lease.device)
    _, macs = surgery.cost(network, store.image_size)
    precision = precision_for(recipe["precision"], lease.device, macs)
    split = Split.open(arguments.split, store)
    trained = loop.train(network, images, split.rows("train"), split.rows("val"), recipe, seed, precision)
    network.load_state_dict(trained.state)
    judged = judging.evaluate(network, images, split.rows("test"), precision)
    judging.require_finite(judged.loss, "test loss", f"with the weights of epoch {trained.epoch}")
    print(f"test accuracy {judged.accuracy:.4f} with the weights of epoch {trained.epoch}")
    state = {name: tensor.cpu().contiguous() for name, tensor in trained.state.items()}
    weights = arguments.output / "pretrained.safetensors"
    with atomic_path(weights) as temporary:
        save_file(state, temporary, {"winnow": canonical_json({"accuracy": judged.accuracy, "spec": spec})})
    manifest = {"accuracy": judged.accuracy, "weights_sha256": file_digest(weights), "spec": spec}
    write_json(arguments.output / "pretrained.json", manifest)


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    cli.add_dataset(result)
    result.add_argument(
        "--output", action=cli.Folder, required=True, help="gets pretrained.safetensors and pretrained.json"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
