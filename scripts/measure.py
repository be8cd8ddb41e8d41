"""Measure what every filter does on the training images. Needs a data set's store and a backbone; makes the table of
activations: one pass, float32, evaluation transform, per class."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

import numpy as np
import torch
from tqdm import tqdm

from winnow import backbones, cli, statistics, tables
from winnow.augmentation import normalise
from winnow.preprocessing import evaluation_view
from winnow.runtime import devices
from winnow.store import Store

# Bytes of the largest activation map of a batch: large enough to fill a device, small enough for any.
BATCH_BYTES = 2**28


def main(arguments: argparse.Namespace) -> None:
    store = Store.open(arguments.dataset)
    backbone = backbones.load(arguments.backbone)
    manifest = backbone.manifest
    lease = devices.lease(arguments.gpu)
    devices.threads()
    network = backbone.network().to(lease.device)
    rows = store.rows("train")
    size = store.image_size
    batch = max(1, min(256, BATCH_BYTES // (4 * 64 * size * size)))

    def batches():
        for start in range(0, rows.size, batch):
            part = rows[start : start + batch]
            images, labels = (on_device(array) for array in (store.read(part), store.labels[part]))
            yield normalise(evaluation_view(images, size), manifest["mean"], manifest["std"]), labels

    def on_device(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        # From pinned memory the copy waits for nothing, so the next batch is read while the device works on this one.
        return tensor if lease.device == "cpu" else tensor.pin_memory().to(lease.device, non_blocking=True)

    with tqdm(total=rows.size, unit="image", mininterval=5) as bar:
        table = statistics.measure(network, manifest["layers"], batches(), len(store.classes), bar.update)
    tables.write_table(arguments.output, table, "activations", {"spec": arguments.spec})
    print(f"{backbone.units} filters over {rows.size} images of {len(store.classes)} classes on {lease.name}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    result.add_argument("--dataset", type=Path, required=True, metavar="DIR")
    result.add_argument("--backbone", type=Path, required=True, metavar="DIR")
    result.add_argument("--output", type=Path, required=True, metavar="FILE")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
