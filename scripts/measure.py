"""Measure what every filter does on the training images. Needs a data set's store, a split and a backbone; makes the
sums of activations, a manifest and its arrays: one pass, float32, evaluation transform, per class; and beside them
speed.json, how fast that was, of which a dry run makes hours."""

from __future__ import annotations

import argparse
import time

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.files import write_json
from winnow.importance import passes, statistics, sums
from winnow.runtime import devices
from winnow.runtime.counting import Count
from winnow.runtime.memory import in_smaller_parts


def main(arguments: argparse.Namespace) -> None:
    ground = passes.opened(arguments)
    layers, classes = ground.backbone.manifest["layers"], len(ground.store.classes)
    batch = passes.batch_size(ground.store.image_size, statistics.BATCH_BYTES[ground.lease.device])
    count = Count(ground.rows.size, "images")

    def measured(batch: int) -> tuple[sums.Sums, float]:
        count.begin()
        start = time.perf_counter()
        found = statistics.measure(ground.network, layers, ground.batches(batch), classes, count.add)
        return found, time.perf_counter() - start

    (found, seconds), _ = in_smaller_parts(batch, measured)
    count.close()
    sums.write(arguments.output, found, arguments.spec)
    # A file of its own: two passes that come to the same sums take different times.
    speed = {"images": ground.rows.size, "seconds": seconds, "threads": devices.threads()}
    write_json(
        arguments.output.with_name("speed.json"),
        speed | {"gpu": ground.lease.id is not None, "device": ground.lease.name},
    )
    print(f"{ground.backbone.units} filters over {ground.rows.size} images of {classes} classes on {ground.lease.name}")


def parser() -> argparse.ArgumentParser:
    return passes.parser(__doc__)


if __name__ == "__main__":
    cli.run(parser(), main)
