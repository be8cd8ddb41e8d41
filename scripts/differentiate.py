"""Differentiate the loss on the training images by what every filter does. Needs a data set's store, a split and a
backbone; makes the sums of gradients, a manifest and its arrays: float32, evaluation transform, per class, under a last
layer that is fitted first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from tqdm import tqdm

from winnow import cli
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.importance import gradients, passes, sums
from winnow.networks import backbones
from winnow.runtime import devices
from winnow.runtime.memory import in_smaller_parts


def main(arguments: argparse.Namespace) -> None:
    lease = devices.lease(arguments.gpu)
    devices.threads()
    store = Store.open(arguments.dataset)
    backbone = backbones.load(arguments.backbone)
    network = backbone.network().to(lease.device)
    rows = Split.open(arguments.split, store).rows("train")
    classes = len(store.classes)

    batch = passes.batch_size(store.image_size, gradients.BATCH_BYTES)
    with tqdm(total=2 * rows.size, unit="image", mininterval=5) as bar:

        def batches(batch: int) -> Iterator[passes.Batch]:
            return passes.batches_of(store, rows, backbone.manifest, lease.device, batch)

        def fitted(batch: int) -> None:
            bar.reset()
            gradients.fit_head(network, lambda: batches(batch), classes, bar.update)

        def measured(batch: int) -> sums.Sums:
            bar.n = rows.size
            layers = backbone.manifest["layers"]
            return gradients.measure(network, layers, lambda: batches(batch), classes, bar.update)

        _, batch = in_smaller_parts(batch, fitted)
        found, _ = in_smaller_parts(batch, measured)
    sums.write(arguments.output, found, arguments.spec)
    print(f"{backbone.units} filters over {rows.size} images of {classes} classes on {lease.name}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    cli.add_dataset(result)
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="manifest; arrays go beside it")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
