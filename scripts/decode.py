"""Decode a data set once. Needs its archives or its folder; makes its store: images.npy, index.parquet and
manifest.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from tqdm import tqdm

from winnow import cli
from winnow.data import archives, datasets, downloads
from winnow.data.store import write_store
from winnow.files import InputError


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    dataset = spec["dataset"]
    for archive, path in zip(archives.archives(dataset), arguments.archives, strict=True):
        if not path.exists():
            raise InputError(f"{path} does not exist")
        downloads.verify(path, archive.digest)
    source = datasets.SOURCES[dataset["source"]](dataset, arguments.archives)
    skipped: list[dict[str, str]] = []
    manifest = {
        "dataset": spec["name"],
        "source": dataset["source"],
        "classes": source.classes,
        "store_size": dataset["store_size"],
        "image_size": dataset["image_size"],
        "skipped": skipped,
        "spec": spec,
    }
    images = datasets.decoded(source, dataset["store_size"], arguments.threads, skipped)
    manifest = write_store(
        arguments.output,
        tqdm(images, unit="image", mininterval=5),
        manifest,
        source.count,
    )
    for bad in skipped:
        print(f"skipped {bad['file']}: {bad['reason']}")
    print(f"{len(source.classes)} classes, {manifest['images']} images, {len(skipped)} skipped")


def parser() -> argparse.ArgumentParser:
    result = cli.parser(__doc__)
    result.add_argument("--archives", type=Path, nargs="*", default=[], metavar="FILE")
    result.add_argument("--output", action=cli.Folder, required=True)
    result.add_argument("--threads", type=int, default=1, metavar="N", help="cores that decode (default: 1)")
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
