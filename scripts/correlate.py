"""Correlate what layers hear on the training images. Needs a data set's store, a split and a backbone; makes the
moments that cuts are repaired by, a manifest and its arrays: one pass, float32, evaluation transform."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from tqdm import tqdm

from winnow import cli
from winnow.data.splits import Split
from winnow.data.store import Store
from winnow.importance import moments, passes, statistics, sums
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
    batch = passes.batch_size(store.image_size, statistics.BATCH_BYTES[lease.device])
    with tqdm(total=rows.size, unit="image", mininterval=5) as bar:

        def measured(batch: int) -> sums.Sums:
            bar.reset()
            batches = passes.batches_of(store, rows, backbone.manifest, lease.device, batch)
            return moments.measure(network, backbone.channels, batches, len(store.classes), progress=bar.update)

        found, _ = in_smaller_parts(batch, measured)
    sums.write(arguments.output, found, arguments.spec)
    print(f"{len(found.layers)} arrays of moments over {rows.size} images on {lease.name}")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__, leases=True)
    cli.add_dataset(result)
    result.add_argument("--backbone", action=cli.Folder, required=True)
    result.add_argument("--output", type=Path, required=True, metavar="FILE", help="manifest; arrays go beside it")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
