"""Differentiate the loss on the training images by what every filter does. Needs a data set's store, a split and a
backbone; makes the sums of gradients, a manifest and its arrays: float32, evaluation transform, per class, under a last
layer that is fitted first."""

from __future__ import annotations

import argparse

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.importance import gradients, passes, sums
from winnow.runtime.counting import Count
from winnow.runtime.memory import in_smaller_parts


def main(arguments: argparse.Namespace) -> None:
    ground = passes.opened(arguments)
    classes = len(ground.store.classes)

    batch = passes.batch_size(ground.store.image_size, gradients.BATCH_BYTES)
    count = Count(2 * ground.rows.size, "images")

    def fitted(batch: int) -> None:
        count.begin()
        gradients.fit_head(ground.network, lambda: ground.batches(batch), classes, count.add)

    def measured(batch: int) -> sums.Sums:
        count.begin(ground.rows.size)
        layers = ground.backbone.manifest["layers"]
        return gradients.measure(ground.network, layers, lambda: ground.batches(batch), classes, count.add)

    _, batch = in_smaller_parts(batch, fitted)
    found, _ = in_smaller_parts(batch, measured)
    count.close()
    sums.write(arguments.output, found, arguments.spec)
    print(f"{ground.backbone.units} filters over {ground.rows.size} images of {classes} classes on {ground.lease.name}")


def parser() -> argparse.ArgumentParser:
    return passes.parser(__doc__)


if __name__ == "__main__":
    cli.run(parser(), main)
