"""Decode a data set once. Needs its archives or its folder; makes its store: images.npy, index.parquet and
manifest.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from winnow.runtime import workers

if __name__ == "__main__":
    workers.delegate(__file__)

from winnow import cli
from winnow.data import archives, copies, datasets, downloads, overview
from winnow.data.store import Entry, write_store
from winnow.files import InputError
from winnow.runtime.counting import Count


def main(arguments: argparse.Namespace) -> None:
    spec = arguments.spec
    dataset = spec["dataset"]
    for archive, path in zip(archives.archives(dataset), arguments.archives, strict=True):
        if not path.exists():
            raise InputError(f"{path} does not exist")
        downloads.verify(path, archive.digest)
    source = datasets.SOURCES[dataset["source"]](dataset, arguments.archives)
    form, found = datasets.form(dataset, source, arguments.threads)
    skipped = list(source.tree.unreadable) if source.tree else []
    likenesses: list[bytes] = []
    manifest = {
        "dataset": spec["name"],
        "source": dataset["source"],
        "classes": source.classes,
        "store_size": dataset["store_size"],
        "image_size": dataset["image_size"],
        "reading": form.reading,
        "ranges": found,
        "skipped": skipped,
        "passed": overview.passed(source.tree),
        "notes": source.tree.notes if source.tree else [],
        "copies": None,
        "spec": spec,
    }

    def group(entries: list[Entry], checksums: list[int]) -> list[str | None]:
        if not source.files:
            return [entry.group for entry in entries]
        same = copies.find(likenesses, checksums, [entry.label for entry in entries])
        manifest["copies"] = copies.report(same, entries, source.classes)
        return copies.groups(same, entries)

    images = datasets.decoded(source, form, arguments.threads, skipped, likenesses)
    manifest = write_store(arguments.output, Count(source.count, "images").over(images), manifest, source.count, group)
    print("\n".join(overview.of_store(arguments.output)))
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
