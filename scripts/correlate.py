"""Correlate what layers hear on the training images. Needs a data set's store, a split and a backbone; makes the
moments that cuts are repaired by, a manifest and its arrays: one pass, float32, evaluation transform."""

from __future__ import annotations

import argparse

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from tqdm import tqdm

from winnow import cli
from winnow.importance import moments, passes, statistics, sums
from winnow.runtime.memory import in_smaller_parts


def main(arguments: argparse.Namespace) -> None:
    ground = passes.opened(arguments)
    channels, classes = ground.backbone.channels, len(ground.store.classes)
    batch = passes.batch_size(ground.store.image_size, statistics.BATCH_BYTES[ground.lease.device])
    with tqdm(total=ground.rows.size, unit="image", mininterval=5) as bar:

        def measured(batch: int) -> sums.Sums:
            bar.reset()
            return moments.measure(ground.network, channels, ground.batches(batch), classes, progress=bar.update)

        found, _ = in_smaller_parts(batch, measured)
    sums.write(arguments.output, found, arguments.spec)
    print(f"{len(found.layers)} arrays of moments over {ground.rows.size} images on {ground.lease.name}")


def parser() -> argparse.ArgumentParser:
    return passes.parser(__doc__)


if __name__ == "__main__":
    cli.run(parser(), main)
