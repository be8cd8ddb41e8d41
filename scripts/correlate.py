"""Correlate what layers hear on the training images. Needs a data set's store, a split and a backbone; makes the
moments that cuts are repaired by, a manifest and its arrays: one pass, float32, evaluation transform."""

from __future__ import annotations

import argparse

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.importance import moments, passes, statistics, sums
from winnow.runtime.counting import Count
from winnow.runtime.memory import in_smaller_parts


def main(arguments: argparse.Namespace) -> None:
    ground = passes.opened(arguments)
    channels, classes = ground.backbone.channels, len(ground.store.classes)
    batch = passes.batch_size(ground.store.image_size, statistics.BATCH_BYTES[ground.lease.device])
    count = Count(ground.rows.size, "images")

    def measured(batch: int) -> sums.Sums:
        count.begin()
        return moments.measure(ground.network, channels, ground.batches(batch), classes, progress=count.add)

    found, _ = in_smaller_parts(batch, measured)
    count.close()
    sums.write(arguments.output, found, arguments.spec)
    print(f"{len(found.layers)} arrays of moments over {ground.rows.size} images on {ground.lease.name}")


def parser() -> argparse.ArgumentParser:
    return passes.parser(__doc__)


if __name__ == "__main__":
    cli.run(parser(), main)
