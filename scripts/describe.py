"""Say what a data set is, on one screen: images by class and part, what was skipped and why, copies, what looks odd,
and what so many images can tell. Needs a store and the configuration that it is of; prints."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml

from winnow import cli
from winnow.data import overview, splits
from winnow.files import read_json
from winnow.workflow import config, promises, specs


def main(arguments: argparse.Namespace) -> None:
    raw = yaml.safe_load((Path(__file__).resolve().parents[1] / "config.yaml").read_text(encoding="utf-8"))
    if arguments.configfile:
        raw = config.laid_over(raw, arguments.configfile)
    known, name = config.load(raw), read_json(arguments.dataset / "manifest.json")["dataset"]
    if name not in known.datasets:
        print("\n".join(overview.of_store(arguments.dataset)))
        print(f"{name} is in no configuration that was given: what its images can tell follows from --configfile")
        return
    dataset, images = known.datasets[name], splits.Images.of_store(arguments.dataset)
    # With folds this is the first, and says whether all can be.
    parts = splits.assign(dataset.model_dump(include=set(specs.OF_THE_SPLIT)), images, 0 if dataset.folds else None)
    print("\n".join(overview.of_store(arguments.dataset, None if dataset.folds else parts)))
    least = min(np.bincount(images.labels).tolist())
    print(promises.of_images(known, name, parts.count("test"), len(parts), least, any(images.official)))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--dataset", action=cli.Folder, required=True)
    result.add_argument(
        "--configfile", type=Path, metavar="FILE", help="is laid over config.yaml, as Snakemake does it: own/NAME.yaml"
    )
    return result


if __name__ == "__main__":
    cli.run(parser(), main)
